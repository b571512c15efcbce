"""Find the parts of models in a folder: every weights file's header read once, shards put together.

Folders are untrusted too (folders.py): what can't be read becomes a line of text, and a folder with a million files is
not walked to its end.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ModelError
from .fault import Fault
from .folders import walk
from .headers import WEIGHT_SUFFIXES, TensorFile, read_tensor_file
from .lora_header import looks_like_wan_lora
from .parts import FOREIGN, PartInfo, identify_parts

__all__ = ["Scan", "scan_files", "scan_folder"]

_DEEPEST = 6
_MOST_ENTRIES = 50_000
_SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.\w+)$")
_INDEX = ".index.json"
_NO_ADDED_TOKENS = re.compile(rb'"added_tokens"\s*:\s*\[\s*\]')


@dataclass
class Scan:
    """What lies in a folder, and what is wrong with it."""

    parts: list[PartInfo] = field(default_factory=list)
    tokenizers: list[PartInfo] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def scan_folder(folder: Path, depth: int = _DEEPEST) -> Scan:
    """Everything in a folder and, down to `depth` levels, in the folders in it."""
    scan = Scan()
    entries = 0
    for here, files in walk(folder, depth, scan.faults):
        entries += len(files)
        if entries > _MOST_ENTRIES:
            scan.faults.append(Fault(f"{folder}: holds more than {_MOST_ENTRIES} files, the rest was not looked at"))
            break
        found = scan_files([here / name for name in files if Path(name).suffix.lower() in WEIGHT_SUFFIXES], files)
        scan.parts += found.parts
        scan.faults += found.faults
        tokenizer = _tokenizer(here, files)
        if tokenizer is not None:
            scan.tokenizers.append(tokenizer)
    return scan


def scan_files(paths: Iterable[Path], listing: Iterable[str] = ()) -> Scan:
    """The parts in these files of one folder.  listing: all names in the folder, index files among them."""
    scan = Scan()
    paths, headers = list(paths), {}
    for path in paths:
        try:
            headers[path.name] = read_tensor_file(path)
        except ModelError as error:
            scan.faults.append(Fault.of(error))
    sets, incomplete = _shard_sets(headers, paths, listing)
    loose = []
    for names in sets:
        parts = identify_parts(headers[name] for name in names)
        if not parts and len(names) == 1:
            loose.append(names[0])
        absent = incomplete.get(names[0], "")
        scan.faults += [Fault(absent)] if absent else []
        scan.parts += parts
    _join_unnumbered(scan, headers, loose)
    scan.faults += [Fault(f"{headers[name].path}: {what}") for name in loose if (what := _foreign(headers[name]))]
    return scan


def _shard_sets(
    headers: dict[str, TensorFile], paths: list[Path], listing: Iterable[str]
) -> tuple[list[list[str]], dict[str, str]]:
    """(sets of file names that belong together, first name of a set -> what the set lacks)."""
    folder = paths[0].parent if paths else Path()
    sets: list[list[str]] = []
    lacks: dict[str, str] = {}
    taken: set[str] = set()
    for index in sorted(name for name in listing if name.endswith(_INDEX)):
        wanted = _indexed(folder / index)
        have = sorted(wanted & set(headers) - taken)
        if have:
            sets.append(have)
            taken |= set(have)
            gone = sorted(wanted - set(headers))
            if gone:
                some = ", ".join(gone[:3])
                lacks[have[0]] = f"{folder / index}: {len(gone)} of {len(wanted)} shards can't be used: {some}"
    numbered: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(set(headers) - taken):
        match = _SHARD.match(name)
        numbered.setdefault(match.group("base", "count", "end") if match else (name,), []).append(name)
    for key, names in numbered.items():
        sets.append(names)
        if len(key) == 3 and len(names) != int(key[1]):
            there = {_SHARD.match(name)["number"] for name in names}  # type: ignore[index]
            gone = [f"{n:05d}" for n in range(1, min(int(key[1]), 999) + 1) if f"{n:05d}" not in there]
            lacks[names[0]] = f"{folder / names[0]}: shards {', '.join(gone[:6])} of {key[1]} can't be used"
    return sets, lacks


def _indexed(path: Path) -> set[str]:
    """The files that a shard index names; a broken index is none (the shards' own names do as well)."""
    try:
        if path.stat().st_size > 32 * 1024 * 1024:
            return set()
        names = set(json.loads(path.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str) and "/" not in name and "\\" not in name}


def _join_unnumbered(scan: Scan, headers: dict[str, TensorFile], loose: list[str]) -> None:
    """Shards that neither an index nor their names join: files that only together make a part whole."""
    broken = [part for part in scan.parts if part.problems and len(part.files) == 1]
    names = [Path(part.files[0]).name for part in broken] + loose
    if len(names) < 2 or not broken:
        return
    count = sum(len(headers[name].tensors) for name in names)
    if len(set().union(*(headers[name].tensors for name in names))) != count:
        return
    joined = [part for part in identify_parts(headers[name] for name in names) if not part.problems]
    if joined:
        used = {file for part in joined for file in part.files}
        scan.parts[:] = [part for part in scan.parts if not (part in broken and set(part.files) <= used)] + joined
        loose[:] = [name for name in loose if headers[name].path not in used]


@functools.lru_cache(maxsize=4096)
def _foreign(file: TensorFile) -> str:
    """What a file is that holds no part of a Wan model, "" if that can't be told.

    Of hundreds of LoRA files beside the models, each with hundreds of names, most are told by the first name.
    """
    if looks_like_wan_lora(file.tensors) or not any(
        name in _FOREIGN_NAMES or name.endswith(_FOREIGN_ENDINGS) for name in file.tensors
    ):
        return ""
    for name, what in FOREIGN:
        if name in file.tensors or any(full.endswith("." + name) for full in file.tensors):
            return f"is {what}, not a part of a Wan model"
    return ""


_FOREIGN_NAMES = frozenset(name for name, _ in FOREIGN)
_FOREIGN_ENDINGS = tuple(f".{name}" for name in _FOREIGN_NAMES)


def _tokenizer(folder: Path, files: list[str]) -> PartInfo | None:
    """A folder with UMT5's tokenizer; others (CLIP's, XLM-R's) number their special tokens otherwise."""
    for name in ("tokenizer.json", "spiece.model"):
        if name not in files:
            continue
        path = folder / name
        try:
            with path.open("rb") as file:
                opening = file.read(1 << 16)
            size = path.stat().st_size
        except OSError:
            continue
        if _NO_ADDED_TOKENS.search(opening):  # then what comes first are rules that name tokens in any order
            opening = opening[max(0, opening.find(b'"vocab"')) :]
        pad, end = opening.find(b"<pad>"), opening.find(b"</s>")
        first = opening.find(b"<s>")
        if 0 <= pad < end and (first < 0 or first > end):
            return PartInfo("tokenizer", "folder", name, (os.fspath(folder),), "", size)
    return None
