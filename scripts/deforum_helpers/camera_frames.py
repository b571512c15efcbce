"""A clip's frames seen through the camera, and the frames that the next clip goes on from.

The model renders a clip as if the camera stood still where it stood at the clip's start; then every frame is moved by
the camera's path since.  What the next clip is given are the last frames, all of them moved to where the camera stands
by then: again a camera at rest, before which things go on moving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    base = clip.native_start - (1 if clip.dropped_frames else 0)
    positions = [plan.position(clip, clip.native_start + index) for index in range(len(frames))]
    for frame, path in zip(frames, plan.camera.path(plan.position(clip, base), positions), strict=True):
        yield _moved(frame, path, settings)


def guide_frames(given: np.ndarray | None, moved: np.ndarray, window: int) -> np.ndarray:
    """What a clip is drawn over from: its whole window, uint8 [window, H, W, 3].

    given: the frames that it begins with.  What the window holds beyond the clip repeats the last frame.
    """
    frames = moved if given is None else np.concatenate([given, moved])
    return np.concatenate([frames, np.repeat(frames[-1:], window - len(frames), axis=0)])


def _moved(frame: np.ndarray, motion: np.ndarray, settings: RenderSettings) -> np.ndarray:
    return frame if np.array_equal(motion, np.eye(3)) else warp(frame, motion, settings.border)
