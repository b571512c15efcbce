"""Pictures at given frames, by the real worker with the demo checkpoint."""

import json

import numpy as np
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.frames import read_png, write_png


def test_the_video_shows_each_picture_at_its_frame(worker, tmp_path):
    colours = {"0": (200, 60, 40), "11": (40, 90, 190)}
    for key, colour in colours.items():
        write_png(tmp_path / f"{key}.png", np.full((80, 128, 3), colour, np.uint8))
    settings = RenderSettings(
        prompts={"0": "a red ball over the sea"}, width=64, height=48, fps=16, max_frames=20, seed=5, model="demo",
        num_inference_steps="2", init_images=json.dumps({key: str(tmp_path / f"{key}.png") for key in colours}),
    )  # fmt: skip
    result = render_wan(settings, tmp_path / "out", worker=worker)
    frames = [read_png(path) for path in JobFiles(result.folder, result.timestring).pictures()]
    assert len(frames) == result.frames == 20
    for key, colour in colours.items():
        assert np.abs(frames[int(key)].mean(axis=(0, 1)) - colour).max() < 25
    assert np.abs(frames[10].mean(axis=(0, 1)) - colours["11"]).max() > 25
