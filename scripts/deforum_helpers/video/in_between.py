"""A frame between two frames, by the motion between them.

The motion of both directions (optical_flow.py) is carried to the wanted time and the pixels are read from both
frames along it.  What only one of the two shows (something uncovers, something hides) comes from that one.  Where
following the motion doesn't make the frames agree, the plain mix is drawn: it looks soft, a torn picture looks broken.

Legend: frames are uint8 [H, W, 3]; planes are float32 [C, h, w] on the flow's grid; a place is (x, y), each [h, w].
"""

from __future__ import annotations

import numpy as np

from .optical_flow import both_flows, box_mean, halve, resize_flow, resize_plane, sample

_LEAST_TRUST = 0.05  # a vector nobody confirms still counts where there is no other
_GREY_FALLOFF = 12.0  # grey values of mismatch at which a vector's weight falls to 1/e
_OUTSIDE = 1e-3  # weight of what is read beyond the frame's edge
_MIX_FROM, _MIX_SLOPE = 0.4, 2.0  # local doubt: begins where 40 % of the difference is left, full at 90 %
_LOST_FROM, _LOST_TO = 0.5, 0.7  # wide doubt: the share of unconfirmed pixels around at which motion counts as lost
_HALF_PIXEL = np.array([1, -5, 20], np.float32) / 32  # the half of a six-tap low-pass, as video codecs use

Place = tuple[np.ndarray, np.ndarray]


class InBetween:
    """The motion between two frames, measured once; at(t) draws the frame at time t."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        """first, second: uint8 [H, W, 3], at least 16x16."""
        self._frames = _planes(first), _planes(second)
        self._fine = _with_half_pixels(self._frames[0]), _with_half_pixels(self._frames[1])
        self._flows = both_flows(first, second)
        h, w = self._flows.shape[-2:]
        while first.shape[0] > h:
            first, second = halve(first), halve(second)
        self._small = _planes(first), _planes(second)
        self._y, self._x = np.mgrid[:h, :w].astype(np.float32)
        self._still = np.abs(self._small[0] - self._small[1]).mean(axis=0)
        self._trust = np.stack([self._confirmed(0), self._confirmed(1)])
        mismatch = np.stack([self._mismatch(0), self._mismatch(1)])
        self._weight = (self._trust + _LEAST_TRUST) * np.exp(-mismatch / _GREY_FALLOFF) + np.float32(1e-4)

    def at(self, t: float) -> np.ndarray:
        """The frame at time t in (0, 1), uint8 [H, W, 3]."""
        flow = self._flow_at(t)
        places = self._along(flow, -t), self._along(flow, 1 - t)
        trust = [sample(self._trust[k : k + 1], *places[k])[0] for k in (0, 1)]
        share = self._share_of_second(t, places, trust)
        doubt = self._doubt(places, np.maximum(*trust))
        return self._draw(t, flow, share, doubt)

    def _along(self, flow: np.ndarray, t: float) -> Place:
        return self._x + t * flow[0], self._y + t * flow[1]

    def _confirmed(self, way: int) -> np.ndarray:
        """1 where going there and back ends at the start, towards 0 where it doesn't: hidden there, or mismatched."""
        flow = self._flows[way]
        back = sample(self._flows[1 - way], *self._along(flow, 1))
        missed = np.hypot(*(flow + back)) / (0.5 + 0.1 * np.hypot(*flow))
        return np.exp(-missed * missed)

    def _mismatch(self, way: int) -> np.ndarray:
        """By how many grey values each pixel differs from the one it moves to."""
        there = sample(self._small[1 - way], *self._along(self._flows[way], 1))
        return np.abs(self._small[way] - there).mean(axis=0)

    def _flow_at(self, t: float) -> np.ndarray:
        """The motion first -> second as the pixels of time t see it: both flows carried there, gaps filled."""
        total = np.zeros((3, *self._x.shape))
        for way, elapsed, nearness, sign in ((0, t, 1 - t, 1), (1, 1 - t, t, -1)):
            flow, weight = self._flows[way], nearness * self._weight[way]
            total += _scatter(np.stack([weight, *(sign * flow * weight)]), *self._along(flow, elapsed))
        total = total.astype(np.float32)
        return _fill(total[1:], total[0])

    def _share_of_second(self, t: float, places: tuple[Place, Place], trust: list[np.ndarray]) -> np.ndarray:
        """How much of each pixel comes from the second frame, 0..1."""
        h, w = self._x.shape
        parts = []
        for (x, y), confirmed, nearness in zip(places, trust, (1 - t, t), strict=True):
            outside = (x < -1) | (x > w) | (y < -1) | (y > h)
            parts.append(nearness * (confirmed + _LEAST_TRUST) * np.where(outside, np.float32(_OUTSIDE), 1))
        return parts[1] / (parts[0] + parts[1])

    def _doubt(self, places: tuple[Place, Place], confirmed: np.ndarray) -> np.ndarray:
        """1 where the plain mix is the better picture, 0 where the motion is believed."""
        h = self._x.shape[0]
        first, second = (sample(small, *place) for small, place in zip(self._small, places, strict=True))
        left_over = np.abs(first - second).mean(axis=0) * (1.5 - confirmed)
        near, wide = max(2, h // 60), max(2, h // 10)
        left_over, still = _smooth(left_over, near), _smooth(self._still, near)
        local = (left_over / (still + 1) - _MIX_FROM) * _MIX_SLOPE
        lost = (_smooth(1 - confirmed, wide) - _LOST_FROM) / (_LOST_TO - _LOST_FROM)
        # Below two grey values of change there is nothing to see, and nothing to judge by either.
        return np.clip(np.maximum(local, lost), 0, 1) * np.clip(still / 2, 0, 1)

    def _draw(self, t: float, flow: np.ndarray, share: np.ndarray, doubt: np.ndarray) -> np.ndarray:
        """The picture at full size from maps on the flow's grid."""
        first, second = self._frames
        height, width = first.shape[-2:]
        flow = resize_flow(flow, height, width)
        share, doubt = resize_plane(share, height, width), resize_plane(doubt, height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        from_first = sample(self._fine[0], 2 * (x - t * flow[0]), 2 * (y - t * flow[1]))
        from_second = sample(self._fine[1], 2 * (x + (1 - t) * flow[0]), 2 * (y + (1 - t) * flow[1]))
        moved = from_first + (from_second - from_first) * share
        mixed = first + (second - first) * np.float32(t)
        return np.clip((moved + (mixed - moved) * doubt).transpose(1, 2, 0) + 0.5, 0, 255).astype(np.uint8)


def _scatter(planes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add each pixel of planes [C, h, w] to the four pixels around its place (x, y), bilinear.  float64 sums."""
    h, w = x.shape
    left, top = np.floor(x), np.floor(y)
    across, down = x - left, y - top
    left, top = left.astype(np.int32), top.astype(np.int32)
    total = np.zeros((len(planes), h * w))
    for row, part_y in ((top, 1 - down), (top + 1, down)):
        for column, part_x in ((left, 1 - across), (left + 1, across)):
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            target, part = (row * w + column)[inside], (part_x * part_y)[inside]
            for plane, summed in zip(planes, total, strict=True):
                summed += np.bincount(target, part * plane[inside], h * w)
    return total.reshape(planes.shape)


def _fill(summed: np.ndarray, total: np.ndarray) -> np.ndarray:
    """summed / total, with gaps (total near 0) filled from ever coarser averages around them."""
    h, w = total.shape
    mean = summed / np.maximum(total, np.float32(1e-6))
    if min(h, w) <= 2:
        return mean
    coarse = (h + 1) // 2, (w + 1) // 2
    around = _fill(np.stack([resize_plane(plane, *coarse) for plane in summed]), resize_plane(total, *coarse))
    known = total / (total + np.float32(1e-3))
    return mean * known + np.stack([resize_plane(plane, h, w) for plane in around]) * (1 - known)


def _with_half_pixels(planes: np.ndarray) -> np.ndarray:
    """[C, h, w] -> [C, 2h-1, 2w-1]: the pixels themselves, and between them what six neighbours say.

    Bilinear reading of this keeps what bilinear reading of the frame blurs, and that would be seen: frames in
    between would be softer than the native ones, a flicker.
    """
    for _ in ("rows", "columns"):
        count = planes.shape[1]
        padded = np.pad(planes, ((0, 0), (2, 3), (0, 0)), mode="edge")
        fine = np.empty((planes.shape[0], 2 * count - 1, planes.shape[2]), np.float32)
        fine[:, ::2] = planes
        between = fine[:, 1::2]
        between[...] = _HALF_PIXEL[0] * (padded[:, : count - 1] + padded[:, 5 : count + 4])
        between += _HALF_PIXEL[1] * (padded[:, 1:count] + padded[:, 4 : count + 3])
        between += _HALF_PIXEL[2] * (padded[:, 2 : count + 1] + padded[:, 3 : count + 2])
        planes = np.ascontiguousarray(fine.transpose(0, 2, 1))
    return planes


def _smooth(plane: np.ndarray, reach: int) -> np.ndarray:
    return box_mean(box_mean(plane, reach), reach)


def _planes(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame.transpose(2, 0, 1), dtype=np.float32)
