"""Files that are either whole or not there, and the checks to make before a long run writes any.

What is being written lives beside its target under a name that ends in ".part" and takes the final name only when
it is complete and on the disk; whatever had that name before stays intact until then.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import InputError, OutputError

PART = ".part"
_CAN_BE_LOCKED = os.name == "nt"  # there a virus scanner or a player holds a file, often for a moment only
_LOCKED_RETRIES, _LOCKED_PAUSE = 20, 0.1
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MEBIBYTE = 1024 * 1024

_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space, then resume the job"),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", "free some space, then resume the job"),
    errno.EACCES: ("writing is not allowed here", "choose another output folder or change its permissions"),
    errno.EPERM: ("writing is not allowed here", "choose another output folder or change its permissions"),
    errno.EROFS: ("this place is read-only", "choose another output folder"),
    errno.ENOENT: ("the folder is gone", "restore it or choose another output folder, then resume the job"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("there is a folder of this name", "remove or rename it"),
    errno.ENAMETOOLONG: ("this path is too long", "choose a shorter batch_name or output folder"),
}


@contextmanager
def part_file(path: str | Path, *, sync_folder: bool = True) -> Iterator[Path]:
    """Yield the path to write to; it becomes `path` when the block ends, and vanishes when the block fails.

    Errors of the block pass through; raises OutputError when the finished file can't take its name.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    try:
        yield part
        with naming(path):
            _sync(part)
            _take_name(part, path)
            if sync_folder:
                sync_directory(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn what the operating system refuses inside the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason, next_step = _reason(error)
        raise OutputError(f"can't write this file: {reason}", got=str(path), next_step=next_step) from error


def write_bytes(path: str | Path, data: bytes, *, sync_folder: bool = True) -> None:
    """Put `data` under `path`, all of it or none.  Raises OutputError."""
    with part_file(path, sync_folder=sync_folder) as part, naming(path):
        part.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Put UTF-8 `text` under `path`, line ends as they are, all of it or none.  Raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Put `value` under `path` as readable JSON, all of it or none.  Raises OutputError; NaN is a ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=4, allow_nan=False) + "\n")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Delete the ".part" files that a killed process left in `folder`; call it while nothing writes there."""
    leftovers = sorted(Path(folder).glob("*" + PART))
    for part in leftovers:
        part.unlink(missing_ok=True)
    return leftovers


def check_output_folder(folder: str | Path, bytes_needed: int = 0) -> Path:
    """Make sure, before a long run, that `folder` exists (it is made), can be written to and has room.

    Returns it as an absolute path.  Raises InputError.
    """
    folder = Path(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"writable-{os.getpid()}-{threading.get_ident()}{PART}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason, _ = _reason(error)
        raise InputError(
            f"can't write to the output folder: {reason}", got=str(folder), next_step="choose another output folder"
        ) from error
    if free < bytes_needed:
        raise InputError(
            f"not enough room in the output folder: {free // _MEBIBYTE} MiB free",
            got=str(folder),
            allowed=f"at least {-(-bytes_needed // _MEBIBYTE)} MiB for this render",
            next_step="free some space, choose another output folder or render fewer frames",
        )
    return folder


def inside(folder: str | Path, name: str) -> Path:
    """`folder`/`name`, refused when that leaves the folder or is no plain file name on some system.

    name may hold subfolders, with either slash.  Links are followed before the check.  Raises InputError.
    """
    parts = re.split(r"[/\\]", name)
    bad = (
        any(part in ("", ".", "..") or part != part.rstrip(" .") or _DEVICE_NAMES.fullmatch(part) for part in parts)
        or re.search(r'[\x00-\x1f:*?"<>|]', name)
        or any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts)
    )
    root = Path(folder).resolve()
    if bad or not (target := root.joinpath(*parts).resolve()).is_relative_to(root):
        raise InputError(
            "a file name must stay inside its folder",
            got=name,
            allowed='names without "..", drive, leading slash or : * ? " < > |',
            next_step="choose another name",
        )
    return target


def sync_directory(folder: Path) -> None:
    """Make new names in `folder` survive a power cut, where the system can do that."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems refuse it; the files themselves are synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> tuple[str, str]:
    return _REASONS.get(error.errno or 0, (error.strerror or str(error), "check the disk, then resume the job"))


def _sync(part: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())


def _take_name(part: Path, path: Path) -> None:
    """Rename over `path`; where a program may have it open, wait a little."""
    for attempt in range(_LOCKED_RETRIES):
        try:
            os.replace(part, path)  # noqa: PTH105 - Path.replace is the same call, harder to stand in for in a test
            return
        except PermissionError as error:
            if not _CAN_BE_LOCKED:
                raise
            if attempt == _LOCKED_RETRIES - 1:
                raise OutputError(
                    "this file is in use by another program",
                    got=str(path),
                    next_step="close the program that shows it, then resume the job",
                ) from error
            time.sleep(_LOCKED_PAUSE)
