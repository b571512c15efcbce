"""Deforum's camera: schedules of zoom, turns and shifts -> how the picture moves from frame to frame.

A value at frame t is the motion from frame t-1 to t.  Motions are 3x3 matrices that take a pixel's place in the
earlier picture to its place in the later one; x goes right, y down, whole numbers are pixel centres.

2D  The picture is shifted by translation_x and _y pixels (right, down), then turned by angle (counter-clockwise)
    and magnified by zoom around the transform centre.
3D  The picture is a wall, 200 units before a camera with the given field of view from top to bottom, facing it
    anew in each frame.  The camera moves right, up and forward by translation_x, _y and _z units and turns by
    rotation_3d_x (up), _y (right) and _z (clockwise) degrees.  There is no depth in the picture: what stands near
    doesn't move more than what stands far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..schedules import number_schedule
from ..settings import FIELDS, RenderSettings

WALL_DISTANCE = 200.0  # units of translation_*: Deforum's scale, on which 200 units are a depth of 1
SHORTEST_PAUSE = 8  # output frames: a camera that stands still for less is taken to move on
MOST_MAGNIFIED = 1.6  # by one clip's guide, each way: beyond, too little of its first picture is left to go by
LEAST_IN_VIEW = 0.5  # of a clip's last picture that its first one shows

_STILL = {
    "2D": {"translation_x": 0, "translation_y": 0, "angle": 0, "zoom": 1},
    "3D": dict.fromkeys(
        ("translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y", "rotation_3d_z"), 0
    ),
}
_AROUND = {"2D": {"transform_center_x": 0.5, "transform_center_y": 0.5}, "3D": {"fov": 70}}


@dataclass(frozen=True)
class Camera:
    """The camera of a video.  values: setting -> one value per output frame."""

    mode: str
    width: int
    height: int
    values: dict[str, tuple[float, ...]]

    @cached_property
    def moving(self) -> np.ndarray:
        """bool [max_frames]: whether the picture moves into a frame.  Pauses too short for a clip count as motion."""
        still = _STILL[self.mode]
        moving = np.any([np.array(self.values[name]) != still[name] for name in still], axis=0)
        edges = np.flatnonzero(np.diff(moving)) + 1
        for start, end in pairwise(edges):
            if not moving[start] and end - start < SHORTEST_PAUSE:
                moving[start:end] = True
        return moving

    def moves(self, start: int, end: int) -> bool:
        """Whether it moves into any of the output frames [start, end)."""
        return bool(self.moving[start:end].any())

    def step(self, frame: int, part: float = 1.0) -> np.ndarray:
        """The first `part` of the motion from output frame `frame` - 1 to `frame`, 0 <= part <= 1.

        Past the video's end it goes on as in the last frame.
        """
        at = min(frame, len(self.moving) - 1)
        now = {name: values[at] for name, values in self.values.items()}
        for name, still in _STILL[self.mode].items():
            now[name] = now[name] ** part if still else now[name] * part
        return (_flat if self.mode == "2D" else _wall)(now, self.width, self.height)

    def path(self, start: Fraction, positions: Sequence[Fraction]) -> list[np.ndarray]:
        """The motions from output position `start` to each of the positions, which ascend from there.

        A position between two frames lies within the motion from the one to the other.
        """
        first = math.floor(start)
        whole, at = np.eye(3), first
        back = np.linalg.inv(self.step(first + 1, float(start - first)))
        motions = []
        for position in positions:
            while at < math.floor(position):
                at += 1
                whole = self.step(at) @ whole
            rest = float(position - at)
            motions.append((self.step(at + 1, rest) if rest else np.eye(3)) @ whole @ back)
        return motions

    def leaves(self, motion: np.ndarray) -> bool:
        """Whether a motion leaves too little of the picture before it to make the picture behind it from."""
        seen, size = self.in_view(motion)
        return seen < LEAST_IN_VIEW or not 1 / MOST_MAGNIFIED <= size <= MOST_MAGNIFIED

    def in_view(self, motion: np.ndarray) -> tuple[float, float]:
        """(the share of the picture behind a motion that the one before it fills, how much larger it is there)."""
        width, height = self.width - 1.0, self.height - 1.0
        places = np.stack(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)), axis=-1).reshape(-1, 2)
        earlier = moved(np.linalg.inv(motion), places)
        seen = np.all((earlier >= -0.5) & (earlier <= (width + 0.5, height + 0.5)), axis=1).mean()
        around = moved(motion, np.array([[0, 0], [1, 0], [0, 1]]) + np.array([width, height]) / 2)
        return float(seen), math.sqrt(abs(np.linalg.det(around[1:] - around[0])))

    def bounds(self, bounds: Sequence[int], least: int) -> list[int]:
        """Further output frames where a clip must start, so that each clip's first picture shows enough of its last.

        bounds: where clips start anyway, and max_frames.  Where it begins or ends to move, a clip starts as well.
        least: output frames that a clip has in any case.
        """
        known = {*bounds, *(int(frame) for frame in np.flatnonzero(np.diff(self.moving)) + 1)}
        found, base, motion = set(known), 0, np.eye(3)
        for frame in range(len(self.moving)):
            if frame in known:
                base, motion = frame, np.eye(3)
            motion = self.step(frame) @ motion
            if frame - base >= least and self.moving[frame] and self.leaves(motion):
                found.add(frame)
                base, motion = frame, self.step(frame)
        return sorted(found)


def camera_of(settings: RenderSettings, seed: int, notes: list[str]) -> Camera | None:
    """The camera that settings ask for, None for one that stands still.  Raises ScheduleError."""
    mode = settings.animation_mode
    values = {}
    for name, default in (_STILL[mode] | _AROUND[mode]).items():
        about = FIELDS[name]
        series = number_schedule(
            getattr(settings, name), name, settings.max_frames, seed, default=default,
            least=about.minimum, most=about.maximum,
        )  # fmt: skip
        values[name] = series.values
        notes += series.notes
    unused = [
        name for other, names in _STILL.items() if other != mode
        for name in names if name not in values and getattr(settings, name) != FIELDS[name].default
    ]  # fmt: skip
    if unused:
        notes.append(f"animation_mode: {mode} leaves out {', '.join(unused)}")
    if all((values[name] == still).all() for name, still in _STILL[mode].items()):
        return None
    listed = {name: tuple(series.tolist()) for name, series in values.items()}
    return Camera(mode, settings.width, settings.height, listed)


def moved(motion: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where places [n, 2] (x, y) come to lie."""
    ahead = np.pad(places, ((0, 0), (0, 1)), constant_values=1) @ motion.T
    return ahead[:, :2] / ahead[:, 2:]


def _flat(now: dict[str, float], width: int, height: int) -> np.ndarray:
    x, y = now["transform_center_x"] * width - 0.5, now["transform_center_y"] * height - 0.5
    turn = math.radians(now["angle"])
    along, across = now["zoom"] * math.cos(turn), now["zoom"] * math.sin(turn)
    turned = np.array([[along, across, 0], [-across, along, 0], [0, 0, 1]])
    return _shift(x, y) @ turned @ _shift(now["translation_x"] - x, now["translation_y"] - y)


def _wall(now: dict[str, float], width: int, height: int) -> np.ndarray:
    """A wall seen before and after the camera moved: K (R + t n / distance) K^-1, with the wall's normal n ahead."""
    focal = height / 2 / math.tan(math.radians(now["fov"]) / 2)
    turned = _turn(now["rotation_3d_x"], now["rotation_3d_y"], now["rotation_3d_z"])
    turned[:, 2] += np.array([-now["translation_x"], now["translation_y"], -now["translation_z"]]) / WALL_DISTANCE
    if turned[2, 2] <= 0.05:  # through the wall: as near as can be
        turned[2, 2] = 0.05
    lens = _shift((width - 1) / 2, (height - 1) / 2) @ np.diag([focal, focal, 1.0])
    motion = lens @ turned @ np.linalg.inv(lens)
    return motion / motion[2, 2]


def _turn(up: float, right: float, clockwise: float) -> np.ndarray:
    """What the camera's turn does to the world before it: x right, y down, z ahead."""
    turned = np.eye(3)
    for degrees, (a, b) in ((up, (1, 2)), (right, (2, 0)), (clockwise, (0, 1))):
        one = np.eye(3)
        angle = math.radians(degrees)
        one[a, a] = one[b, b] = math.cos(angle)
        one[a, b], one[b, a] = math.sin(angle), -math.sin(angle)
        turned = one @ turned
    return turned


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
