"""Blocks that live in host memory and come to the device one at a time, the next while the last one works.

Two device buffers of one block's size take turns.  A copy stream of its own fills one from pinned memory while
the compute stream reads the other; at 14B and 480p a block computes longer than it copies, so the copying hides.
On devices without streams the same code copies in turn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ALIGN = 256  # bytes: views of any dtype start where that dtype may start


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies in its block's flat buffer."""

    module: nn.Module
    name: str
    start: int
    nbytes: int
    dtype: torch.dtype
    shape: torch.Size


class BlockStream:
    """Runs a chain of equal blocks from host memory.

    blocks: on the CPU, called in order, once each per pass.  device: where they are to run.
    Their parameters are taken over; `stop` gives them back to the CPU.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device = device
        self._places = [_places(block) for block in blocks]
        self._held = {id(parameter) for block in blocks for parameter in block.parameters()}
        sizes = [max(place.start + place.nbytes for place in places) for places in self._places]
        self._host = [_flatten(places, size, device) for places, size in zip(self._places, sizes, strict=True)]
        self._buffers = [torch.empty(max(sizes), dtype=torch.uint8, device=device) for _ in range(2)]
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._copies is not None:  # the buffers' memory may still be read by what was launched before
            self._copies.wait_stream(torch.cuda.current_stream(device))
        self._filled: list[torch.cuda.Event | None] = [None] * len(blocks)
        self._used: list[torch.cuda.Event | None] = [None, None]  # per buffer: when its last block was done with it
        self._in: dict[int, int] = {}  # block -> the buffer it is in
        self._turn = 0
        self._hooks = [block.register_forward_pre_hook(self._before(i)) for i, block in enumerate(blocks)]
        self._hooks += [block.register_forward_hook(self._after(i)) for i, block in enumerate(blocks)]

    @property
    def device_bytes(self) -> int:
        return sum(buffer.numel() for buffer in self._buffers)

    def holds(self, parameter: nn.Parameter) -> bool:
        """Whether it is one of the streamed blocks' parameters."""
        return id(parameter) in self._held

    def rest(self) -> None:
        """Have every parameter be its host memory, so that weights can be changed in place; the next pass fetches them
        anew."""
        if self._copies is not None:
            torch.cuda.synchronize(self.device)
        self._in.clear()
        for places, host in zip(self._places, self._host, strict=True):
            _point(places, host)

    def stop(self) -> None:
        """Put every block's parameters back on the CPU, where they were."""
        for hook in self._hooks:
            hook.remove()
        self.rest()  # the next pass's first block may be on its way into a buffer
        self._buffers.clear()

    def _before(self, index: int):
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> None:
            if index not in self._in:  # the very first block, or the first after a pass that was broken off
                self._fetch(index)
            if (filled := self._filled[index]) is not None:
                torch.cuda.current_stream(self.device).wait_event(filled)
            self._turn = self._in[index]
            _point(self._places[index], self._buffers[self._turn])
            following = (index + 1) % len(self._places)
            if following not in self._in:
                self._fetch(following)

        return hook

    def _after(self, index: int):
        def hook(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
            if self._copies is not None:
                self._used[self._in[index]] = torch.cuda.current_stream(self.device).record_event()

        return hook

    def _fetch(self, index: int) -> None:
        """Begin to copy a block into the buffer that the running block is not in, once that buffer is free."""
        buffer = 1 - self._turn
        self._in = {block: where for block, where in self._in.items() if where != buffer} | {index: buffer}
        target = self._buffers[buffer][: self._host[index].numel()]
        with self._copying():
            if self._copies is not None and (used := self._used[buffer]) is not None:
                self._copies.wait_event(used)
            target.copy_(self._host[index], non_blocking=True)
            if self._copies is not None:
                self._filled[index] = self._copies.record_event()

    @contextlib.contextmanager
    def _copying(self) -> Iterator[None]:
        if self._copies is None:
            yield
            return
        with torch.cuda.stream(self._copies):
            yield


class TakingTurns:
    """Backbones of which only the one at work has its blocks on the device; the other's wait in host memory.

    Two experts change places once or twice a clip, so this costs one copy each, where streaming would cost one a step.
    """

    def __init__(self, models: Sequence[nn.Module], device: torch.device) -> None:
        """models: with `blocks`, loaded on the CPU; all else of them goes to the device."""
        self.models, self.device = models, device
        for model in models:
            _move_all_but(model, model.blocks, device)
            model.register_forward_pre_hook(lambda running, _: self.bring(running))

    def bring(self, model: nn.Module) -> None:
        """Have this one's blocks on the device, the others' not."""
        for other in self.models:
            if other is not model:
                _move(other.blocks, torch.device("cpu"))
        _move(model.blocks, self.device)


def _move(blocks: nn.Module, device: torch.device) -> None:
    for tensor in (*blocks.parameters(), *blocks.buffers()):
        if tensor.device != device:
            tensor.data = tensor.data.to(device)


def _move_all_but(model: nn.Module, kept: nn.Module | Sequence[nn.Module], device: torch.device) -> None:
    left = {id(parameter) for block in kept for parameter in block.parameters()}
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in left:
            tensor.data = tensor.data.to(device)


def stream_blocks(model: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> BlockStream:
    """Stream a model's blocks and move all the rest of it, loaded on the CPU, to the device."""
    stream = BlockStream(blocks, device)
    _move_all_but(model, blocks, device)
    return stream


def _places(block: nn.Module) -> list[_Place]:
    out, start = [], 0
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            nbytes = parameter.numel() * parameter.element_size()
            out.append(_Place(module, name, start, nbytes, parameter.dtype, parameter.shape))
            start += math.ceil(nbytes / _ALIGN) * _ALIGN
    return out


def _flatten(places: list[_Place], size: int, device: torch.device) -> Tensor:
    """One block's parameters in one run of bytes, pinned where the device can read that faster."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for place in places:
        parameter = getattr(place.module, place.name)
        _view(place, host).copy_(parameter.detach())
        parameter.data = _view(place, host)  # frees the original as we go: never two copies of a model
    return host


def _view(place: _Place, buffer: Tensor) -> Tensor:
    return buffer[place.start : place.start + place.nbytes].view(place.dtype).view(place.shape)


def _point(places: list[_Place], buffer: Tensor) -> None:
    for place in places:
        getattr(place.module, place.name).data = _view(place, buffer)
