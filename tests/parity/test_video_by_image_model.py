"""An image-to-video model over an init video: its first frame is given, and sampling starts from the video's frames."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video_io import VideoOptions, encode_video
from tiny_models import TinyRenderer, tiny_model, tiny_parts


def test_what_each_window_is_told_of_the_video(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    name = "wan2.1-i2v-14B-480P"
    greys = (np.full((32, 32, 3), 5 * k, np.uint8) for k in range(40))
    encode_video(greys, tmp_path / "v.mp4", VideoOptions(16, crf=4))
    worker, told = TinyRenderer(tiny_parts(name)), []
    given, guide = worker.pipeline.given, worker.pipeline.guide
    monkeypatch.setattr(worker.pipeline, "given", lambda request: told.append([given(request)]) or told[-1][0])
    monkeypatch.setattr(worker.pipeline, "guide", lambda request: told[-1].append(guide(request)) or told[-1][1])
    settings = RenderSettings(
        prompts={"0": "a"}, width=32, height=32, max_frames=20, window_frames=13, num_inference_steps="2", seed=1,
        init_video=str(tmp_path / "v.mp4"), extract_from_frame=8, batch_name="batch", skip_video_creation=True,
    )  # fmt: skip
    render_wan(settings, tmp_path, worker=worker, model=tiny_model(name))
    vae = worker.pipeline.vae
    (first, drawn_over), *others = told
    clean = vae.encode(torch.full((1, 3, 1, 32, 32), 5 * 8 / 127.5 - 1))  # the video's frame 8
    mask, picture = first.channels[:, :4], first.channels[:, 4:]
    assert (mask[:, :, 0] == 1).all() and (mask[:, :, 1:] == 0).all()
    assert (picture[:, :, 0] - clean[:, :, 0]).abs().max() < 0.1
    assert (drawn_over[:, :, 0] - clean[:, :, 0]).abs().max() < 0.1
    assert others and all(guide.shape == drawn_over.shape for _, guide in others)
