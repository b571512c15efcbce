"""A video drawn over, by the real worker with the demo checkpoint."""

import numpy as np
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.source import open_source, read_frames
from deforum_helpers.video_io import VideoOptions, encode_video
from stopping import pictures, stopped_and_resumed

SETTINGS = dict(
    prompts={"0": "a red ball rolls over green hills"}, width=128, height=80, fps=16, max_frames=30, seed=5,
    model="demo", batch_name="batch",
)  # fmt: skip


def rolling(path, fps: float, seconds: float = 2.0) -> None:
    """A video of a red ball that rolls over a meadow, 40 pixels a second."""
    x, y = np.meshgrid(np.arange(128), np.arange(80))
    ground = np.where((y < 46)[..., None], (110, 180, 240), (90, 180, 80))

    def picture(k: int) -> np.ndarray:
        ball = np.clip(13 - np.hypot(x - place(k / fps), y - 42), 0, 1)[..., None]
        return np.rint(ground * (1 - ball) + np.array((215, 40, 40)) * ball).astype(np.uint8)

    encode_video((picture(k) for k in range(round(fps * seconds))), path, VideoOptions(fps, crf=4))


def place(seconds: float) -> float:
    return 20 + 40 * seconds


def places(frames: np.ndarray) -> np.ndarray:
    """Where the red is in each frame."""
    red = np.clip(frames[..., 0].astype(float) - frames[..., 1] - 60, 0, None).sum(axis=1)
    return (red * np.arange(frames.shape[2])).sum(axis=1) / red.sum(axis=1)


def rendered(worker, out, **changes) -> np.ndarray:
    return pictures(render_wan(RenderSettings(**{**SETTINGS, **changes}), out, worker=worker))


def test_each_frame_shows_its_own_moment_of_the_video(worker, tmp_path):
    rolling(tmp_path / "ball.mp4", fps=30)
    frames = rendered(worker, tmp_path, init_video=str(tmp_path / "ball.mp4"), video_strength="0.9")
    assert len(frames) == 30
    seen = places(frames)
    wanted = np.array([place(int(k * 30 / 16) / 30) for k in range(30)])
    assert np.abs(seen - wanted).max() < 4 and np.median(np.abs(seen - wanted)) < 1.5, (seen - wanted).round(1)
    off = [np.abs(seen[3:-3] - wanted[3 + lag : 27 + lag]).mean() for lag in (-2, -1, 0, 1, 2)]
    assert np.argmin(off) == 2, f"neither early nor late: {off}"


def test_less_strength_draws_over_more(worker, tmp_path):
    rolling(tmp_path / "ball.mp4", fps=16)
    path = str(tmp_path / "ball.mp4")
    shown = read_frames(open_source(path, "init_video"), range(13), 128, 80).astype(int)
    frames = [
        rendered(worker, tmp_path / strength, max_frames=13, init_video=path, video_strength=strength)
        for strength in ("1", "0.6", "0.2", "0")
    ]
    off = [np.abs(each - shown).mean() for each in frames]
    assert off == sorted(off) and off[0] < 12, off
    assert np.array_equal(frames[-1], rendered(worker, tmp_path / "none", max_frames=13))


def test_a_stopped_job_goes_on_as_if_it_never_stopped(worker, tmp_path):
    rolling(tmp_path / "ball.mp4", fps=24)
    changes = {"init_video": str(tmp_path / "ball.mp4"), "num_inference_steps": "4", "width": 64, "height": 48}
    undisturbed = rendered(worker, tmp_path / "whole", **changes)
    stopped, frames = stopped_and_resumed(RenderSettings(**{**SETTINGS, **changes}), tmp_path, worker)
    assert 0 < stopped.frames < 30
    assert np.array_equal(frames, undisturbed)
