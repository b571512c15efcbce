"""Whole renders by the real worker with the demo checkpoint."""

import threading
import time

import numpy as np
import pytest
from deforum_helpers.errors import ModelError, RenderCancelled
from deforum_helpers.job_files import JobFiles
from deforum_helpers.protocol import InspectRequest, Loading
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
from deforum_helpers.video.ffmpeg import count_frames
from deforum_helpers.video.frames import read_png
from deforum_helpers.wan_integration import WanVideoGenerator
from PIL import Image


def frames_of(result) -> np.ndarray:
    return np.stack([read_png(path) for path in JobFiles(result.folder, result.timestring).pictures()])


def test_a_schedule_becomes_an_exact_video_and_the_same_one_again(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file())
    first = render_wan(settings, tmp_path / "first", worker=worker)
    assert first.frames == count_frames(first.video) == len(frames_of(first)) == 24
    again = render_wan(load_settings(first.settings)[0], tmp_path / "again", worker=worker)
    assert np.array_equal(frames_of(first), frames_of(again))


def test_joins_repeat_no_frame_and_clips_differ(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(fps=16))
    frames = frames_of(render_wan(settings, tmp_path, worker=worker)).astype(int)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert (steps > 0).all()


def test_the_worker_and_its_model_stay_warm_between_jobs(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(max_frames=5))
    render_wan(settings, tmp_path, worker=worker)
    pid, phases = worker.pid, []
    render_wan(settings, tmp_path, worker=worker, on_progress=lambda progress: phases.append(progress.phase))
    assert worker.pid == pid
    assert "loading" not in phases


def test_a_stop_takes_effect_within_a_step_and_the_worker_lives_on(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(steps=200))
    cancel, steps = threading.Event(), []

    def stop_at_the_second_step(progress):
        if progress.phase == "sampling":
            steps.append(progress.step)
            if progress.step == 2:
                cancel.set()

    result = render_wan(settings, tmp_path, worker=worker, cancel=cancel, on_progress=stop_at_the_second_step)
    assert result.cancelled
    assert max(steps) <= 4
    pid = worker.pid
    assert render_wan(load_settings(settings_file(max_frames=3))[0], tmp_path, worker=worker).frames == 3
    assert worker.pid == pid


def test_previews_are_pictures_of_the_clip_in_work(worker, settings_file, tmp_path):
    settings, _ = load_settings(settings_file(max_frames=9, steps=1000))
    previews = []

    def look(progress):
        if progress.preview and not previews:
            with Image.open(progress.preview) as picture:
                previews.append(picture.size)

    cancel = threading.Event()
    render_wan(settings, tmp_path, worker=worker, on_progress=lambda p: (look(p), previews and cancel.set()),
               cancel=cancel)  # fmt: skip
    assert previews == [(64, 48)]


@pytest.mark.parametrize("changes", [{"continuity": "image"}, {"continuity": "cut"}, {"motion": "output"},
                                     {"continuity": "frames"},
                                     {"continuity": "joint"}, {"loop": True, "prompts": {"0": "a red ball"}},
                                     {"overlap_frames": 4, "fps": 16}, {"strength_schedule": "0: (1), 9: (0)"}])
def test_every_way_to_go_on_gives_exactly_the_frames(worker, settings_file, tmp_path, changes):
    settings, _ = load_settings(settings_file(**changes))
    result = render_wan(settings, tmp_path, worker=worker)
    assert result.frames == count_frames(result.video) == len(frames_of(result)) == 24


def test_a_model_is_inspected_by_loading_it(worker, tmp_path):
    from deforum_helpers.preflight import find_model
    from deforum_helpers.wan_integration import model_search_folders

    seen = []
    told = worker.run(InspectRequest("i", find_model("demo", model_search_folders()).reference), seen.append)
    assert told.variant == "demo"
    with pytest.raises(ModelError):
        worker.run(InspectRequest("j", str(tmp_path)), seen.append)
    assert all(isinstance(event, Loading) for event in seen if event is not told)


def test_two_seconds_at_60_fps_are_120_frames(worker):
    with WanVideoGenerator("demo", worker=worker) as wan_generator:
        frames = wan_generator.generate_txt2video(
            prompt="a red ball", duration=2.0, fps=60, resolution="64x48", steps=2, guidance_scale=4.0, seed=1
        )
    assert (frames.shape, frames.dtype) == ((120, 48, 64, 3), np.uint8)
    assert worker.alive


def test_the_generator_starts_from_a_picture(worker):
    picture = np.zeros((80, 128, 3), np.uint8)
    picture[:, :64] = (200, 40, 40)
    wan_generator = WanVideoGenerator("demo", worker=worker)
    frames = wan_generator.generate_img2video(
        init_image=picture, prompt="a red ball", duration=0.5, fps=16, resolution="128x80", steps=2, seed=1
    )
    assert frames.shape == (8, 80, 128, 3)
    difference = np.abs(frames[0].astype(int) - picture).mean()
    assert difference < 25
    assert difference < np.abs(frames[0].astype(int) - picture[:, ::-1]).mean() / 2


def test_the_generator_chains_what_is_longer_than_the_window_and_can_be_stopped(worker):
    wan_generator, cancel = WanVideoGenerator("demo", worker=worker), threading.Event()
    frames = wan_generator.generate_txt2video("a boat", 1.5, 16, "64x48", steps=2, seed=1)
    assert len(frames) == 24
    cancel.set()
    began = time.monotonic()
    with pytest.raises(RenderCancelled):
        wan_generator.generate_txt2video("a boat", 1.0, 16, "64x48", steps=500, seed=1, cancel=cancel)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_the_precisions_of_gpus(worker, settings_file, tmp_path, dtype):
    """From text and from a picture; what comes out is the video that float32 gives, but for rounding."""
    Image.new("RGB", (64, 48), (200, 60, 40)).save(tmp_path / "red.png")
    for name, init_image in (("text", ""), ("picture", str(tmp_path / "red.png"))):
        frames = {}
        for precision in ("float32", dtype):
            settings, _ = load_settings(settings_file(dtype=precision, init_image=init_image, steps=4))
            frames[precision] = frames_of(render_wan(settings, tmp_path / f"{name}-{precision}", worker=worker))
        error = np.abs(frames["float32"].astype(int) - frames[dtype]).mean()
        assert 0 < error < 8, "another precision, the same video; another seed gives 40 and more"
