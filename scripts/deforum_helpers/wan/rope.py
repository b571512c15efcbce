"""Three-axis rotary embedding: tables once per size, applied in float32.

Shape legend: B batch, L tokens, H heads, D head width.
Source: Wan 2.1.  D splits into D - 4 * (D // 6) for time, then 2 * (D // 6) each for height and width; every
axis has its own frequency list with theta 10000, and pairs are interleaved (2k, 2k + 1).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0


def rotary_tables(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for a grid of (frames, rows, columns) tokens.

    Returns two [L, 1, D] float32, each angle twice in a row, so that applying them is two multiply-adds.
    The tables are computed in float64, as officially, and kept for the last few grids.
    """
    return _rotary_tables(tuple(grid), head_dim, str(device))


@lru_cache(maxsize=8)
def _rotary_tables(grid: tuple[int, int, int], head_dim: int, device: str) -> tuple[Tensor, Tensor]:
    frames, rows, columns = grid
    side = 2 * (head_dim // 6)
    angles = [
        _axis_angles(frames, head_dim - 2 * side)[:, None, None].expand(frames, rows, columns, -1),
        _axis_angles(rows, side)[None, :, None].expand(frames, rows, columns, -1),
        _axis_angles(columns, side)[None, None, :].expand(frames, rows, columns, -1),
    ]
    angle = torch.cat(angles, dim=-1).flatten(0, 2).repeat_interleave(2, dim=-1)[:, None]  # [L, 1, D]
    return angle.cos().float().to(device), angle.sin().float().to(device)


def _axis_angles(length: int, width: int) -> Tensor:
    frequencies = THETA ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies)  # [length, width / 2]


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each interleaved pair of x [B, L, H, D] by its token's angles.  Returns x's shape and dtype."""
    cos, sin = tables
    pairs = x.float().unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return torch.addcmul(x.float() * cos, turned, sin).to(x.dtype)
