"""Clips made in windows: alike where one window is enough, covered evenly where not, closed where they are rings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.wan.pinning import Pin
from deforum_helpers.wan.sampling import sample
from deforum_helpers.wan.solvers import noise_schedule
from deforum_helpers.wan.windows import Joint, closed, windows_of
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline
from test_pipeline import first, following, parts, pipeline, render  # noqa: F401 - fixtures

SCHEDULE = noise_schedule("unipc", 4, 3.0)


def noise(latents: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 4, latents, 2, 2, generator=torch.Generator().manual_seed(seed))


def drifting(x, t):
    """A model whose answer depends on place, neighbours and timestep."""
    when = t.view(t.shape[0], 1, -1, 1, 1) / 1000
    return 0.5 * x + 0.1 * x.roll(1, 2) + when


def joint_of(size=5, overlap=2, ring=False, share=None, model=drifting) -> Joint:
    return Joint(size, overlap, ring, share, lambda latents: model)


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize("share", [None, 0.6])
def test_one_window_is_exactly_no_window(solver, share):
    schedule, eps = noise_schedule(solver, 4, 3.0), noise(5)
    pin = Pin(noise(2, seed=9), share)
    for given in (None, pin):
        wanted = sample(drifting, eps, solver, schedule, pin=given)
        got = sample(None, eps, solver, schedule, pin=given, joint=joint_of(share=share))
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("joint", [True, False])
def test_models_of_one_timestep_see_a_given_start_under_part_of_the_noise(joint):
    """As much of it in every window, told as the step's timestep; the new latents are under all of it."""
    seen, eps, pin = [], noise(8 if joint else 5), Pin(noise(2, seed=9), noise_share=0.6)

    def model(x, t):
        seen.append((x, t))
        return 0.5 * x

    windows = joint_of(share=0.6, model=model) if joint else None
    made = sample(None if joint else model, eps, "euler", SCHEDULE, pin=pin, joint=windows)
    starts = seen[::2] if joint else seen
    assert len(starts) == SCHEDULE.steps
    for (x, t), sigma, timestep in zip(starts, SCHEDULE.sigmas, SCHEDULE.timesteps, strict=False):
        assert torch.equal(x[:, :, :2], torch.lerp(pin.clean, eps[:, :, :2], 0.6 * sigma))
        assert t.unique().tolist() == [timestep]
    assert torch.equal(starts[0][0][:, :, 2:], eps[:, :, 2:5])
    assert torch.equal(made[:, :, :2], pin.clean)


@pytest.mark.parametrize(("count", "size", "overlap"), [(14, 5, 2), (13, 5, 2), (69, 21, 5), (6, 5, 4), (100, 21, 8)])
@pytest.mark.parametrize("ring", [False, True])
def test_windows_cover_everything_and_overlap_enough(count, size, overlap, ring):
    for step in range(7):
        windows = windows_of(count, joint_of(size, overlap, ring), step)
        assert {k for window in windows for k in window.latents(count)} == set(range(count))
        inner = windows if ring else windows[1:]
        assert all(window.context >= overlap for window in inner)
        assert len(windows) <= -(-count // (size - overlap)) + 1
        for before, now in zip(windows[-1:] + windows[:-1], windows, strict=True):
            if now.context:
                assert now.latents(count)[: now.context] == before.latents(count)[-now.context :]


def test_a_rings_first_window_begins_and_is_shown_the_last_one_when_that_is_settled():
    times = []

    def model(x, t):
        times.append(t.reshape(-1))
        return 0.5 * x

    schedule = noise_schedule("euler", 14, 3.0)
    sample(None, noise(12), "euler", schedule, joint=joint_of(ring=True, model=model))
    windows = len(times) // schedule.steps
    for step, sigma in enumerate(schedule.sigmas[:-1]):
        shown = [len(t) > 1 and int((t == 0).sum()) > 0 for t in times[step * windows : (step + 1) * windows]]
        assert shown == [step > 0 and sigma <= 0.8] + [True] * (windows - 1)


@pytest.mark.parametrize("share", [None, 0.6])
def test_a_rings_first_window_goes_on_from_what_the_last_one_said_the_step_before(share):
    seen, eps, schedule = [], noise(12), noise_schedule("euler", 14, 3.0)

    def model(x, t):
        seen.append(x)
        return 0.5 * x + 0.1

    sample(None, eps, "euler", schedule, joint=joint_of(ring=True, share=share, model=model))
    windows = len(seen) // schedule.steps
    assert windows == 4
    for step, sigma in enumerate(schedule.sigmas[1:-1], 1):
        begun, last, before = seen[step * windows], seen[step * windows - 1], schedule.sigmas[step - 1]
        said = (last - before * (0.5 * last + 0.1))[:, :, -2:]
        wanted = said if share is None else torch.lerp(said, eps[:, :, :2], share * sigma)
        assert torch.allclose(begun[:, :, :2], wanted, atol=1e-6) == (sigma <= 0.8)


def test_a_ring_is_closed_by_its_own_latents():
    ends = closed(whole := noise(12), 3)
    assert ends.shape[2] == 16
    assert torch.equal(ends[:, :, :3], whole[:, :, -3:]) and torch.equal(ends[:, :, -1], whole[:, :, 0])


@pytest.mark.parametrize("share", [None, 0.6])
def test_a_window_goes_on_from_what_the_one_before_has_just_said(share):
    """From the first step on, so that nothing needs a step a window to come through a long clip."""
    seen, eps = [], noise(8)

    def model(x, t):
        seen.append((x, t))
        return 0.5 * x + 0.1

    sample(None, eps, "euler", SCHEDULE, joint=joint_of(share=share, model=model))
    for step, (sigma, timestep) in enumerate(zip(SCHEDULE.sigmas, SCHEDULE.timesteps, strict=False)):
        (leading, alone), (second, times) = seen[2 * step : 2 * step + 2]
        assert alone.tolist() == [timestep], "nothing is given to the first window"
        estimate = (leading - sigma * (0.5 * leading + 0.1))[:, :, 3:]
        if share is None:
            assert times.tolist() == [[0, 0, timestep, timestep, timestep]]
            assert torch.allclose(second[:, :, :2], estimate, atol=1e-6)
        else:
            assert times.tolist() == [timestep]
            assert torch.allclose(second[:, :, :2], torch.lerp(estimate, eps[:, :, 3:5], share * sigma), atol=1e-6)


def test_a_pinned_start_comes_back_as_given():
    pin = Pin(noise(2, seed=5), noise_share=None)
    latents = sample(None, noise(11), "unipc", SCHEDULE, pin=pin, joint=joint_of())
    assert torch.equal(latents[:, :, :2], pin.clean)
    other = sample(None, noise(11), "unipc", SCHEDULE, joint=joint_of())
    assert not torch.allclose(latents[:, :, 2:], other[:, :, 2:])


def test_a_long_clip_is_made_in_windows_and_again_the_same(parts, pipeline, first, tmp_path):  # noqa: F811
    long = replace(first, latent_frames=8, new_latents=8, guidance=(4.0,) * 8, window_latents=4, window_overlap=2)
    frames = render(pipeline, long)
    assert frames.shape == (29, 48, 64, 3)
    again = replace(long, latents_file=str(tmp_path / "a.safetensors"), frames_file=str(tmp_path / "a.npy"))
    assert np.array_equal(render(WanFlowMatchingPipeline(parts), again), frames)
    at_once = replace(again, window_latents=0, window_overlap=0)
    assert at_once.fingerprint() != long.fingerprint()
    assert not np.array_equal(render(pipeline, at_once), frames)


def test_a_window_as_long_as_the_clip_changes_nothing(pipeline, first, tmp_path):  # noqa: F811
    frames = render(pipeline, first)
    windowed = replace(first, window_latents=3, window_overlap=1, latents_file=str(tmp_path / "w.safetensors"))
    assert np.array_equal(render(pipeline, windowed), frames)


def test_guidance_changes_inside_a_long_clip(pipeline, first, tmp_path):  # noqa: F811
    long = replace(first, latent_frames=8, new_latents=8, window_latents=4, window_overlap=2, num_inference_steps=1)
    a = render(pipeline, replace(long, guidance=(4.0,) * 8))
    b = render(pipeline, replace(long, guidance=(4.0,) * 7 + (9.0,), latents_file=str(tmp_path / "g.safetensors")))
    assert np.array_equal(a[:17], b[:17]) and not np.array_equal(a[-4:], b[-4:])


def test_a_ring_is_decoded_as_the_continuation_of_its_end(pipeline, first, tmp_path):  # noqa: F811
    ring = replace(
        first, latent_frames=6, new_latents=10, guidance=(4.0,) * 6, window_latents=4, window_overlap=2,
        ring_latents=3, drop_frames=9, num_inference_steps=4,
    )  # fmt: skip
    frames = render(pipeline, ring).astype(int)
    assert frames.shape[0] == 28  # 6 latents of four frames, and four more that are the first ones again
    again, elsewhere = np.abs(frames[24:] - frames[:4]).mean(), np.abs(frames[12:16] - frames[:4]).mean()
    assert again < 1 and again < elsewhere
