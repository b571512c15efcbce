"""A job that is stopped on the way and goes on: what it shows in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from deforum_helpers.job_files import JobFiles
from deforum_helpers.progress import Progress
from deforum_helpers.render_wan import RenderResult, render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.frames import read_png


def pictures(result: RenderResult) -> np.ndarray:
    """The finished frames, [F, H, W, 3]."""
    return np.stack([read_png(path) for path in JobFiles(result.folder, result.timestring).pictures()])


def in_the_second_clip(progress: Progress) -> bool:
    return progress.clip == 2 and bool(progress.step)


def stopped_and_resumed(
    settings: RenderSettings, folder: Path, worker, when: Callable[[Progress], bool] = in_the_second_clip
) -> tuple[RenderResult, np.ndarray]:
    """What the job had when it was stopped, and its frames once it went on to the end."""
    cancel = threading.Event()
    stopped = render_wan(
        settings, folder, worker=worker, cancel=cancel, on_progress=lambda at: cancel.set() if when(at) else None
    )
    assert stopped.cancelled
    resumed = render_wan(settings, folder, worker=worker, resume=True)
    return stopped, pictures(resumed)
