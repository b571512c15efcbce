"""A picture moved: every pixel of the new one read where it was in the old one, bicubic."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Border = Literal["replicate", "reflect", "wrap"]
BORDERS: tuple[Border, ...] = get_args(Border)
_ROWS_AT_ONCE = 128  # bounds the memory of a large picture


def warp(frame: np.ndarray, motion: np.ndarray, border: Border = "replicate") -> np.ndarray:
    """Move a picture.

    frame: uint8 [H, W, 3].  motion: [3, 3], takes a pixel's place (x, y, 1) to its new one, see planning/camera.py.
    border: what is beyond the old picture's edge: its last pixels, its mirror image, or its other side.
    Returns uint8 [H, W, 3].
    """
    height, width = frame.shape[:2]
    pixels = frame.reshape(-1, 3).astype(np.float32)
    back = np.linalg.inv(motion)
    out = np.empty_like(frame)
    for top in range(0, height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, height)
        y, x = np.mgrid[top:bottom, :width].astype(np.float64)
        below = back[2, 0] * x + back[2, 1] * y + back[2, 2]
        below = np.where(np.abs(below) < 1e-6, 1e-6, below)
        old_x = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / below
        old_y = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / below
        read = _bicubic(pixels, height, width, old_x, old_y, border)
        out[top:bottom] = np.clip(np.rint(read), 0, 255).astype(np.uint8)
    return out


def _bicubic(
    pixels: np.ndarray, height: int, width: int, x: np.ndarray, y: np.ndarray, border: Border
) -> np.ndarray:
    """Read pixels [H * W, 3] at places x, y [h, w] -> [h, w, 3]."""
    columns, across = _taps(x, width, border)
    rows, down = _taps(y, height, border)
    out = np.zeros((*x.shape, 3), np.float32)
    for row, vertical in zip(rows, down, strict=True):
        line = np.zeros_like(out)
        for column, horizontal in zip(columns, across, strict=True):
            line += pixels.take(row * width + column, axis=0) * horizontal[..., None]
        out += line * vertical[..., None]
    return out


def _taps(at: np.ndarray, size: int, border: Border) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The four pixels around each place along one axis, and their weights.  Keys 1981, a = -0.5 (Catmull-Rom)."""
    at = np.clip(at, -(2.0**30), 2.0**30)
    first = np.floor(at)
    t = (at - first).astype(np.float32)
    weights = [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    return [_folded(first.astype(np.int64) + k, size, border) for k in (-1, 0, 1, 2)], weights


def _folded(index: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Indices beyond an edge brought back into [0, size)."""
    if border == "wrap":
        return index % size
    if border == "reflect":
        index = index % (2 * size)
        return np.minimum(index, 2 * size - 1 - index)
    return np.clip(index, 0, size - 1)
