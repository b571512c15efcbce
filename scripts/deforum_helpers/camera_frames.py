"""A clip's frames seen through the camera, and the frames that the next clip goes on from.

The model renders a clip as if the camera stood still where it stood at the clip's start; then every frame is moved by
the camera's path since.  What the next clip is given are the last frames, all of them moved to where the camera stands
by then: again a camera at rest, before which things go on moving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from .settings import RenderSettings
from .timeline import Clip, Plan
from .video.warp import warp


def given_frames(plan: Plan, clip: Clip, before: Sequence[np.ndarray], settings: RenderSettings) -> np.ndarray:
    """The frames that a clip's window begins with, as its model is to see them: uint8 [dropped_frames, H, W, 3].

    before: the native frames of the shot so far.
    """
    first, last = clip.native_start - clip.dropped_frames, clip.native_start - 1
    frames = before[first : last + 1]
    if plan.camera is None:
        return np.stack(frames)
    end = [plan.position(clip, last)]
    paths = (plan.camera.path(plan.position(clip, native), end)[0] for native in range(first, last + 1))
    return np.stack([_moved(frame, path, settings) for frame, path in zip(frames, paths, strict=True)])


def moved_frames(
    plan: Plan, clip: Clip, frames: Sequence[np.ndarray], settings: RenderSettings
) -> Iterator[np.ndarray]:
    """The new native frames of a clip, uint8 [H, W, 3] each, as the camera shows them."""
    assert plan.camera is not None
    positions = [plan.position(clip, clip.native_start + index) for index in range(len(frames))]
    for frame, path in zip(frames, plan.camera.path(_stands_at(plan, clip), positions), strict=True):
        yield _moved(frame, path, settings)


class Filmed:
    """Frames of what doesn't know of the camera, as it shows them from where it stands at a clip's start.

    It stands at rest at each shot's start.  The path since is the product of its clips', in their order, whichever
    clip is asked for first: a resumed job sees the same to the last bit.
    """

    def __init__(self, plan: Plan, settings: RenderSettings) -> None:
        self._plan, self._settings = plan, settings
        self._index, self._motion = -1, np.eye(3)  # of the last clip asked for

    def frames(self, clip: Clip, frames: np.ndarray) -> np.ndarray:
        """frames: uint8 [n, H, W, 3], at the same times as the result's.  Later clips after earlier ones."""
        camera, clips = self._plan.camera, self._plan.clips
        if camera is None:
            return frames
        for former, other in pairwise(clips[max(self._index, 0) : clip.index + 1]):
            path = camera.path(_stands_at(self._plan, former), [_stands_at(self._plan, other)])
            self._motion = path[0] @ self._motion if former.shot == other.shot else np.eye(3)
        self._index = clip.index
        return np.stack([_moved(frame, self._motion, self._settings) for frame in frames])


def guide_frames(given: np.ndarray | None, moved: np.ndarray, window: int) -> np.ndarray:
    """What a clip is drawn over from: its whole window, uint8 [window, H, W, 3].

    given: the frames that it begins with.  What the window holds beyond the clip repeats the last frame.
    """
    frames = moved if given is None else np.concatenate([given, moved])
    return np.concatenate([frames, np.repeat(frames[-1:], window - len(frames), axis=0)])


def _stands_at(plan: Plan, clip: Clip) -> Fraction:
    """The output position of the picture that a clip is rendered from, before the camera moves on."""
    return plan.position(clip, clip.native_start - (1 if clip.dropped_frames else 0))


def _moved(frame: np.ndarray, motion: np.ndarray, settings: RenderSettings) -> np.ndarray:
    return frame if np.array_equal(motion, np.eye(3)) else warp(frame, motion, settings.border)
