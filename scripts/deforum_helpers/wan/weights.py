"""Tensors from files straight to where they are used: mapped, one at a time, in the dtype wanted.

What to read is settled before (`PartInfo.sources`, from headers alone); this only reads it.  A module is
built on the meta device, takes the tensors as they are (`assign`), and must take all of them: a missing,
extra or misshapen one is named, and nothing is loaded in part.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ModelError
from ..model_files import PartInfo, Source, read_tensor_file
from .eight_bit import STORED, is_eight_bit

__all__ = ["DtypeRule", "load_into", "load_module", "load_state", "open_tensors"]

DtypeRule = torch.dtype | Callable[[str], torch.dtype]
Rename = Callable[[str], str]
Module = TypeVar("Module", bound=nn.Module)

_NEXT = "download the file again"


class TensorReader(Protocol):
    """An open weights file: name -> tensor, on the device or still on the CPU, in the file's own dtype."""

    def __call__(self, name: str) -> Tensor: ...


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

    dtype: one for all, or a rule by official name.  At most one tensor is in memory twice.
    keep_eight_bit: of what eight_bit.py keeps in 8 bits, yield a weight that the file has so as it is, then its scale.
    Raises ModelError if the part isn't whole, a file changed or breaks off, or a value isn't finite.
    """
    if part.problems:
        raise ModelError("; ".join(part.problems), where=part.files[0], next_step=_NEXT)
    device = torch.device(device)
    with ExitStack() as stack:
        readers = {file: open_tensors(file, device, stack) for file in part.files}
        for official in sorted(part.sources, key=_by_place(part)):
            source = part.sources[official]
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
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelError("; ".join(faults[:3]) + more, where=where, next_step="check-model tells what the file is")
    module.load_state_dict(state, strict=True, assign=True)
    left = [name for name, value in module.named_buffers() if value.is_meta]
    assert not left, f"{type(module).__name__} makes buffers {left} that no file can fill"
    return module


def _by_place(part: PartInfo) -> Callable[[str], tuple[str, int]]:
    """Order of the bytes on disk: reading front to back is what disks and page caches are fast at."""
    order = {(file, name): at for file in part.files for at, name in enumerate(read_tensor_file(file).tensors)}
    return lambda official: (part.sources[official].places[0][0], order.get(part.sources[official].places[0], 0))


def _read(source: Source, readers: Mapping[str, TensorReader], device: torch.device, dtype: torch.dtype) -> Tensor:
    pieces = []
    for (file, name), scale in zip(source.places, source.scales, strict=True):
        piece = readers[file](name).to(device)
        if scale:
            piece = _rescaled(piece, readers[file](scale).to(device))
        pieces.append(piece.to(dtype))
    whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return whole.reshape(source.shape)


def _stored_eight_bit(
    name: str, source: Source, readers: Mapping[str, TensorReader], device: torch.device
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


def _rescaled(weight: Tensor, scale: Tensor) -> Tensor:
    """value = stored * scale, with one scale for the tensor or one per row."""
    scale = scale.float()
    if scale.numel() > 1:
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return weight.float() * scale


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
            return stack.enter_context(safe_open(file, framework="pt", device=str(device))).get_tensor
        except (OSError, SafetensorError) as error:
            raise ModelError(f"can't be read ({error})", where=file, next_step=_NEXT) from error
    if header.format == "torch":
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True).__getitem__
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise ModelError(f"is refused by torch ({error})", where=file, next_step=_NEXT) from error
    data = np.memmap(file, dtype=np.uint8, mode="r")
    return lambda name: _gguf_tensor(data, header.tensors[name])


def _gguf_tensor(data: np.ndarray, entry: object) -> Tensor:
    """One tensor of a GGUF file, dequantised to float32."""
    import gguf

    kind = gguf.GGMLQuantizationType[entry.dtype]  # type: ignore[attr-defined]
    raw = data[entry.offset : entry.offset + entry.nbytes]  # type: ignore[attr-defined]
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        plain = raw.view(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.float16)
        return torch.from_numpy(plain.copy()).reshape(entry.shape)  # type: ignore[attr-defined]
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    values = gguf.dequantize(raw.reshape(-1, block_bytes), kind)
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(entry.shape)  # type: ignore[attr-defined]
