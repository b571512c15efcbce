"""Strength on the demo: the lower it is, the less of the clip before is kept, whatever the clip starts from.

What is kept is read off the first new frame: how far it is from the last frame of the clip before, under a prompt that
asks for something else altogether.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.protocol import ClipRequest, StreamPart
from deforum_helpers.video.frames import write_png
from deforum_helpers.wan.loading import load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)
SEEDS = (6, 7)


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """(pipeline, its first clip's request, its frames).

    One thread: clips as small as these gain nothing from more, and lose much beside other programs.
    """
    folder, threads = tmp_path_factory.mktemp("strength"), torch.get_num_threads()
    torch.set_num_threads(1)
    request = ClipRequest(
        id="0", model=str(DEMO), prompt="a red ball rolls to the right over green hills during the day",
        negative_prompt="", width=96, height=64, latent_frames=4, new_latents=4, prefix_latents=0,
        num_inference_steps=8, solver="euler", shift=3.0, guidance=(4.0,) * 4, seed=5, strength=1.0,
        latents_file=str(folder / "0.safetensors"), frames_file=str(folder / "0.npy"),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFORUM_WAN_CACHE", str(folder / "cache"))
        pipeline = WanFlowMatchingPipeline(load_parts(str(DEMO), choose_machine("cpu"), lambda *_: None))
        yield pipeline, request, rendered(pipeline, request)
    torch.set_num_threads(threads)


def rendered(pipeline: WanFlowMatchingPipeline, request: ClipRequest) -> np.ndarray:
    pipeline.render(request, lambda *_: None, lambda _: None)
    return np.load(request.frames_file).astype(np.float32)


def start_of(kind: str, first: ClipRequest, frames: np.ndarray, folder: Path) -> ClipRequest:
    """The request of a second clip that starts from the first one's end in one of the ways there are."""
    request = replace(
        first, prompt="a blue car in the desert at night", latents_file=str(folder / "1.safetensors"),
        frames_file=str(folder / "1.npy"),
    )  # fmt: skip
    if kind == "latents":
        return replace(request, stream=(StreamPart(first.latents_file, 0, 4),), prefix_latents=2, new_latents=2)
    if kind == "frames":
        np.save(folder / "context.npy", frames[-5:].astype(np.uint8))
        return replace(request, context_file=str(folder / "context.npy"), drop_frames=5)
    write_png(folder / "start.png", frames[-1].astype(np.uint8))
    return replace(request, init_image=str(folder / "start.png"), drop_frames=1)


def unrelated(request: ClipRequest) -> ClipRequest:
    """What strength 0 is: a hard cut, which is given nothing of the clip before."""
    return replace(
        request, stream=(), prefix_latents=0, new_latents=4, context_file="", init_image="", drop_frames=0
    )


@pytest.mark.parametrize("kind", ["latents", "frames", "image"])
def test_less_is_kept_the_lower_it_is(former, kind, tmp_path) -> None:
    pipeline, first, frames = former
    request, far = start_of(kind, first, frames, tmp_path), []
    for strength in STRENGTHS:
        asked = replace(request, strength=strength) if strength else unrelated(request)
        clips = [rendered(pipeline, replace(asked, seed=seed)) for seed in SEEDS]
        far.append(np.mean([abs(clip[0] - frames[-1]).mean() for clip in clips]))
    print(kind, [round(float(value), 1) for value in far])
    assert all(less <= more * 1.02 for less, more in pairwise(far)), far
    assert far[-1] > 2 * far[0], "and a cut is something else altogether"
