"""What a weights file holds, read from its header alone: names, shapes and dtypes, never a tensor.

safetensors here, torch's .pth in torch_pickle.py, GGUF in gguf_header.py; which one a file is, is read
off its first bytes.  Everything in a header is untrusted: sizes are bounded before they are used, every
tensor must lie inside the file, and nothing of it is ever executed.  Standard library only.
"""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, NoReturn

from ..errors import ModelError

__all__ = ["WEIGHT_SUFFIXES", "TensorEntry", "TensorFile", "read_tensor_file", "refuse"]

WEIGHT_SUFFIXES = frozenset({".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt", ".gguf"})

_LONGEST_HEADER = 32 * 1024 * 1024  # a 14B model's header is 0.2 MB
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """dtype: as safetensors spells it (F32, BF16, F8_E4M3 ...) or a GGUF block type (Q4_K ...).

    offset: of its bytes from the start of the file, for GGUF only (others have readers of their own).
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int = -1


@dataclass(frozen=True, eq=False)
class TensorFile:
    """One file's header.  size: of the whole file in bytes.  An unchanged file is always the same object."""

    path: str
    format: Literal["safetensors", "torch", "gguf"]
    size: int
    tensors: Mapping[str, TensorEntry] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


def refuse(path: str | os.PathLike[str], what: str, next_step: str = "") -> NoReturn:
    """Raise the ModelError for one file."""
    raise ModelError(what, where=os.fspath(path), next_step=next_step)


_AGAIN = "download it again"


def read_tensor_file(path: str | os.PathLike[str]) -> TensorFile:
    """Read the header of a weights file.

    Cached by size and time of change.  Raises ModelError, naming the file and what is wrong with it.
    """
    path = os.fspath(path)
    try:
        stat = Path(path).stat()
        if not Path(path).is_file():
            refuse(path, "is not a file")
        return _read_cached(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:  # also a symlink loop, and a folder that may not be entered
        raise ModelError(f"cannot be read ({error.strerror or error})", where=path) from error


@functools.lru_cache(maxsize=4096)
def _read_cached(path: str, size: int, _mtime_ns: int) -> TensorFile:
    with Path(path).open("rb") as file:
        opening = file.read(512)
        file.seek(0)
        if size == 0:
            refuse(path, "is empty", _AGAIN)
        if opening[:4] == b"PK\x03\x04" or opening[:2] == b"\x80\x02":
            from .torch_pickle import read_torch

            tensors = read_torch(path, file, size)
            return TensorFile(path, "torch", size, MappingProxyType(tensors))
        if opening[:4] == b"GGUF":
            from .gguf_header import read_gguf

            tensors, metadata = read_gguf(path, file, size)
            return TensorFile(path, "gguf", size, MappingProxyType(tensors), MappingProxyType(metadata))
        _refuse_what_downloads_leave_behind(path, opening)
        tensors, metadata = _read_safetensors(path, file, size)
        return TensorFile(path, "safetensors", size, MappingProxyType(tensors), MappingProxyType(metadata))


def _refuse_what_downloads_leave_behind(path: str, opening: bytes) -> None:
    start = opening.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        refuse(path, "is a web page, not weights", "a login or error page came instead: log in, then " + _AGAIN)
    if opening.startswith(b"version https://git-lfs"):
        refuse(path, "is a git-lfs pointer, not weights", "run git lfs pull there, or " + _AGAIN)
    if start.startswith(b"{") and b"\0" not in opening[:8]:
        refuse(path, "is JSON text, not weights", _AGAIN)


def _read_safetensors(path: str, file: BinaryIO, size: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """8 bytes length, that much JSON, then the tensors without holes: the whole of the format."""
    if size < 10:
        refuse(path, f"is only {size} bytes long", _AGAIN)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST_HEADER:
        refuse(path, f"is not a safetensors file (it announces a header of {length} bytes)", _AGAIN)
    if length > size - 8:
        refuse(path, f"is truncated: {size} bytes, but its header alone has {length}", _AGAIN)
    try:
        header = json.loads(file.read(length), object_pairs_hook=_no_duplicates)
        metadata = header.pop("__metadata__", {})
        spans = {name: _span(entry) for name, entry in header.items()}
        if not isinstance(metadata, dict):
            raise ValueError("__metadata__ is not an object")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"has a damaged safetensors header ({error})", where=path, next_step=_AGAIN) from error
    _check_spans(path, {name: (begin, end) for name, (_, begin, end) in spans.items()}, size - 8 - length)
    return {name: entry for name, (entry, _, _) in spans.items()}, metadata


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _span(entry: dict[str, Any]) -> tuple[TensorEntry, int, int]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _BITS:
        raise ValueError(f"unknown dtype {dtype!r}"[:80])
    numbers = [*shape, begin, end]
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers) or len(shape) > 16:
        raise ValueError("a shape or offset is not a size")
    bits = math.prod(shape) * _BITS[dtype]
    if (end - begin) * 8 != bits:
        raise ValueError(f"{end - begin} bytes for a {dtype} tensor of shape {shape}")
    return TensorEntry(dtype, tuple(shape), end - begin), begin, end


def _check_spans(path: str, spans: dict[str, tuple[int, int]], room: int) -> None:
    """Tensors must follow one another without hole or overlap, and end where the file ends."""
    reached = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != reached:
            what = "overlaps another" if begin < reached else "leaves a hole before it"
            refuse(path, f"has a damaged safetensors header (tensor {name!r} {what})", _AGAIN)
        reached = end
        if end > room:
            refuse(path, f"is truncated: tensor {name!r} ends {end - room} bytes past the end of the file", _AGAIN)
    if reached != room:
        refuse(path, f"has {room - reached} bytes that belong to no tensor", _AGAIN)
