"""The pipeline on the bundled demo: streams, pins, overlaps, pictures, and latents that are used again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.errors import InputError, RenderCancelled
from deforum_helpers.protocol import ClipRequest, StreamPart
from deforum_helpers.wan.clip_files import load_latents
from deforum_helpers.wan.loading import load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.sampling import blend_in
from deforum_helpers.wan.vae import StreamState
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    import os

    os.environ["DEFORUM_WAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return load_parts(str(DEMO), choose_machine("cpu"), lambda *_: None)


@pytest.fixture
def pipeline(parts):
    return WanFlowMatchingPipeline(parts)


@pytest.fixture
def first(tmp_path) -> ClipRequest:
    """The first clip of a shot: 3 latents, 9 frames, two steps."""
    return ClipRequest(
        id="0", model=str(DEMO), prompt="a red ball over the sea", negative_prompt="", width=64, height=48,
        latent_frames=3, new_latents=3, prefix_latents=0, num_inference_steps=2, solver="euler", shift=3.0,
        guidance=(4.0,) * 3, seed=5, strength=1.0, latents_file=str(tmp_path / "0.safetensors"),
        frames_file=str(tmp_path / "0.npy"),
    )  # fmt: skip


def following(first: ClipRequest, tmp_path: Path, **changes) -> ClipRequest:
    """A clip that continues it: 2 latents of context, 2 new ones."""
    request = replace(
        first, id="1", latent_frames=4, new_latents=2, prefix_latents=2, guidance=(4.0,) * 4, seed=6,
        stream=(StreamPart(first.latents_file, 0, 3),), latents_file=str(tmp_path / "1.safetensors"),
        frames_file=str(tmp_path / "1.npy"),
    )  # fmt: skip
    return replace(request, **changes)


def render(pipeline: WanFlowMatchingPipeline, request: ClipRequest, on_step=lambda *_: None) -> np.ndarray:
    pipeline.render(request, on_step, lambda _: None)
    return np.load(request.frames_file)


def test_a_chain_decodes_as_one_stream(pipeline, first, tmp_path) -> None:
    frames = [render(pipeline, first), render(pipeline, following(first, tmp_path))]
    assert [f.shape for f in frames] == [(9, 48, 64, 3), (8, 48, 64, 3)]
    latents = torch.cat([load_latents(tmp_path / f"{i}.safetensors") for i in range(2)], dim=2)
    with torch.inference_mode():
        whole = pipeline.vae.decode_chunk(latents, StreamState()).clamp(-1, 1)
    at_once = whole[0].permute(1, 2, 3, 0).add(1).mul(127.5).round().to(torch.uint8).numpy()
    assert np.abs(np.concatenate(frames).astype(int) - at_once).max() <= 1


def test_a_fresh_process_gives_the_same_frames(parts, pipeline, first, tmp_path) -> None:
    render(pipeline, first)
    second = following(first, tmp_path)
    wanted = render(pipeline, second)
    Path(second.latents_file).unlink()
    assert np.array_equal(render(WanFlowMatchingPipeline(parts), second), wanted)


def test_pinned_latents_come_back_as_given(pipeline, first, tmp_path) -> None:
    """Seen in the window itself: the file only holds what is new."""
    render(pipeline, first)
    seen = []
    render(pipeline, following(first, tmp_path), lambda _, __, clean: seen.append(clean))
    context = load_latents(Path(first.latents_file))[:, :, -2:]
    assert torch.allclose(seen[-1][:, :, :2], context, atol=1e-5)


def test_strength_releases_the_context(pipeline, first, tmp_path) -> None:
    render(pipeline, first)
    seen = []
    request = following(first, tmp_path, strength=0.2, num_inference_steps=4)
    render(pipeline, request, lambda _, __, clean: seen.append(clean))
    context = load_latents(Path(first.latents_file))[:, :, -2:]
    assert torch.allclose(seen[0][:, :, :2], context, atol=1e-5)  # at sigma 1 it is still held
    assert not torch.allclose(seen[-1][:, :, :2], context, atol=0.05)


def test_overlap_cross_fades_and_adds_nothing(pipeline, first, tmp_path) -> None:
    with_tail = replace(first, latent_frames=4, guidance=(4.0,) * 4)
    assert len(render(pipeline, with_tail)) == 9  # the tail is no part of the video
    tail = load_latents(Path(first.latents_file), "tail")
    assert tail.shape[2] == 1
    plain = following(first, tmp_path)
    render(pipeline, plain)
    fresh = load_latents(Path(plain.latents_file))
    blended = following(first, tmp_path, overlap_latents=1, overlap_file=first.latents_file)
    assert len(render(pipeline, blended)) == 8
    got = load_latents(Path(blended.latents_file))
    assert torch.allclose(got[:, :, 0], (fresh[:, :, 0] + tail[:, :, 0]) / 2, atol=1e-5)
    assert torch.equal(got[:, :, 1:], fresh[:, :, 1:])


def test_blend_weights_rise_evenly() -> None:
    fresh, tail = torch.ones(1, 1, 4, 1, 1), torch.zeros(1, 1, 3, 1, 1)
    assert torch.allclose(blend_in(fresh, tail).flatten(), torch.tensor([0.25, 0.5, 0.75, 1.0]))


def test_a_picture_becomes_the_first_frame(pipeline, first, tmp_path) -> None:
    picture = tmp_path / "start.png"
    Image.new("RGB", (128, 96), (200, 60, 40)).save(picture)
    frames = render(pipeline, replace(first, init_image=str(picture)))
    assert frames.shape[0] == 9
    assert np.abs(frames[0].mean((0, 1)) - (200, 60, 40)).max() < 25
    dropped = replace(first, init_image=str(picture), drop_frames=1, frames_file=str(tmp_path / "d.npy"))
    assert np.array_equal(render(pipeline, dropped), frames[1:])


def test_latents_on_disk_are_used_again_and_only_their_own(pipeline, first) -> None:
    wanted, steps = render(pipeline, first), []
    Path(first.frames_file).unlink()
    assert np.array_equal(render(pipeline, first, lambda *_: steps.append(1)), wanted)
    assert not steps
    render(pipeline, replace(first, seed=99), lambda *_: steps.append(1))
    assert steps


def test_a_cut_back_stream_is_decoded_from_its_own_past(parts, pipeline, first, tmp_path) -> None:
    """The second clip makes the stream's last latent anew; what it decodes must not remember the dropped one."""
    render(pipeline, first)
    request = following(
        first, tmp_path, stream=(StreamPart(first.latents_file, 0, 2),), prefix_latents=2, new_latents=2
    )
    wanted = render(pipeline, request)
    assert np.array_equal(render(WanFlowMatchingPipeline(parts), request), wanted)


def test_cancel_is_heard_between_steps_and_leaves_nothing(pipeline, first, tmp_path) -> None:
    def stop(step: int, *_: object) -> None:
        raise RenderCancelled("cancelled")

    with pytest.raises(RenderCancelled):
        render(pipeline, first, stop)
    assert not list(tmp_path.glob("*.npy*")) + list(tmp_path.glob("*.safetensors*"))


def test_guidance_of_one_never_looks_at_the_negative_prompt(pipeline, first, tmp_path) -> None:
    request = replace(first, guidance=(1.0,) * 3)
    frames = render(pipeline, request)
    other = replace(request, negative_prompt="a car", latents_file=str(tmp_path / "n.safetensors"))
    assert np.array_equal(render(pipeline, other), frames)
    guided = replace(first, negative_prompt="a car", latents_file=str(tmp_path / "g.safetensors"))
    assert not np.array_equal(render(pipeline, guided), frames)


def test_guidance_acts_at_its_own_time(pipeline, first, tmp_path) -> None:
    """One scale per latent frame: changing the last one's leaves the first one's latents nearly alone."""
    render(pipeline, replace(first, num_inference_steps=1))
    a = load_latents(Path(first.latents_file))
    render(pipeline, replace(first, num_inference_steps=1, guidance=(4.0, 4.0, 9.0)))
    b = load_latents(Path(first.latents_file))
    assert torch.equal(a[:, :, :2], b[:, :, :2])
    assert not torch.allclose(a[:, :, 2], b[:, :, 2], atol=1e-3)


def test_missing_latents_of_an_earlier_clip_are_named(pipeline, first, tmp_path) -> None:
    with pytest.raises(InputError, match=r"0\.safetensors"):
        render(pipeline, following(first, tmp_path))


def from_frames(pipeline, first: ClipRequest, tmp_path: Path, **changes) -> tuple[ClipRequest, np.ndarray]:
    """A clip whose window begins with the last 5 frames of the first one: 2 latents given, 2 new."""
    given = render(pipeline, first)[-5:]
    np.save(tmp_path / "context.npy", given)
    request = replace(
        first, id="1", latent_frames=4, new_latents=4, guidance=(4.0,) * 4, seed=6, drop_frames=5,
        context_file=str(tmp_path / "context.npy"), latents_file=str(tmp_path / "1.safetensors"),
        frames_file=str(tmp_path / "1.npy"),
    )  # fmt: skip
    return replace(request, **changes), given


def test_given_frames_open_the_window_and_are_left_out_of_the_clip(pipeline, first, tmp_path) -> None:
    request, given = from_frames(pipeline, first, tmp_path)
    assert len(render(pipeline, request)) == 13 - 5
    with torch.inference_mode():
        wanted = pipeline.vae.encode(pipeline.frames(request.context_file, request)[None])
    assert torch.allclose(load_latents(Path(request.latents_file))[:, :, :2], wanted, atol=1e-5)
    whole = render(pipeline, replace(request, drop_frames=0, frames_file=str(tmp_path / "w.npy")))
    assert np.abs(whole[:5].astype(int) - given).mean() < 6, "as the autoencoder shows them"


def test_vace_keeps_the_given_frames_and_makes_the_rest_anew(pipeline, first, tmp_path) -> None:
    request, _ = from_frames(pipeline, first, tmp_path)
    with torch.inference_mode():
        context = pipeline.vace_context(request, None, None)
        given = pipeline.frames(request.context_file, request)
        alone = pipeline.vae.encode(torch.cat((given, torch.zeros(3, 8, *given.shape[2:])), dim=1)[None])
    z = pipeline.vae.config.z_dim
    assert torch.equal(context[:, :z], alone)
    known = context[0, 2 * z :].amax(dim=(0, 2, 3))
    assert known.tolist() == [0, 0, 1, 1]


def test_vace_is_shown_a_guide_where_it_makes_frames_anew(pipeline, first, tmp_path) -> None:
    request, given = from_frames(pipeline, first, tmp_path)
    guide = np.random.default_rng(1).integers(0, 255, (13, 48, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "guide.npy", guide)
    with torch.inference_mode():
        context = pipeline.vace_context(replace(request, guide_file=str(tmp_path / "guide.npy")), None, None)
        shown = pipeline.frames(str(tmp_path / "guide.npy"), request)
        shown[:, : len(given)] = 0  # these are kept, and stand in the other half
        wanted = pipeline.vae.encode(shown[None])
    z = pipeline.vae.config.z_dim
    assert torch.equal(context[:, z : 2 * z], wanted)


def test_a_guide_is_where_sampling_starts_from(pipeline, first, tmp_path) -> None:
    """The more of the schedule is left out, the nearer the frames are to it."""
    guide = np.full((9, 48, 64, 3), (60, 140, 200), np.uint8)
    np.save(tmp_path / "guide.npy", guide)
    off, steps = [], []
    for strength in (0.0, 0.5, 0.75):
        request = replace(
            first, num_inference_steps=4, guide_file=str(tmp_path / "guide.npy"), guide_strength=strength
        )
        seen = []
        frames = render(pipeline, request, lambda step, *_, seen=seen: seen.append(step))
        off.append(np.abs(frames.astype(int) - guide).mean())
        steps.append(seen)
    assert off[0] > off[1] > off[2]
    assert steps == [[0, 1, 2, 3], [2, 3], [3]]
