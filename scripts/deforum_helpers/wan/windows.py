"""Joint windowed denoising: a clip longer than the model's window, or closed to a ring, as one solver's one state.

At each step the model looks at windows of the latents, and what it says is put together to one velocity for all of
them; so the solver's history is global, and no window is finished before another begins.  How windows meet:

    clean context   models trained with clean latents at timestep 0 (Variant.pin): a window's first latents are shown
                    as the window before has them in its estimate of the clean latents, and each latent is made by
                    one window alone.  What the chain does clip after clip, all clips do at once.  In a ring one
                    window begins, until it is settled what is to be seen; then it goes on from the last.
    fusion          other models: overlapping windows are averaged with weights that ramp from 0 to 1.  A window's
                    first latent counts for nothing where another window covers it: the model was trained to see a
                    single frame there.  In a ring the windows move on a little from step to step, so that none of
                    their borders stays where it is.

Source of the fusion: MultiDiffusion (arXiv 2302.08113), Gen-L-Video (arXiv 2305.18264); of the moving ring: Mobius
(arXiv 2502.20307).

Shape legend: T latent frames of the clip; latents are [B, z, T, h, w].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .solvers import NoiseSchedule, Velocity

if TYPE_CHECKING:
    from .sampling import GuidedModel, Pin

_NEARLY_NOTHING = 1e-4  # where nothing else covers a latent, it still decides

# Above this sigma a ring's first window is shown nothing.  Estimates are blurs at first; were every window shown one as
# if it were clean, each would take it for the truth, and nothing but the object would ever come out of the blur.
_RING_SETTLED = 0.8


@dataclass(frozen=True)
class Window:
    """Latents start .. start + length - 1, in a ring modulo T.  context: how many of them the window before makes."""

    start: int
    length: int
    context: int

    def latents(self, count: int) -> list[int]:
        return [(self.start + k) % count for k in range(self.length)]


@dataclass(frozen=True)
class Joint:
    """How a clip is made in windows.

    size, overlap: of a window, in latents, 0 < overlap < size.  ring: the last latents go on in the first.
    clean_context: the model takes clean latents at timestep 0.
    model_at: the latents of a window -> the model with what guides it there.
    """

    size: int
    overlap: int
    ring: bool
    clean_context: bool
    model_at: Callable[[Sequence[int]], GuidedModel]


def windows_of(count: int, joint: Joint, step: int) -> list[Window]:
    """The windows of a step, spread evenly: as few as overlap by at least joint.overlap."""
    size, stride = min(joint.size, count), joint.size - joint.overlap
    if count <= joint.size:
        return [Window(step % count if joint.ring else 0, size, 0)]
    if joint.ring:
        number = -(-count // stride)
        moved = 0 if joint.clean_context else step * max(1, stride // 2)
        starts = [moved + round(k * count / number) for k in range(number)]
        spacing = [(now - before) % count for before, now in zip([starts[-1], *starts], starts, strict=False)]
        return [Window(s % count, size, size - gap) for s, gap in zip(starts, spacing, strict=True)]
    number = -(-(count - size) // stride) + 1
    starts = [round(k * (count - size) / (number - 1)) for k in range(number)]
    gaps = [now - before for before, now in pairwise(starts)]
    return [Window(0, size, 0), *(Window(s, size, size - gap) for s, gap in zip(starts[1:], gaps, strict=True))]


def joint_velocity(joint: Joint, schedule: NoiseSchedule, noise: Tensor, pin: Pin | None) -> Velocity:
    """The solver's view of all windows.  pin: latents given at the clip's start, as in pinned_velocity.

    With one window it is exactly what the unwindowed velocity is.
    """
    count = noise.shape[2]
    pinned = pin.clean.shape[2] if pin is not None else 0
    estimate: Tensor | None = None  # of the clean latents, after the step before

    def velocity(latents: Tensor, step: int) -> Tensor:
        nonlocal estimate
        held = pinned if pin is not None and schedule.sigmas[step] > pin.release_sigma else 0
        known = estimate
        if held:
            known = torch.cat((pin.clean, (latents if known is None else known)[:, :, held:]), dim=2)
        seen = latents
        if held and not joint.clean_context:
            seen = torch.cat((pin.shown(noise, schedule.sigmas[step]), latents[:, :, held:]), dim=2)
        windows = windows_of(count, joint, step)
        total, weights = torch.zeros_like(latents), latents.new_zeros(count)
        for number, window in enumerate(windows):
            chosen = window.latents(count)
            shown = held if window.start == 0 and held and not joint.ring else 0
            if joint.clean_context and estimate is not None:
                begins = joint.ring and number == 0 and schedule.sigmas[step] > _RING_SETTLED
                shown = max(shown, 0 if begins else window.context)
            weight = _weights(window, joint, number, len(windows)).to(latents)
            v = _look(joint, schedule.timesteps[step], seen, known, chosen, shown)
            total[:, :, chosen] += v * weight.view(1, 1, -1, 1, 1)
            weights[chosen] += weight
        v = total / weights.view(1, 1, -1, 1, 1)
        if held:
            v[:, :, :held] = noise[:, :, :held] - pin.clean
        estimate = latents - schedule.sigmas[step] * v
        return v

    return velocity


def _look(
    joint: Joint, timestep: float, latents: Tensor, known: Tensor | None, chosen: list[int], shown: int
) -> Tensor:
    """What the model says of one window, whose first `shown` latents it sees clean, as `known` has them."""
    x = latents[:, :, chosen]
    if not (joint.clean_context and shown and known is not None):
        return joint.model_at(chosen)(x, x.new_full((x.shape[0],), timestep))
    t = x.new_full((x.shape[0], len(chosen)), timestep)
    x[:, :, :shown], t[:, :shown] = known[:, :, chosen[:shown]], 0
    return joint.model_at(chosen)(x, t)


def _weights(window: Window, joint: Joint, number: int, windows: int) -> Tensor:
    """How much each latent of a window counts, [length]."""
    weight = torch.ones(window.length)
    if windows == 1:
        return weight
    first, last = not joint.ring and number == 0, not joint.ring and number == windows - 1
    if joint.clean_context:
        weight[: window.context] = _NEARLY_NOTHING if joint.ring or number else 1.0
        return weight
    for k in range(min(joint.overlap, window.length // 2)):
        part = (k + 1) / (joint.overlap + 1)
        if not first:
            weight[k] = part
        if not last:
            weight[-1 - k] = part
    if not first:
        weight[0] = _NEARLY_NOTHING
    return weight


def closed(latents: Tensor, warm: int) -> Tensor:
    """A ring of latents [1, z, T, h, w] as a stream to decode, [1, z, warm + T + 1, h, w]: the decoder comes to the
    first latent from the last ones, and one latent more gives the frame that the last ones flow into."""
    return torch.cat((latents[:, :, -warm:], latents, latents[:, :, :1]), dim=2)
