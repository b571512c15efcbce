"""Steps at which the model isn't asked: where its velocity hardly changes, the next one follows from the last two.

Changes the output a little, by a threshold the user sets.  The idea of reusing what a model said while it says nearly
the same is TeaCache's (arXiv 2411.19108) and EasyCache's (arXiv 2507.02860); here it needs no calibration and knows
nothing of the model: how fast the velocity changed between the last two real steps, per unit of noise level, tells
how far it will have drifted at the next.  A skipped step doesn't repeat the last velocity but goes on along half of its
change, which halves the error of repeating it (measured on the demo: whole and no extrapolation are both worse).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from .solvers import NoiseSchedule, Velocity

_FIRST_REAL = 2  # steps that are always computed: two are needed to know a change
_GOES_ON = 0.5


@dataclass(frozen=True)
class _Seen:
    """What the model said at a noise level."""

    sigma: float
    velocity: Tensor


class StepCache:
    """A velocity that asks `velocity` only where its estimated relative drift would pass `threshold`.

    fresh: steps that are always computed, besides the first two and the last: where another expert begins, or
    pinned latents are released.  computed: how many steps were, for the log.
    """

    def __init__(
        self, velocity: Velocity, schedule: NoiseSchedule, threshold: float, fresh: Collection[int] = ()
    ) -> None:
        self.velocity, self.schedule, self.threshold, self.fresh = velocity, schedule, threshold, frozenset(fresh)
        self.computed = 0
        self._seen: list[_Seen] = []

    def __call__(self, latents: Tensor, step: int) -> Tensor:
        sigma = self.schedule.sigmas[step]
        if step in self.fresh:
            self._seen.clear()  # what came before says nothing about what follows
        last = step == self.schedule.steps - 1
        if len(self._seen) == _FIRST_REAL and not last and self.drift(sigma) < self.threshold:
            return self.guessed(sigma)
        self.computed += 1
        velocity = self.velocity(latents, step)
        self._seen = [*self._seen[-1:], _Seen(sigma, velocity)]
        return velocity

    def drift(self, sigma: float) -> float:
        """How far, relative to itself, the velocity will have changed at `sigma`, at the rate it last changed."""
        before, now = self._seen
        change = (now.velocity - before.velocity).norm() / now.velocity.norm().clamp_min(1e-12)
        return float(change) / abs(now.sigma - before.sigma) * abs(sigma - now.sigma)

    def guessed(self, sigma: float) -> Tensor:
        """The velocity at `sigma`, going on from the last two."""
        before, now = self._seen
        way = _GOES_ON * (sigma - now.sigma) / (now.sigma - before.sigma)
        return now.velocity + way * (now.velocity - before.velocity)


def steps_after(schedule: NoiseSchedule, sigma: float) -> set[int]:
    """The first step whose noise level is at or below `sigma`, as a set; empty where that is step 0 or none."""
    below = [step for step in range(schedule.steps) if schedule.sigmas[step] <= sigma]
    return {below[0]} if below and below[0] else set()
