"""The autoencoder's full-size layers tile by tile, so that a large picture needs the memory of a small one.

Only the layers between the latents' size and the pixels' go by tiles: the middle ones, with their attention over the
whole picture, are small and stay whole.  What those outer layers make of a pixel depends on a bounded surrounding, so
a tile is given more on each side (HALO), and only its core is kept: no seam to blend, the same numbers as the whole
within rounding.  Each tile goes on from its own StreamState, which waits in host memory meanwhile.

Shape legend: h, w rows and columns of the latents; x is [B, C, F, rows, columns].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .vae_layers import StreamState

# In latents.  The outer layers reach 12.2 (decoder) and 8.5 (encoder) far: with 13 all is equal bit for bit.  With 8
# the pixels of the demo's decoder differ by 1e-5 at most, and the time is three quarters.
HALO = 8
CORE = 32  # of a tile, when the memory plan asks for tiles

Layers = Callable[[Tensor, StreamState], Tensor]


@dataclass(frozen=True)
class Span:
    """[start, end) is what a tile is given, [core_start, core_end) what is kept of it."""

    start: int
    end: int
    core_start: int
    core_end: int


def spans(size: int, core: int, halo: int = HALO) -> list[Span]:
    """Cut [0, size) into cores of about equal length, at most `core`, each with a halo on either side."""
    count = -(-size // core)
    edges = [round(size * k / count) for k in range(count + 1)]
    return [Span(max(0, a - halo), min(size, b + halo), a, b) for a, b in pairwise(edges)]


def tile_grid(rows: int, columns: int, core: int) -> list[tuple[Span, Span]]:
    return [(down, across) for down in spans(rows, core) for across in spans(columns, core)]


def decode_tiles(layers: Layers, x: Tensor, state: StreamState, core: int, factor: int) -> Tensor:
    """Latent-sized x [B, C, F, h, w] through layers that enlarge rows and columns by `factor`, core by core."""
    out: Tensor | None = None
    for down, across in tile_grid(x.shape[3], x.shape[4], core):
        part = layers(_cut(x, down, across, 1), tile := _enter(state, down, across, x.device))
        _leave(state, down, across, tile)
        if out is None:
            out = part.new_empty(*part.shape[:3], x.shape[3] * factor, x.shape[4] * factor)
        _place(out, part, down, across, factor)
    assert out is not None
    return out


def encode_tiles(layers: Layers, x: Tensor, state: StreamState, core: int, factor: int) -> Tensor:
    """Pixel-sized x [B, C, F, h * factor, w * factor] through layers that shrink to the latents' size."""
    rows, columns = x.shape[3] // factor, x.shape[4] // factor
    out: Tensor | None = None
    for down, across in tile_grid(rows, columns, core):
        part = layers(_cut(x, down, across, factor), tile := _enter(state, down, across, x.device))
        _leave(state, down, across, tile)
        if out is None:
            out = part.new_empty(*part.shape[:3], rows, columns)
        _place(out, part, down, across, 1)
    assert out is not None
    return out


def _cut(x: Tensor, down: Span, across: Span, factor: int) -> Tensor:
    return x[:, :, :, down.start * factor : down.end * factor, across.start * factor : across.end * factor]


def _place(out: Tensor, part: Tensor, down: Span, across: Span, factor: int) -> None:
    """Put the core of a tile's result where it belongs."""
    top, left = (down.core_start - down.start) * factor, (across.core_start - across.start) * factor
    height = (down.core_end - down.core_start) * factor
    width = (across.core_end - across.core_start) * factor
    rows = slice(down.core_start * factor, down.core_end * factor)
    columns = slice(across.core_start * factor, across.core_end * factor)
    out[:, :, :, rows, columns] = part[:, :, :, top : top + height, left : left + width]


def _enter(state: StreamState, down: Span, across: Span, device: torch.device) -> StreamState:
    """A tile's own memory of the frames before, on the device."""
    tile = state.tiles.pop((down.core_start, across.core_start), None) or StreamState()
    tile.first = state.first
    tile.past = {layer: past.to(device) for layer, past in tile.past.items()}
    return tile


def _leave(state: StreamState, down: Span, across: Span, tile: StreamState) -> None:
    tile.past = {layer: past.cpu() for layer, past in tile.past.items()}
    state.tiles[down.core_start, across.core_start] = tile
