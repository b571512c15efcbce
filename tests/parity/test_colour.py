"""Colours that are held to a shot's first clip: the fit on looks that are known, and the pipeline on the demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.protocol import ClipRequest, StreamPart
from deforum_helpers.wan.clip_files import load_latents, save_latents
from deforum_helpers.wan.colour import (
    LEVEL,
    NO_ANCHOR,
    Shift,
    fit_shift,
    keeps_anchor,
    look_of,
    shift_latents,
    shifted,
)
from deforum_helpers.wan.loading import load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


def scene(seed: int = 0) -> torch.Tensor:
    """A smooth look [3, 12, 20]."""
    coarse = torch.rand(1, 3, 3, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (12, 20), mode="bilinear")[0] - 0.5


def mapped(look: torch.Tensor, shift: Shift) -> torch.Tensor:
    return look + torch.einsum("ab,bhw->ahw", shift.matrix, look) + shift.offset[:, None, None]


def off(look: torch.Tensor, anchor: torch.Tensor) -> float:
    return float((look - anchor).abs().mean()) / LEVEL


def test_a_drift_of_tint_and_contrast_is_taken_back() -> None:
    anchor = scene()
    drifted = 1.08 * anchor + torch.tensor([4.0, -1.0, 2.0]).view(3, 1, 1) * LEVEL
    assert off(drifted, anchor) > 2
    assert off(mapped(drifted, fit_shift(drifted, anchor)), anchor) < 0.1


def test_what_has_moved_is_no_drift() -> None:
    """A fifth of the picture shows something else: the ground is corrected as if it weren't there."""
    anchor = scene()
    drifted = anchor + 3 * LEVEL
    anchor, there = anchor.clone(), drifted.clone()
    anchor[:, 3:9, 1:5], there[:, 3:9, 12:17] = torch.tensor([0.9, -0.9, -0.9]).view(3, 1, 1), 0.9
    shift = fit_shift(there, anchor)
    assert torch.allclose(mapped(drifted, shift), drifted - 3 * LEVEL, atol=0.5 * LEVEL)
    mean = (there - anchor).mean(dim=(1, 2))
    assert (mean / LEVEL - 3).abs().max() > 3, "what matching the means would have done"


def test_where_nothing_is_the_same_place_any_more_little_is_done() -> None:
    for seed in range(1, 6):
        anchor, other = scene(), scene(seed)
        other = other - other.mean(dim=(1, 2), keepdim=True) + anchor.mean(dim=(1, 2), keepdim=True) + 2 * LEVEL
        assert off(mapped(other, fit_shift(other, anchor)), other) < 6


def test_the_map_sets_in_evenly_and_leaves_what_is_held() -> None:
    frames = torch.zeros(3, 11, 8, 8)
    shift = Shift(torch.zeros(3, 3), torch.full((3,), 0.1), 0.1)
    added = shifted(frames, [shift], held=3)[0, :, 0, 0]
    assert added.tolist() == pytest.approx([0, 0, 0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1])
    two = shifted(torch.zeros(3, 8, 8, 8), [Shift.none(), shift], held=0)[0, :, 0, 0]
    assert two.tolist() == pytest.approx([0, 0, 0, 0, 0.05, 0.1, 0.1, 0.1])


def test_a_new_prompt_that_asks_for_other_colours_ends_the_anchor() -> None:
    anchor = scene()
    frames = torch.nn.functional.interpolate(anchor[None], scale_factor=8)[0][:, None].expand(-1, 8, -1, -1)
    assert keeps_anchor(frames + 2 * LEVEL, anchor)
    assert not keeps_anchor(0.6 * frames - 30 * LEVEL, anchor)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    import os

    os.environ["DEFORUM_WAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return load_parts(str(DEMO), choose_machine("cpu"), lambda *_: None)


@pytest.fixture
def chain(parts, tmp_path):
    """(pipeline, the request of a shot's second clip, its frames without colours kept): the first clip is rendered, and
    its file names an anchor that the second one lacks some red of."""
    pipeline = WanFlowMatchingPipeline(parts)
    first = ClipRequest(
        id="0", model=str(DEMO), prompt="a red ball over the sea", negative_prompt="", width=64, height=48,
        latent_frames=3, new_latents=3, prefix_latents=0, num_inference_steps=2, solver="euler", shift=3.0,
        guidance=(4.0,) * 3, seed=5, strength=1.0, latents_file=str(tmp_path / "0.safetensors"),
        frames_file=str(tmp_path / "0.npy"), colour="keep",
    )  # fmt: skip
    rendered(pipeline, first)
    second = replace(
        first, id="1", latent_frames=5, new_latents=3, prefix_latents=2, guidance=(4.0,) * 5, seed=6,
        stream=(StreamPart(first.latents_file, 0, 3),), latents_file=str(tmp_path / "1.safetensors"),
        frames_file=str(tmp_path / "1.npy"), colour_from=first.latents_file,
    )  # fmt: skip
    free = rendered(pipeline, replace(second, colour="", latents_file=str(tmp_path / "free.safetensors")))
    name_anchor(first, free, 1)
    return pipeline, second, free


def name_anchor(first: ClipRequest, frames: np.ndarray, strength: float) -> None:
    """Write into a clip's file an anchor that is redder and brighter than these frames."""
    look = look_of(torch.from_numpy(frames).permute(3, 0, 1, 2) / 127.5 - 1)
    anchor = look + strength * torch.tensor([12.0, 4.0, 4.0]).view(3, 1, 1) * LEVEL
    latents = load_latents(Path(first.latents_file))
    save_latents(Path(first.latents_file), latents, latents[:, :, :0], first.fingerprint(), anchor)


def rendered(pipeline: WanFlowMatchingPipeline, request: ClipRequest) -> np.ndarray:
    pipeline.render(request, lambda *_: None, lambda _: None)
    return np.load(request.frames_file).astype(np.float32)


def test_a_clip_comes_back_to_the_anchor_and_no_seam_is_made(chain) -> None:
    pipeline, second, free = chain
    moved = (rendered(pipeline, second) - free).mean(axis=(1, 2))  # [frames, 3]
    assert abs(moved[0]).max() < 3, "it sets in from the join on"
    assert moved[-1, 0] > 4 and moved[-1, 0] > moved[-1, 1] > 1, "redder above all"
    assert abs(np.diff(moved, axis=0)).max() < 3, "and by little from frame to frame"
    anchors = [load_latents(Path(file), "anchor") for file in (second.latents_file, second.colour_from)]
    assert torch.equal(*anchors)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (40, 56), (8, 24)])
def test_the_change_of_latents_has_their_size_and_leaves_what_is_held(parts, height, width) -> None:
    frames = torch.nn.functional.interpolate(scene()[None], (height, width))[0][:, None].expand(-1, 8, -1, -1).half()
    shift = Shift(torch.zeros(3, 3), torch.full((3,), 4 * LEVEL), 4 * LEVEL)
    change = shift_latents(parts.vae, frames, [shift], held=4, goes_on=True)
    assert change.shape == (1, 16, 2, height // 8, width // 8)
    assert not change[:, :, 0].any() and change[:, :, 1].abs().amax(dim=(0, 1)).min() > 0.01
    whole = shift_latents(parts.vae, frames[:, :5], [shift], held=1, goes_on=False)
    assert whole.shape == change.shape and not whole[:, :, 0].any()


def test_broken_off_between_sampling_and_colours_it_ends_the_same(chain, parts) -> None:
    pipeline, second, free = chain
    wanted = rendered(pipeline, second)
    assert np.array_equal(rendered(pipeline, replace(second, colour="")), free)  # so it is on disk by then
    steps = []
    fresh = WanFlowMatchingPipeline(parts)
    fresh.render(second, lambda *_: steps.append(1), lambda _: None)
    assert not steps
    assert np.array_equal(np.load(second.frames_file), wanted)


def test_a_clip_with_a_new_prompt_is_left_alone_where_it_ends_in_other_colours(chain) -> None:
    pipeline, second, free = chain
    follow, kept = replace(second, colour="follow"), rendered(pipeline, second)
    Path(second.latents_file).unlink()
    assert np.array_equal(rendered(pipeline, follow), kept), "that little is drift"
    assert load_latents(Path(second.latents_file), "anchor").numel(), "and the anchor stays"
    name_anchor(replace(second, latents_file=second.colour_from), free, 3)
    Path(second.latents_file).unlink()
    assert np.array_equal(rendered(pipeline, follow), free)
    assert load_latents(Path(second.latents_file), "anchor").numel() == NO_ANCHOR.numel()


def test_colours_decide_only_where_they_can_act(chain) -> None:
    _, second, _ = chain
    first = replace(second, stream=(), colour_from="")
    assert first.fingerprint() == replace(first, colour="").fingerprint()
    assert len({replace(second, colour=colour).fingerprint() for colour in ("", "keep", "follow")}) == 3
    joint = replace(first, latent_frames=9, new_latents=9, window_latents=5, window_overlap=2)
    assert joint.fingerprint() != replace(joint, colour="").fingerprint()
    ring = replace(joint, ring_latents=3)
    assert ring.fingerprint() == replace(ring, colour="").fingerprint()
