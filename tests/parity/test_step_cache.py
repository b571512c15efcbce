"""Steps that are guessed must save work, stay near, and never be those that must be computed."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.model_files import inspect_model
from deforum_helpers.wan.guidance import plain, zero_star
from deforum_helpers.wan.loading import load_dit
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.pinning import Pin
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule
from deforum_helpers.wan.step_cache import StepCache, steps_after

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
SCHEDULE = noise_schedule("euler", 20, 3.0)


@pytest.fixture(scope="module")
def dit():
    info = inspect_model(DEMO).require()
    return load_dit(info.parts["dit"], info.row, choose_machine("cpu"))


def sampled(dit, threshold: float, pin: Pin | None = None) -> tuple[torch.Tensor, int]:
    """Latents, and how often the model was asked."""
    generator = torch.Generator().manual_seed(0)
    noise, asked = torch.randn(1, 16, 3, 6, 8, generator=generator), 0
    contexts = torch.randn(2, 1, dit.config.text_len, dit.config.text_dim, generator=generator)

    def counted(*arguments):
        nonlocal asked
        asked += 1
        return dit(*arguments)

    with torch.inference_mode():
        prompts = Prompts(*(dit.condition(context) for context in contexts))
        model = guided_model(counted, prompts, (4.0,), noise)
        return sample(model, noise, "euler", SCHEDULE, pin=pin, step_cache=threshold), asked


def test_nothing_is_guessed_unless_asked_for(dit) -> None:
    assert sampled(dit, 0.0)[1] == SCHEDULE.steps


def test_guessing_saves_steps_and_stays_near(dit) -> None:
    wanted, _ = sampled(dit, 0.0)
    close, computed = sampled(dit, 0.15)
    far, fewer = sampled(dit, 0.5)
    error, larger = ((got - wanted).norm() / wanted.norm() for got in (close, far))
    assert SCHEDULE.steps > computed > fewer > 2
    assert 0 < error < 0.06
    assert error < larger


def test_a_velocity_that_changes_evenly_is_asked_at_both_ends_and_followed_between() -> None:
    asked: list[int] = []

    def velocity(latents: torch.Tensor, step: int) -> torch.Tensor:
        asked.append(step)
        return torch.full_like(latents, 10 + SCHEDULE.sigmas[step])

    cache = StepCache(velocity, SCHEDULE, threshold=1.0)
    x = torch.zeros(3)
    out = [float(cache(x, step)[0]) for step in range(SCHEDULE.steps)]
    assert asked == [0, 1, SCHEDULE.steps - 1]
    assert cache.computed == 3
    first, second = (10 + s for s in SCHEDULE.sigmas[:2])
    rate = (second - first) / (SCHEDULE.sigmas[1] - SCHEDULE.sigmas[0])
    assert out[5] == pytest.approx(second + 0.5 * rate * (SCHEDULE.sigmas[5] - SCHEDULE.sigmas[1]), rel=1e-5)


def test_steps_that_must_be_computed_are_and_what_came_before_is_forgotten() -> None:
    asked: list[int] = []

    def velocity(latents: torch.Tensor, step: int) -> torch.Tensor:
        asked.append(step)
        return latents + 1

    cache = StepCache(velocity, SCHEDULE, threshold=1.0, fresh={9})
    for step in range(SCHEDULE.steps):
        cache(torch.zeros(2), step)
    assert asked == [0, 1, 9, 10, 19]


def test_the_release_of_pinned_latents_is_computed(dit) -> None:
    release = SCHEDULE.sigmas[9]
    pin = Pin(torch.zeros(1, 16, 1, 6, 8), noise_share=None, release_sigma=release)
    latents, asked = sampled(dit, 1.0, pin)
    assert asked == 5  # steps 0, 1, 9 (released), 10 and the last
    assert torch.isfinite(latents).all()


def test_where_another_expert_begins() -> None:
    assert steps_after(SCHEDULE, 2.0) == set()  # from the start: nothing was seen yet
    assert steps_after(SCHEDULE, 0.0) == set()
    (step,) = steps_after(SCHEDULE, 0.9)
    assert SCHEDULE.sigmas[step] <= 0.9 < SCHEDULE.sigmas[step - 1]


def test_zero_star_takes_from_the_negative_only_what_differs() -> None:
    positive = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor(5.0)
    assert torch.allclose(zero_star(positive, 3 * positive, scale), positive, atol=1e-5)
    negative = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    aligned = zero_star(positive, negative, torch.tensor(0.0))
    assert ((positive - aligned) * negative).sum((1, 2, 3, 4)).abs().max() < 1e-3  # the rest is at right angles
    assert not torch.allclose(zero_star(positive, negative, scale), plain(positive, negative, scale))
