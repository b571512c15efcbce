"""Tensors from files straight to where they are used: mapped, one at a time, in the dtype wanted.

What to read is settled before (`PartInfo.sources`, from headers alone); this only reads it.  A module is
built on the meta device, takes the tensors as they are (`assign`), and must take all of them: a missing,
extra or misshapen one is named, and nothing is loaded in part.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ModelError, first_few
from ..model_files import PartInfo, Source, TensorEntry, read_tensor_file
from .eight_bit import STORED, is_eight_bit

__all__ = ["DtypeRule", "load_into", "load_module", "load_state", "open_tensors", "read_weight"]

DtypeRule = torch.dtype | Callable[[str], torch.dtype]
Rename = Callable[[str], str]
Module = TypeVar("Module", bound=nn.Module)

_NEXT = "download the file again"
_AT_ONCE = 1 << 24  # numbers widened to float32 at a time: 64 MB


class TensorReader(Protocol):
    """An open weights file: name -> tensor, on the device or still on the CPU, in the file's own dtype.

    dtype: wanted in the end; what has to be computed to be read comes in it, a GGUF file's tensors.
    """

    def __call__(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor: ...


def load_module(
    build: Callable[[], Module], part: PartInfo, device: torch.device, dtype: DtypeRule, rename: Rename | None = None
) -> Module:
    """Build a module on the meta device and give it a part's weights, for inference.

    rename: official name -> the module's name, where they differ.  Raises ModelError.
    """
    with torch.device("meta"):
        module = build()
    module = load_into(module, load_state(part, device, dtype, rename), where=part.files[0])
    return module.eval().requires_grad_(False)


def load_state(
    part: PartInfo,
    device: torch.device | str,
    dtype: DtypeRule,
    rename: Rename | None = None,
    *,
    keep_eight_bit: bool = False,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for every official tensor of a part, on the device and in the dtype.

    dtype: one for all, or a rule by official name.  At most one tensor is in memory twice, and one shard is mapped.
    keep_eight_bit: of what eight_bit.py keeps in 8 bits, yield a weight that the file has so as it is, then its scale.
    Raises ModelError if the part isn't whole, a file changed or breaks off, or a value isn't finite.
    """
    if part.problems:
        raise ModelError("; ".join(part.problems), where=part.files[0], next_step=_NEXT)
    device = torch.device(device)
    with _Shards(device) as readers:
        for official in sorted(part.sources, key=_by_place(part)):
            source = part.sources[official]
            readers.keep(file for file, _ in source.places)
            wanted = dtype(official) if callable(dtype) else dtype
            try:
                if keep_eight_bit and (stored := _stored_eight_bit(official, source, readers, device)):
                    yield from stored
                    continue
                tensor = _read(source, readers, device, wanted)
            except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise ModelError(
                    f"tensor {source.places[0][1]!r} can't be read ({error})",
                    where=source.places[0][0],
                    next_step=_NEXT,
                ) from error
            _check_finite(tensor, source)
            yield (rename(official) if rename else official), tensor


def read_weight(part: PartInfo, official: str) -> Tensor:
    """One tensor of a part in float32 on the CPU, from its file.  Raises ModelError."""
    source = part.sources[official]
    file, name = source.places[0]
    with _Shards(torch.device("cpu")) as readers:
        try:
            return _read(source, readers, torch.device("cpu"), torch.float32)
        except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
            raise ModelError(f"tensor {name!r} can't be read ({error})", where=file, next_step=_NEXT) from error


def load_into(module: Module, tensors: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor], where: str = "") -> Module:
    """Give a module on the meta device its weights, as they are.  Raises ModelError naming what doesn't match."""
    state = dict(tensors)
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} does not belong there" for name in state if name not in wanted]
    faults += [
        f"{name} is {list(value.shape)}, must be {list(wanted[name])}"
        for name, value in state.items()
        if name in wanted and tuple(value.shape) != wanted[name]
    ]
    if faults:
        raise ModelError(first_few(faults, 3, "; "), where=where, next_step="check-model tells what the file is")
    module.load_state_dict(state, strict=True, assign=True)
    left = [name for name, value in module.named_buffers() if value.is_meta]
    assert not left, f"{type(module).__name__} makes buffers {left} that no file can fill"
    return module


class _Shards(AbstractContextManager["_Shards"]):
    """A part's files, open while they are in work: what is mapped of all the others would count as this process's
    memory as long as they stay open, until somebody else needs it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: dict[str, tuple[ExitStack, TensorReader]] = {}

    def __getitem__(self, file: str) -> TensorReader:
        if file not in self._open:
            stack = ExitStack()
            self._open[file] = stack, open_tensors(file, self._device, stack)
        return self._open[file][1]

    def keep(self, files: Iterable[str]) -> None:
        """Close all but these."""
        for file in set(self._open).difference(files):
            self._open.pop(file)[0].close()

    def __exit__(self, *_: object) -> None:
        self.keep(())


def _by_place(part: PartInfo) -> Callable[[str], tuple[str, int]]:
    """Order of the bytes on disk: reading front to back is what disks and page caches are fast at."""
    order = {(file, name): at for file in part.files for at, name in enumerate(read_tensor_file(file).tensors)}
    return lambda official: (part.sources[official].places[0][0], order.get(part.sources[official].places[0], 0))


def _read(source: Source, readers: _Shards, device: torch.device, dtype: torch.dtype) -> Tensor:
    pieces = []
    for (file, name), scale in zip(source.places, source.scales, strict=True):
        piece = readers[file](name, dtype).to(device)
        pieces.append(_rescaled(piece, readers[file](scale).to(device), dtype) if scale else piece.to(dtype))
    whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return whole.reshape(source.shape)


def _stored_eight_bit(
    name: str, source: Source, readers: _Shards, device: torch.device
) -> list[tuple[str, Tensor]]:
    """A weight in 8 bits and its scales [out, 1] as the file has them; [] where the file has it otherwise."""
    (file, stored), scale_name = source.places[0], source.scales[0]
    if len(source.places) > 1 or not is_eight_bit(name, tuple(source.shape)):
        return []
    weight = readers[file](stored)
    if weight.dtype != STORED:
        return []
    scale = readers[file](scale_name).float().reshape(-1, 1) if scale_name else torch.ones(1, 1)
    scale = scale.expand(weight.shape[0], 1).contiguous().to(device)
    weight = weight.to(device)
    _check_finite(weight, source)
    return [(name, weight.reshape(source.shape)), (name.removesuffix("weight") + "scale", scale)]


def _rescaled(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """stored [out, ...] * scale in a dtype, with one scale for the tensor or one per row.

    Some rows at a time: in float32 the text encoder's embedding alone would be 4 GB.
    """
    scale = scale.float().flatten()
    if scale.numel() not in (1, len(stored)):
        raise ValueError(f"{scale.numel()} scales for {len(stored)} rows")
    rows = scale.expand(len(stored)).reshape(-1, *[1] * (stored.dim() - 1))
    result = torch.empty(stored.shape, dtype=dtype, device=stored.device)
    for some in _some_rows(stored.shape):
        result[some] = stored[some].float() * rows[some]
    return result


def _some_rows(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of a tensor, as many at a time as make _AT_ONCE numbers."""
    step = max(1, _AT_ONCE // max(1, math.prod(shape[1:])))
    return (slice(first, first + step) for first in range(0, shape[0], step))


def _check_finite(tensor: Tensor, source: Source) -> None:
    """min and max carry any NaN or infinity along; one pass, nothing allocated."""
    if not tensor.numel() or not tensor.is_floating_point():
        return
    values = tensor if tensor.element_size() > 1 else tensor.to(torch.bfloat16)  # fp8 has no ordering kernel
    low, high = torch.aminmax(values)
    if not math.isfinite(float(low)) or not math.isfinite(float(high)):
        file, name = source.places[0]
        raise ModelError(f"tensor {name!r} holds NaN or infinity", where=file, next_step=_NEXT)


def open_tensors(file: str, device: torch.device, stack: ExitStack) -> TensorReader:
    """Map a weights file of any format; it stays open as long as the stack.  Raises ModelError."""
    header = read_tensor_file(file)  # again: the file may have changed since the model was looked at
    if header.format == "safetensors":
        try:
            opened = stack.enter_context(safe_open(file, framework="pt", device=str(device)))
            return lambda name, dtype=torch.float32: opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"can't be read ({error})", where=file, next_step=_NEXT) from error
    if header.format == "torch":
        try:
            mapped = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            return lambda name, dtype=torch.float32: mapped[name]
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise ModelError(f"is refused by torch ({error})", where=file, next_step=_NEXT) from error
    data = np.memmap(file, dtype=np.uint8, mode="r")
    return lambda name, dtype=torch.float32: _gguf_tensor(data, header.tensors[name], dtype)


def _gguf_tensor(data: np.ndarray, entry: TensorEntry, dtype: torch.dtype) -> Tensor:
    """One tensor of a GGUF file in a dtype, dequantised in float32 some rows at a time."""
    import gguf

    kind = gguf.GGMLQuantizationType[entry.dtype]
    raw = data[entry.offset : entry.offset + entry.nbytes]
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        plain = raw.view(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.float16)
        return torch.from_numpy(plain.copy()).reshape(entry.shape)
    numbers, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = raw.reshape(-1, block_bytes)
    result = torch.empty(len(blocks), numbers, dtype=dtype)
    for some in _some_rows(result.shape):
        result[some] = torch.from_numpy(gguf.dequantize(blocks[some], kind))
    return result.reshape(entry.shape)
