"""The bundled checkpoint, through the project's own classes, does what its prompts say (seconds on a CPU)."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
import torch
from common import MODEL
from evaluate import PREFIX, Demo


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(MODEL)


def redness(frames: np.ndarray) -> np.ndarray:
    """How much redder than green and blue each pixel is, 0 where it isn't."""
    frames = frames.astype(float)
    return np.clip(frames[..., 0] - np.maximum(frames[..., 1], frames[..., 2]) - 60, 0, None)


def centre(frame: np.ndarray) -> tuple[float, float]:
    weight = redness(frame)
    assert weight.sum() > 2000, "no red object in sight"
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return float((weight * columns).sum() / weight.sum()), float((weight * rows).sum() / weight.sum())


def test_direction_and_colour(demo: Demo):
    prompts = [
        "a red ball drifts to the right over the sea during the day",
        "a red ball drifts to the left over the sea during the day",
        "a red ball rises over green hills during the day",
        "a blue ball drifts to the right over the sea during the day",
    ]
    clips = demo.frames(demo.latents(prompts, seed=1)).numpy()
    assert clips.shape == (4, 17, 80, 128, 3)
    assert centre(clips[0][-1])[0] - centre(clips[0][0])[0] > 8
    assert centre(clips[1][-1])[0] - centre(clips[1][0])[0] < -8
    assert centre(clips[2][-1])[1] - centre(clips[2][0])[1] < -5
    assert redness(clips[3]).sum() < 0.1 * redness(clips[0]).sum()


def test_night_is_dark_and_the_same_request_gives_the_same_frames(demo: Demo):
    prompts = ["a yellow car drives to the left through the desert " + hour for hour in ("at noon", "at midnight")]
    latents = demo.latents(prompts, seed=3)
    assert torch.equal(latents, demo.latents(prompts, seed=3))
    day, night = demo.frames(latents).float()
    assert night[:, :20].mean() < 0.5 * day[:, :20].mean()


def test_a_chain_goes_on_from_its_latents(demo: Demo):
    prompt = "a red ball drifts to the right over the sea during the day"
    first = demo.latents([prompt], seed=5)
    second = demo.latents([prompt], seed=6, before=first[:, :, -PREFIX:])
    assert torch.equal(second[:, :, :PREFIX], first[:, :, -PREFIX:])
    video = demo.frames(torch.cat([first, second[:, :, PREFIX:]], dim=2))[0].numpy()
    assert len(video) == 29
    steps = np.abs(np.diff(video.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert steps[16] < 3 * np.median(steps) + 2  # the join shows no jump
    assert centre(video[-1])[0] > centre(video[16])[0]
