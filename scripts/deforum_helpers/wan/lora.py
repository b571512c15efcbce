"""LoRA: small differences to a backbone's weights, read in every common spelling, mixed in and taken out.

A weight under LoRAs is always its original plus the differences, worked out anew in float32, never a former
mix changed a little: the same set gives the same bits whatever was there before, and no set gives the
original's own.  Originals stay beside on the host (on a CPU they are the mapped file, at no cost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..model_files.lora_header import Change, LoraFile, read_lora
from .eight_bit import STORED, narrow, widen
from .offload import BlockStream
from .weights import TensorReader, open_tensors

__all__ = ["LoraMix"]


class LoraMix:
    """The LoRAs in a backbone's weights.  `set` changes them; an empty set leaves the original, bit for bit.

    stream: of a backbone whose blocks come from host memory: their weights are changed there.
    reread: official name -> the weight in float32 as the model's file has it.  Weights in 8 bits are changed from that
    and rounded once, with scales of their own; without it from what was rounded before.
    """

    def __init__(
        self, module: nn.Module, stream: BlockStream | None = None, reread: Callable[[str], Tensor] | None = None
    ) -> None:
        self.reread = reread
        self.parameters = dict(module.named_parameters())
        self.stream = stream
        self.originals: dict[str, Tensor] = {}
        self.current: tuple[object, ...] | None = ()  # None: a change was broken off
        self.files: dict[str, tuple[object, LoraFile]] = {}

    @torch.no_grad()
    def set(self, uses: Sequence[tuple[str, float]]) -> list[str]:
        """Mix in these (file, strength), and nothing else.  Returns notes on what had no place.

        Raises ModelError, before anything is changed, if a file can't be used; and if one holds numbers that can't,
        which is met on the way: the next `set` makes that good.
        """
        wanted = [(path, float(strength)) for path, strength in uses if strength]
        files = {path: self._file(path) for path, _ in wanted}
        state = tuple((path, self.files[path][0], strength) for path, strength in wanted)
        if state != self.current:
            touched = {name for file in files.values() for name in file.changes}
            if self.stream is not None:
                self.stream.rest()
            self.current = None
            with ExitStack() as stack:
                readers = {path: open_tensors(path, torch.device("cpu"), stack) for path in files}
                for name in sorted(touched):
                    self._mix(name, [(path, readers[path], files[path].changes.get(name), s) for path, s in wanted])
            for name in {key for key in self.originals if _weight_of(key) not in touched}:
                self._put(name, self.originals.pop(name))
            self.current = state
        return [note for file in files.values() if (note := file.note())]

    def _file(self, path: str) -> LoraFile:
        """A file's header, read again when the file has changed."""
        stamp = _stamp(path)
        if path not in self.files or self.files[path][0] != stamp:
            shapes = {name: tuple(value.shape) for name, value in self.parameters.items()}
            self.files[path] = stamp, read_lora(path, shapes)
        return self.files[path][1]

    def _mix(self, name: str, uses: list[tuple[str, TensorReader, Change | None, float]]) -> None:
        parameter = self.parameters[name]
        original = self._original(name)
        narrow_scale = self._original(_scale_of(name)) if original.dtype == STORED else None
        if narrow_scale is None:
            mixed = original.to(parameter.device, torch.float32, copy=True)
        elif self.reread is not None:
            mixed = self.reread(name).to(parameter.device, torch.float32, copy=True)
        else:
            mixed = widen(original.to(parameter.device), narrow_scale.to(parameter.device), torch.float32)
        for path, reader, change, strength in uses:
            if change is not None:
                difference = _difference(reader, change, parameter)
                if not torch.isfinite(difference).all():
                    raise ModelError(f"what it adds to {name} holds NaN or infinity", where=path,
                                     next_step="download it again, or leave it out")  # fmt: skip
                mixed += difference.mul_(strength)
        if narrow_scale is None:
            self._put(name, mixed)
            return
        weight, scale = narrow(mixed)
        self._put(name, weight)
        self._put(_scale_of(name), scale)

    def _original(self, name: str) -> Tensor:
        if name not in self.originals:
            kept = self.parameters[name].data.cpu()
            self.originals[name] = kept.clone() if self._is_streamed(name) else kept
        return self.originals[name]

    def _is_streamed(self, name: str) -> bool:
        return self.stream is not None and self.stream.holds(self.parameters[name])

    def _put(self, name: str, value: Tensor) -> None:
        """Streamed weights keep their place in the block's memory; others are replaced: the original may be a mapped
        file, which nothing may write to."""
        parameter = self.parameters[name]
        if self._is_streamed(name):
            parameter.data.copy_(value)
        else:
            parameter.data = value.to(parameter.device, parameter.dtype)


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of a file; (0, 0) for one that isn't there, which read_lora then refuses."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _scale_of(weight: str) -> str:
    return weight.removesuffix("weight") + "scale"


def _weight_of(name: str) -> str:
    """The weight that a scale belongs to; any other name itself."""
    return name.removesuffix("scale") + "weight" if name.endswith(".scale") else name


def _difference(reader: TensorReader, change: Change, parameter: Tensor) -> Tensor:
    """What one LoRA at strength 1 adds to one weight, float32 on the weight's device."""
    device = parameter.device
    result = torch.zeros(parameter.shape, dtype=torch.float32, device=device)
    if change.down:
        down = reader(change.down).to(device, torch.float32).flatten(1)  # [rank, in]
        up = reader(change.up).to(device, torch.float32).flatten(1)  # [out, rank]
        scale = float(reader(change.alpha)) / len(down) if change.alpha else 1.0
        result += (up @ down).mul_(scale).view_as(result)
    if change.diff:
        result += reader(change.diff).to(device, torch.float32).view_as(result)
    return result
