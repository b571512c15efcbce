"""The header of a GGUF file: its metadata and its tensors' names, shapes and block types.

Read with the standard library, because the UI's process has no `gguf` package; dequantising is the
worker's work (wan/weights.py), through that package.
Source: the GGUF specification (ggml project), versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import replace
from typing import Any, BinaryIO

from ..errors import ModelError
from .headers import TensorEntry, refuse

__all__ = ["GGUF_PLAIN_DTYPES", "read_gguf"]

_MOST_ENTRIES = 100_000
_LONGEST_TEXT = 1 << 20
_LONGEST_ARRAY = 1 << 24
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9

# block type: name, elements in a block, bytes of a block
_BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
}  # fmt: skip
GGUF_PLAIN_DTYPES = frozenset(name for name, block, _ in _BLOCKS.values() if block == 1)


def read_gguf(path: str, file: BinaryIO, size: int) -> tuple[dict[str, TensorEntry], dict[str, Any]]:
    """(tensors, metadata).  Shapes come in torch's order; long arrays of the metadata only as their length."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            tensors, metadata, end = _read(_Cursor(data, size))
        except (struct.error, ValueError, KeyError, OverflowError) as error:
            raise ModelError(
                f"is truncated or has a damaged GGUF header ({error})", where=path, next_step="download it again"
            ) from error
    result = {}
    for name, (entry, offset) in tensors.items():
        if end + offset + entry.nbytes > size:
            refuse(path, f"is truncated: tensor {name!r} ends past the end of the file", "download it again")
        result[name] = replace(entry, offset=end + offset)
    return result, metadata


def _read(at: _Cursor) -> tuple[dict[str, tuple[TensorEntry, int]], dict[str, Any], int]:
    at.position = 4
    version = at.number("<I")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    tensor_count, value_count = at.number("<Q"), at.number("<Q")
    if max(tensor_count, value_count) > _MOST_ENTRIES:
        raise ValueError("more entries than any model has")
    metadata = {at.text(): at.value(at.number("<I")) for _ in range(value_count)}
    tensors = {}
    for _ in range(tensor_count):
        name, entry, offset = _tensor(at, metadata)
        if name in tensors:
            raise ValueError(f"{name!r} appears twice"[:200])
        tensors[name] = (entry, offset)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise ValueError("an alignment that is none")
    return tensors, metadata, -(-at.position // alignment) * alignment


def _tensor(at: _Cursor, metadata: dict[str, Any]) -> tuple[str, TensorEntry, int]:
    name, dims = at.text(), at.number("<I")
    if dims > 8:
        raise ValueError(f"{name!r} has {dims} dimensions"[:200])
    shape = tuple(at.number("<Q") for _ in range(dims))[::-1]
    dtype, block, block_bytes = _BLOCKS[at.number("<I")]
    offset = at.number("<Q")
    count = math.prod(shape)
    if count >= 1 << 48 or offset >= 1 << 60 or count % block:
        raise ValueError(f"{name!r} has a size that is none"[:200])
    # GGUF knows four dimensions; where five were folded into fewer, the true shape stands in the metadata.
    true = metadata.get(f"comfy.gguf.orig_shape.{name}")
    if isinstance(true, list) and all(type(n) is int and n >= 0 for n in true) and math.prod(true) == count:
        shape = tuple(true)
    return name, TensorEntry(dtype, shape, count // block * block_bytes), offset


class _Cursor:
    """A place in the file, moving on with each thing read."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.position = data, size, 0

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.position)
        self.position += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = self.number("<Q")
        if length > min(_LONGEST_TEXT, self.size - self.position):
            raise ValueError(f"a text of {length} bytes")
        self.position += length
        return self.data[self.position - length : self.position].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            # A tokenizer's texts can be long; a place past a bound would be no text.
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        kind, length = self.number("<I"), self.number("<Q")
        if length > min(_LONGEST_ARRAY, self.size):
            raise ValueError(f"an array of {length}")
        if kind == _TEXT:
            for _ in range(length):
                self.position += 8 + struct.unpack_from("<Q", self.data, self.position)[0]
            return length
        width = struct.calcsize(_SCALARS[kind])
        if length > 64:
            self.position += width * length
            return length
        return [self.number(_SCALARS[kind]) for _ in range(length)]
