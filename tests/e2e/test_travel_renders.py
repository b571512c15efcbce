"""Prompts that travel, through the real worker: rendered, stopped and resumed to equal frames."""

import numpy as np
import pytest
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
from deforum_helpers.video.frames import read_png_metadata
from stopping import pictures, stopped_and_resumed

WAYS = {
    "blend": {"prompt_travel": "blend", "prompt_travel_frames": "6"},
    "relay": {"prompt_travel": "relay", "prompt_travel_frames": "0"},
    "both": {"prompt_travel_frames": "0", "prompt_travel_schedule": '0: ("relay"), 18: ("blend")'},
    "joint": {"prompt_travel": "blend", "continuity": "joint", "joint_windows": 2, "window_frames": 9},
    "loop": {"prompt_travel": "relay", "loop": True, "window_frames": 17},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_travel_goes_on_to_the_same_frames(way, worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(**WAYS[way]))
    whole = pictures(render_wan(settings, tmp_path / "whole", worker=worker))
    assert len(whole) == settings.max_frames

    stopped, frames = stopped_and_resumed(
        settings, tmp_path / "part", worker,
        lambda progress: progress.phase == "sampling" and (progress.clip == 2 or progress.clips == 1),
    )  # fmt: skip
    assert stopped.frames < settings.max_frames
    assert np.array_equal(frames, whole)


def test_each_frame_says_what_it_heard(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(**WAYS["blend"]))
    result = render_wan(settings, tmp_path, worker=worker)
    paths = JobFiles(result.folder, result.timestring).pictures()
    said = [read_png_metadata(path)["parameters"].splitlines()[0] for path in paths]
    red, blue, yellow = settings.prompts.values()
    assert said[:9] == [red] * 9 and said[9:15] == [f"{red} → {blue}"] * 6 and said[15:18] == [blue] * 3
    assert said[-1] == f"{blue} → {yellow}"


def test_the_way_decides_the_frames(worker, settings_file, tmp_path):
    seen = [
        pictures(render_wan(load_settings(settings_file(prompt_travel=way))[0], tmp_path / way, worker=worker))
        for way in ("hard", "blend", "relay")
    ]
    assert all(not np.array_equal(a, b) for a, b in zip(seen, seen[1:] + seen[:1], strict=True))
