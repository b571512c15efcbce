"""Dense motion between two frames, in plain numpy: for retiming, where a GPU or another library can't be counted on.

Two steps, both deterministic.  A full search over whole-pixel displacements on a small copy of the frames finds
motion of any direction, also of objects that an image pyramid would lose; then TV-L1 refinement (Zach, Pock,
Bischof 2007: total variation with an L1 data term, so edges of the motion stay sharp) brings it to sub-pixel
precision, level by level.

Legend: planes are float32 [.., h, w]; a flow is [2 (x, y), h, w]; "both" arrays carry the direction in front,
[2 (first->second, second->first), ...].
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SEARCH_SIDE = 80  # the search runs where the shorter side is at most this
SEARCH_REACH = 10  # pixels each way there: 10 at 128x80, 80 at 832x480
WORKING_PIXELS = 240_000  # refinement stops at the level of at most this size: finer gains little and costs most
_WINDOW = 2  # half the matching window: 5x5
_PENALTY = 4  # cost of one pixel of displacement, in summed grey values of a window: still areas stay still
_WARPS, _ITERATIONS = 2, 10
_DATA_WEIGHT, _COUPLING, _DUAL_STEP = 0.15, 0.3, 0.25
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def both_flows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Motion first -> second and second -> first.

    first, second: uint8 [H, W, 3], at least 16x16.
    Returns float32 [2 directions, 2 (x, y), h, w] in pixels of that grid, h x w = working_size(H, W).
    """
    pyramid = [(first, second)]
    while min(pyramid[-1][0].shape[:2]) > SEARCH_SIDE:
        pyramid.append(tuple(halve(frame) for frame in pyramid[-1]))
    flows = median3(_search(*pyramid[-1]))
    working = working_size(*first.shape[:2])
    for small_first, small_second in reversed(pyramid):
        height, width = small_first.shape[:2]
        if height > working[0]:
            break
        luma = np.stack([small_first @ _LUMA, small_second @ _LUMA])
        flows = _refine(luma, resize_flow(flows, height, width))
    return flows


def working_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the grid that both_flows works on: halved until it has at most WORKING_PIXELS."""
    while height * width > WORKING_PIXELS:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def halve(frame: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> [ceil(h/2), ceil(w/2), 3], each pixel the mean of its four."""
    return np.asarray(Image.fromarray(frame).reduce(2))


def resize_plane(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """One float32 plane [h, w] -> [height, width], bilinear (area-weighted when it shrinks)."""
    if plane.shape == (height, width):
        return plane
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def resize_flow(flows: np.ndarray, height: int, width: int) -> np.ndarray:
    """[.., 2, h, w] -> [.., 2, height, width], lengths scaled with the grid."""
    h, w = flows.shape[-2:]
    if (h, w) == (height, width):
        return flows
    planes = [resize_plane(np.ascontiguousarray(p), height, width) for p in flows.reshape(-1, h, w)]
    resized = np.stack(planes).reshape(*flows.shape[:-2], height, width)
    return resized * np.array([width / w, height / h], np.float32)[:, None, None]


def sample(planes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read planes [C, h, w] at the positions x, y [h', w'], bilinear, the edge continued outward."""
    h, w = planes.shape[-2:]
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    left = np.minimum(x.astype(np.int32), w - 2)
    top = np.minimum(y.astype(np.int32), h - 2)
    across, down = x - left.astype(np.float32), y - top.astype(np.float32)
    corner = top * w + left
    out = np.empty((len(planes), *x.shape), np.float32)
    for plane, result in zip(planes, out, strict=True):
        flat = plane.reshape(-1)
        upper, lower = flat.take(corner), flat.take(corner + w)
        upper += (flat.take(corner + 1) - upper) * across
        lower += (flat.take(corner + (w + 1)) - lower) * across
        result[...] = upper + (lower - upper) * down
    return out


def box_mean(planes: np.ndarray, reach: int) -> np.ndarray:
    """Mean over (2*reach+1)^2 windows of [.., h, w], the edge continued outward."""
    return _box_sum(planes, reach) / np.float32((2 * reach + 1) ** 2)


def _box_sum(planes: np.ndarray, reach: int) -> np.ndarray:
    h, w = planes.shape[-2:]
    padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(reach, reach)] * 2, mode="edge")
    rows = padded[..., :h, :].copy()
    for k in range(1, 2 * reach + 1):
        rows += padded[..., k : k + h, :]
    out = rows[..., :w].copy()
    for k in range(1, 2 * reach + 1):
        out += rows[..., k : k + w]
    return out


def median3(planes: np.ndarray) -> np.ndarray:
    """3x3 median of [.., h, w]: single wrong vectors go, edges stay.  A sorting network of 19 exchanges."""
    h, w = planes.shape[-2:]
    padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(1, 1)] * 2, mode="edge")
    v = [padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3)]
    exchanges = "12 45 78 01 34 67 12 45 78 03 58 47 36 14 25 47 42 64 42"
    for i, j in ((int(a), int(b)) for a, b in exchanges.split()):
        v[i], v[j] = np.minimum(v[i], v[j]), np.maximum(v[i], v[j])
    return v[4]


def _search(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Best whole-pixel displacement of each pixel, each way.  uint8 [h, w, 3] -> both flows [2, 2, h, w].

    One pass serves both directions: what pixel p of the first costs at displacement d is what pixel p+d of the
    second costs at -d.  Cost and displacement share one integer, so that a running minimum keeps the winner.
    """
    h, w = first.shape[:2]
    side = 2 * SEARCH_REACH + 1
    planes = np.ascontiguousarray(first.transpose(2, 0, 1))[:, None]
    padded = np.pad(second.transpose(2, 0, 1), ((0, 0), (SEARCH_REACH,) * 2, (SEARCH_REACH,) * 2), mode="edge")
    shifts = np.arange(-SEARCH_REACH, SEARCH_REACH + 1)
    forward = np.full((h, w), np.iinfo(np.uint32).max, np.uint32)
    backward = forward.copy()
    for row, dy in enumerate(shifts.tolist()):
        windows = np.lib.stride_tricks.sliding_window_view(padded[:, row : row + h], w, axis=2)
        windows = windows.transpose(0, 2, 1, 3)  # [3, side, h, w]: the second frame moved by each dx
        apart = (np.maximum(planes, windows) - np.minimum(planes, windows)).sum(axis=0, dtype=np.uint16)
        length = np.rint(_PENALTY * np.hypot(shifts, dy)).astype(np.uint32)
        keys = _box_sum(apart, _WINDOW) + length[:, None, None]
        keys = keys * np.uint32(side * side) + np.arange(row * side, (row + 1) * side, dtype=np.uint32)[:, None, None]
        np.minimum(forward, keys.min(axis=0), out=forward)
        for key, dx in zip(keys, shifts.tolist(), strict=True):
            ys, yt = _overlap(dy, h)
            xs, xt = _overlap(dx, w)
            np.minimum(backward[yt, xt], key[ys, xs], out=backward[yt, xt])
    flows = [np.stack([k % side, k // side]).astype(np.float32) - SEARCH_REACH
             for k in (forward % np.uint32(side * side), backward % np.uint32(side * side))]
    return np.stack([flows[0], -flows[1]])


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """(from, to): the part of an axis that stays inside when moved by `shift`."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))


def _refine(luma: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """TV-L1 on one level.  luma: [2, h, w], the two frames; flows: both, [2, 2, h, w]."""
    h, w = luma.shape[-2:]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    targets = [np.stack([plane, *np.gradient(plane)[::-1]]) for plane in luma[::-1]]  # value, d/dx, d/dy
    flows = median3(flows)
    for _ in range(_WARPS):
        warped = np.stack([sample(t, x + f[0], y + f[1]) for t, f in zip(targets, flows, strict=True)])
        slope = warped[:, 1:]
        constant = warped[:, 0] - luma - (slope * flows).sum(axis=1)
        flows = median3(_solve(flows, slope, constant))
    return flows


def _solve(flows: np.ndarray, slope: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Minimise |constant + slope . flow| + total variation by alternating the two.  flows, slope: [2, 2, h, w]."""
    steepness = (slope * slope).sum(axis=1) + np.float32(1e-3)
    limit = np.float32(_DATA_WEIGHT * _COUPLING)
    rate = np.float32(_DUAL_STEP / _COUPLING)
    dual_x, dual_y = np.zeros_like(flows), np.zeros_like(flows)
    for _ in range(_ITERATIONS):
        residual = constant + slope[:, 0] * flows[:, 0] + slope[:, 1] * flows[:, 1]
        data = flows + np.clip(-residual / steepness, -limit, limit)[:, None] * slope
        divergence = dual_x + dual_y
        divergence[..., 1:] -= dual_x[..., :-1]
        divergence[..., 1:, :] -= dual_y[..., :-1, :]
        flows = data + np.float32(_COUPLING) * divergence
        across, down = np.zeros_like(flows), np.zeros_like(flows)
        across[..., :-1] = flows[..., 1:] - flows[..., :-1]
        down[..., :-1, :] = flows[..., 1:, :] - flows[..., :-1, :]
        norm = 1 + rate * np.sqrt(across * across + down * down)
        dual_x = (dual_x + rate * across) / norm
        dual_y = (dual_y + rate * down) / norm
    return flows
