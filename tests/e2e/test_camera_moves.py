"""The camera by the real worker with the demo checkpoint: measured in the finished frames."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.ffmpeg import count_frames
from deforum_helpers.video.frames import read_png

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

from camera import motion_between
from stopping import stopped_and_resumed

SETTINGS = dict(
    prompts={"0": "a red car stands still in the snowy mountains on a sunny day"}, width=128, height=80, fps=16,
    max_frames=25, seed=5, model="demo", batch_name="batch",
)  # fmt: skip


def rendered(worker, folder: Path, **changes) -> np.ndarray:
    result = render_wan(RenderSettings(**{**SETTINGS, **changes}), folder, worker=worker)
    files = JobFiles(result.folder, result.timestring)
    frames = np.stack([read_png(path) for path in files.pictures()])
    assert result.frames == count_frames(result.video) == len(frames)
    assert not [*files.work.glob("*.npy"), *files.work.glob("*.part")]
    return frames


@pytest.mark.parametrize(
    ("changes", "name", "asked", "tolerance"),
    [
        ({}, "zoom", 1.0, 0.003), ({}, "right", 0.0, 0.1), ({"zoom": "0: (1.02)"}, "zoom", 1.02, 0.008),
        ({"translation_x": "0: (2)"}, "right", 2.0, 0.4), ({"angle": "0: (1)"}, "turn", 1.0, 0.25),
        ({"animation_mode": "3D", "rotation_3d_y": "0: (-1)"}, "right", 1.0, 0.4),
    ],
)  # fmt: skip
def test_a_schedule_really_moves_the_picture(worker, tmp_path, changes, name, asked, tolerance):
    frames = rendered(worker, tmp_path, **changes)
    steps = [motion_between(first, second)[name] for first, second in pairwise(frames)]
    assert np.median(steps) == pytest.approx(asked, abs=tolerance)


def test_zoom_is_per_output_frame_whatever_the_rate(worker, tmp_path):
    frames = rendered(worker, tmp_path, fps=32, max_frames=33, zoom="0: (1.01)")
    steps = [motion_between(first, second)["zoom"] for first, second in pairwise(frames)]
    assert np.median(steps) == pytest.approx(1.01, abs=0.004)


def test_less_camera_strength_draws_the_frames_over(worker, tmp_path):
    kept, over = (
        rendered(worker, tmp_path / value, max_frames=9, zoom="1.02", num_inference_steps="6", camera_strength=value)
        for value in ("1", "0.5")
    )
    assert len(kept) == len(over) == 9
    assert not np.array_equal(kept, over)
    again = rendered(worker, tmp_path / "again", max_frames=9, zoom="1.02", num_inference_steps="6",
                     camera_strength="0.5")  # fmt: skip
    assert np.array_equal(over, again)


@pytest.mark.parametrize("strength", ["1", "0.5"])
def test_a_stopped_job_goes_on_as_if_it_never_stopped(worker, tmp_path, strength):
    changes = {"zoom": "1.02", "camera_strength": strength, "num_inference_steps": "4", "width": 64, "height": 48}
    undisturbed = rendered(worker, tmp_path / "whole", **changes)
    stopped, frames = stopped_and_resumed(RenderSettings(**{**SETTINGS, **changes}), tmp_path, worker)
    assert 0 < stopped.frames < len(undisturbed)
    assert np.array_equal(frames, undisturbed)
