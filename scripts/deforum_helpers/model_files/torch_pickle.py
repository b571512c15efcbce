"""The tensors named in a file that torch.save wrote, without running its pickle.

A .pth is a zip whose data.pkl is a program for a stack machine.  It is walked here with pickletools on
symbols: a global is only a name, a tensor only a dtype and a shape.  A program that names anything
beyond what rebuilding plain tensors takes is refused, by that name.  Standard library only.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import ModelError
from .headers import TensorEntry, refuse

__all__ = ["read_torch"]

_LONGEST_PICKLE = 64 * 1024 * 1024
_MOST_STEPS = 4_000_000
_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_REBUILDERS = frozenset(
    f"torch._utils.{name}"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
)
_SAFE_GLOBALS = (
    _REBUILDERS
    | {"collections.OrderedDict"}
    | {f"torch.{name}" for name in (*_STORAGES, *_DTYPES)}
    | {f"torch.storage.{name}" for name in ("UntypedStorage", "TypedStorage")}
)


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    numel: int


class _Foreign(Exception):
    """The program asks for something that weights don't need; the text says what."""


_MARK = object()
_UNSAFE = "the weights must be plain tensors: use the file of the official repository, or a safetensors version of it"


def read_torch(path: str, file: BinaryIO, size: int) -> dict[str, TensorEntry]:
    """List the tensors of a .pth.  Raises ModelError if it is damaged or holds anything but named tensors."""
    if file.read(4) != b"PK\x03\x04":
        refuse(path, "is in torch's format from before 2020", "take a safetensors version, or save it anew with torch")
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            program = _program(path, archive, members)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError) as error:
        raise ModelError(
            f"is truncated or not a torch file ({error})", where=path, next_step="download it again"
        ) from error
    root, raw = program
    try:
        value = _walk(raw)
        tensors = _named_tensors(value)
    except _Foreign as error:
        raise ModelError(f"is refused: {error}", where=path, next_step=_UNSAFE) from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"has a damaged pickle ({type(error).__name__}: {error})", where=path, next_step="download it again"
        ) from error
    for name, (storage, entry, reach) in tensors.items():
        info = members.get(f"{root}data/{storage.key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.header_offset + info.file_size > size:
            refuse(path, f"is truncated: the data of {name!r} is not in it", "download it again")
        have = info.file_size // _ITEM_BYTES[storage.dtype]
        if reach * _ITEM_BYTES[entry.dtype] > info.file_size or storage.numel > have:
            refuse(path, f"is damaged: {name!r} reaches past its data", "download it again")
    return {name: entry for name, (_, entry, _) in tensors.items()}


def _program(path: str, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> tuple[str, bytes]:
    """(folder inside the zip, the pickle).  Torch stores, never deflates: anything else could be a bomb."""
    found = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        refuse(path, "is a zip, but not one that torch.save wrote")
    info = members[found[0]]
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _LONGEST_PICKLE:
        refuse(path, "is refused: its pickle is compressed or larger than any model's", _UNSAFE)
    return found[0][: -len("data.pkl")], archive.read(info)


def _named_tensors(value: Any) -> dict[str, tuple[_Storage, TensorEntry, int]]:
    if not isinstance(value, dict):
        raise _Foreign(f"it holds {_described(value)}, not named tensors")
    result = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise _Foreign("its tensors are not named by text")
        if not isinstance(item, tuple) or len(item) != 3 or not isinstance(item[1], TensorEntry):
            raise _Foreign(f"{name!r} is {_described(item)}, not a tensor")
        result[name] = item
    return result


def _described(value: Any) -> str:
    if isinstance(value, _Global):
        return value.name
    return f"a nested {type(value).__name__}" if isinstance(value, (dict, list)) else f"a {type(value).__name__}"


def _walk(raw: bytes) -> Any:
    """Run the program on symbols and return what it leaves on the stack."""
    machine = _Machine()
    for step, (opcode, arg, _) in enumerate(_operations(raw)):
        if step > _MOST_STEPS:
            raise _Foreign("its pickle has no end")
        if opcode == "STOP":
            return machine.stack.pop()
        action = _ACTIONS.get(opcode)
        if action is None:
            raise _Foreign(f"its pickle uses {opcode}, which weights don't need")
        action(machine, arg)
    raise ValueError("no end mark")


def _operations(raw: bytes) -> Iterator[tuple[str, Any, int]]:
    for opcode, arg, position in pickletools.genops(raw):
        yield opcode.name, arg, position or 0


class _Machine:
    """The pickle machine, with a stack, marks in it and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise ValueError("no mark")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError("items for what is not a dict")
        target.update(_pairs(_two_by_two(items)))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("items for what is not a list")
        self.stack[-1].extend(items)

    def take_global(self, name: str) -> None:
        if name not in _SAFE_GLOBALS:
            raise _Foreign(f"loading it would run {name}, which is not part of plain weights")
        self.stack.append(_Global(name))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a global without a name")
        self.take_global(f"{module}.{name}")

    def persistent(self) -> None:
        """("storage", type, key, device, numel): where a tensor's bytes are."""
        kind, storage, key, _, numel = self.stack.pop()
        if kind != "storage" or not isinstance(storage, _Global) or type(numel) is not int or numel < 0:
            raise ValueError("not a storage")
        self.stack.append(_Storage(_STORAGES[storage.name.rsplit(".", 1)[-1]], str(key), numel))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, _Global) else ""
        if name == "collections.OrderedDict":
            self.stack.append(_pairs(arguments[0]) if arguments else {})
        elif name == "torch._utils._rebuild_parameter":
            self.stack.append(arguments[0])
        elif name in _REBUILDERS:
            self.stack.append(_tensor(name, arguments))
        else:
            raise _Foreign(f"loading it would call {name or _described(function)}")

    def build(self) -> None:
        """An OrderedDict's attributes (torch puts _metadata there); they carry no tensors."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise _Foreign(f"it sets attributes of {_described(self.stack[-1])}")


def _tensor(name: str, arguments: tuple[Any, ...]) -> tuple[_Storage, TensorEntry, int]:
    """(storage, entry, elements of the storage from its start that the tensor reaches)."""
    storage, offset, shape, stride = arguments[:4]
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _DTYPES[arguments[6].name.rsplit(".", 1)[-1]]
    sizes = [offset, *shape, *stride]
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in sizes) or len(shape) != len(stride):
        raise ValueError("a shape is not one")
    empty = 0 in shape
    reach = 0 if empty else offset + 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    return storage, TensorEntry(dtype, tuple(shape), math.prod(shape) * _ITEM_BYTES[dtype]), reach


def _two_by_two(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _pairs(items: Any) -> dict[Any, Any]:
    """A dict of them.  Keys are text or numbers: hashing a tuple nested a million deep would end the process."""
    result = {}
    for key, value in items:
        if type(key) not in (str, int):
            raise ValueError("a key that is neither text nor a number")
        result[key] = value
    return result


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _tuple_of(count: int) -> Any:
    def action(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise ValueError("the stack is too short")
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return action


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _remember(machine: _Machine, key: int | None) -> None:
    machine.memo[len(machine.memo) if key is None else key] = machine.stack[-1]


_ACTIONS: dict[str, Any] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: _push(m, _MARK),
    "POP": lambda m, a: m.stack.pop(),
    "NONE": lambda m, a: _push(m, None),
    "NEWTRUE": lambda m, a: _push(m, True),
    "NEWFALSE": lambda m, a: _push(m, False),
    "EMPTY_DICT": lambda m, a: _push(m, {}),
    "EMPTY_LIST": lambda m, a: _push(m, []),
    "EMPTY_TUPLE": lambda m, a: _push(m, ()),
    "DICT": lambda m, a: _push(m, _pairs(_two_by_two(m.to_mark()))),
    "LIST": lambda m, a: _push(m, m.to_mark()),
    "TUPLE": lambda m, a: _push(m, tuple(m.to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEM": lambda m, a: _set_item(m),
    "SETITEMS": lambda m, a: m.set_items(m.to_mark()),
    "APPEND": lambda m, a: m.append([m.stack.pop()]),
    "APPENDS": lambda m, a: m.append(m.to_mark()),
    "GLOBAL": lambda m, a: m.take_global(a.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "BINPERSID": lambda m, a: m.persistent(),
    "REDUCE": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: m.build(),
    "MEMOIZE": lambda m, a: _remember(m, None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: _push(m, m.memo[a])),
    **dict.fromkeys(
        (
            "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
            "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING",
        ),
        _push,
    ),
}  # fmt: skip
