"""Three-axis rotary embedding: tables once per size, applied in float32.

Shape legend: B batch, L tokens, H heads, D head width.
Source: Wan 2.1.  D splits into D - 4 * (D // 6) for time, then 2 * (D // 6) each for height and width; every
axis has its own frequency list with theta 10000, and pairs are interleaved (2k, 2k + 1).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .norms import RMSNorm, rms_scale

THETA = 10000.0


def rotary_tables(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> Tensor:
    """Angles for a grid of (frames, rows, columns) tokens, as cosines and sines.

    Returns [L, 1, D / 2, 2] float32.  Computed in float64, as officially, and kept for the last few grids.
    """
    return _rotary_tables(tuple(grid), head_dim, str(device))


@lru_cache(maxsize=8)
def _rotary_tables(grid: tuple[int, int, int], head_dim: int, device: str) -> Tensor:
    frames, rows, columns = grid
    side = 2 * (head_dim // 6)
    angles = [
        _axis_angles(frames, head_dim - 2 * side)[:, None, None].expand(frames, rows, columns, -1),
        _axis_angles(rows, side)[None, :, None].expand(frames, rows, columns, -1),
        _axis_angles(columns, side)[None, None, :].expand(frames, rows, columns, -1),
    ]
    angle = torch.cat(angles, dim=-1).flatten(0, 2)[:, None]  # [L, 1, D / 2]
    with torch.inference_mode(False):  # kept tables may be wanted by a training later
        return torch.stack((angle.cos(), angle.sin()), dim=-1).float().to(device)


def _axis_angles(length: int, width: int) -> Tensor:
    with torch.inference_mode(False):
        frequencies = THETA ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        return torch.outer(torch.arange(length, dtype=torch.float64), frequencies)  # [length, width / 2]


def rotate(x: Tensor, tables: Tensor) -> Tensor:
    """Turn each interleaved pair of x [B, L, H, D] by its token's angles.  Returns x's shape and dtype.

    The turn is in float32.  On a CPU it is one complex product, a tenth of the time of its real parts; elsewhere
    the real parts, which compilers can fuse with what stands around them.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(tables))
    else:
        cos, sin = tables.unbind(-1)
        even, odd = pairs.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def normed_and_rotated(x: Tensor, norm: RMSNorm, tables: Tensor, heads: int) -> Tensor:
    """The norm of a projection x [B, L, d], which nobody else holds, and its turn -> [B, L, H, D].

    On a CPU the norm's length goes into the angles, which are few, and its gain into x itself: a pass over memory and
    a tensor less.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return rotate(norm(x).unflatten(2, (heads, -1)), tables)
    scaled = tables * rms_scale(x, norm.eps)[..., None, None]  # [B, L, 1, D / 2, 2]
    return rotate(x.mul_(norm.weight).unflatten(2, (heads, -1)), scaled)
