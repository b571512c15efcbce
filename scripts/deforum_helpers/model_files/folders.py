"""Through a folder that may be anything: each folder once however links lead to it, none too deep, no error raised."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .fault import Fault

__all__ = ["walk"]

_SKIPPED = frozenset({"blobs", "refs", ".git", "__pycache__", "node_modules", "venv"})


def walk(folder: Path, depth: int, faults: list[Fault]) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of the files in it, sorted), down to `depth` levels below the first, nearest first.

    faults: gets those of folders that can't be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [(folder, 0)]
    while waiting:
        here, level = waiting.pop(0)
        try:
            stat = here.stat()
            if (stat.st_dev, stat.st_ino) in seen and stat.st_ino:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            faults.append(Fault(f"{here}: can't be read ({error.strerror or error})"))
            continue
        files = []
        for entry in entries:
            if _is_folder(entry):
                if level < depth and entry.name not in _SKIPPED and not entry.name.startswith("."):
                    waiting.append((here / entry.name, level + 1))
            else:
                files.append(entry.name)
        yield here, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink that leads to itself
        return False
