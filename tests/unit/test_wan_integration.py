"""The generator for programs, with a fake in the worker's place."""

import threading

import numpy as np
import pytest
from deforum_helpers import wan_integration
from deforum_helpers.errors import InputError, ModelError, RenderCancelled
from deforum_helpers.video.frames import read_png
from deforum_helpers.wan_integration import WanVideoGenerator
from fake_worker import FakeRenderer
from PIL import Image


def generator(worker=None, **options):
    return WanVideoGenerator("demo", worker=worker or FakeRenderer(), **options)


def test_two_seconds_at_60_fps_are_120_frames_from_33_generated():
    worker = FakeRenderer()
    frames = generator(worker).generate_txt2video(
        prompt="a boat", duration=2.0, fps=60, resolution="32x16", steps=5, guidance_scale=7.5, seed=1
    )
    assert (frames.shape, frames.dtype) == ((120, 16, 32, 3), np.uint8)
    assert sum(request.new_latents for request in worker.requests) == (33 + 3) // 4
    assert {request.num_inference_steps for request in worker.requests} == {5}
    assert {request.guidance[0] for request in worker.requests} == {7.5}


COUNTS = [(0.01, 60, 1), (1.5, 24, 36), (1 / 3, 30, 10), (0.1, 23.976, 2)]


@pytest.mark.parametrize(("duration", "fps", "count"), COUNTS)
def test_the_count_is_duration_times_fps(duration, fps, count):
    assert len(generator().generate_txt2video("a boat", duration, fps, "32x16")) == count


def test_a_schedule_and_any_setting_reach_the_worker():
    worker = FakeRenderer()
    generator(worker, device="cpu").generate_txt2video(
        {"0": "a boat", "8": "a hill"}, 1.0, 16, "32 x 16", negative_prompt="fog", shift="2", solver="unipc"
    )
    assert [request.prompt for request in worker.requests] == ["a boat", "a hill"]
    assert {(r.negative_prompt, r.shift, r.solver, r.device) for r in worker.requests} == {("fog", 2.0, "unipc", "cpu")}


PICTURE = np.arange(16 * 32 * 3, dtype=np.uint8).reshape(16, 32, 3)


@pytest.mark.parametrize("picture", [
    PICTURE, PICTURE[..., 0], np.dstack((PICTURE, PICTURE[..., :1])), PICTURE / 255, Image.fromarray(PICTURE),
])  # fmt: skip
def test_a_picture_in_any_form_starts_the_first_clip(picture):
    seen = []

    class Looking(FakeRenderer):
        def run(self, request, on_event=None, cancel=None):
            seen.append(read_png(request.init_image) if request.init_image else None)
            return super().run(request, on_event, cancel)

    frames = generator(Looking()).generate_img2video(picture, "a boat", duration=2.0, fps=16, resolution="32x16")
    assert len(frames) == 32
    wanted = np.repeat(PICTURE[..., :1], 3, axis=2) if np.ndim(picture) == 2 else PICTURE
    assert np.array_equal(seen[0], wanted)
    assert all(later is None for later in seen[1:])


def test_a_picture_from_a_path(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    worker = FakeRenderer()
    generator(worker).generate_img2video(str(tmp_path / "a.png"), "a boat", 0.5, 16, "32x16")
    assert worker.requests[0].init_image == str(tmp_path / "a.png")


@pytest.mark.parametrize(("arguments", "field"), [
    ({"duration": 0}, "duration"), ({"duration": float("nan")}, "duration"), ({"duration": "long"}, "duration"),
    ({"fps": 0}, "fps"), ({"fps": float("inf")}, "fps"), ({"resolution": "large"}, "resolution"),
    ({"resolution": "100x80"}, "width"), ({"steps": 0}, "num_inference_steps"), ({"wobble": 1}, "wobble"),
    ({"prompt": ""}, "prompt"), ({"seed": -5}, "seed"), ({"solver": "magic"}, "solver"),
])  # fmt: skip
def test_an_argument_that_is_wrong_is_named(arguments, field):
    worker = FakeRenderer()
    with pytest.raises(InputError, match=field):
        generator(worker).generate_txt2video(**{"prompt": "a boat", "resolution": "32x16", **arguments})
    assert worker.requests == []


NO_PICTURES = [np.zeros((4, 4, 2), np.uint8), np.full((4, 4, 3), 9.0), np.zeros((0, 4, 3), np.uint8), "/nowhere.png"]


@pytest.mark.parametrize("picture", NO_PICTURES)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(InputError, match="init_image"):
        generator().generate_img2video(picture, "a boat", 0.5, 16, "32x16")


def test_a_model_that_is_not_here():
    with pytest.raises(ModelError, match="no such model"):
        WanVideoGenerator("nothing", worker=FakeRenderer()).generate_txt2video("a boat", 1, 16, "32x16")


def test_it_can_be_stopped_and_tells_its_progress():
    cancel, seen = threading.Event(), []
    cancel.set()
    with pytest.raises(RenderCancelled):
        generator().generate_txt2video("a boat", 1, 16, "32x16", cancel=cancel)
    generator(on_progress=seen.append).generate_txt2video("a boat", 1, 16, "32x16")
    assert seen[-1].phase == "done"


def test_only_the_shared_worker_is_closed_with_the_generator(monkeypatch):
    closed = []
    monkeypatch.setattr(wan_integration, "close_shared_worker", lambda: closed.append("shared"))
    monkeypatch.setattr(FakeRenderer, "close", lambda self: closed.append("mine"))
    with generator():
        pass
    assert closed == []
    with WanVideoGenerator("demo"):
        pass
    assert closed == ["shared"]
