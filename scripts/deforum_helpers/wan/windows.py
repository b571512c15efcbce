"""Joint windowed denoising: a clip longer than the model's window, or closed to a ring, as one solver's one state.

At each step the model looks at windows of the latents one after the other, and what it says is put together to one
velocity for all of them; so the solver's history is global, and no window is finished before another begins.  A
window's first latents are shown as the window before has just estimated them: clean, at timestep 0, to models that were
trained so (Variant.pin), to others under part of the step's noise.  Each latent is made by one window alone.  What the
chain does clip after clip, all clips do at once.  In a ring the first window begins, until it is settled what is to be
seen; then it goes on from the last.

Averages of overlapping windows (MultiDiffusion, arXiv 2302.08113; Gen-L-Video, arXiv 2305.18264), which ask nothing of
the model, were tried for both kinds: where windows disagree, what moves fades out at one place and in at another.

Shape legend: T latent frames of the clip; latents are [B, z, T, h, w].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .pinning import GuidedModel, Pin
from .solvers import NoiseSchedule, Velocity

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
    noise_share: as Pin's, for the latents that windows are shown of each other.
    model_at: the latents of a window -> the model with what guides it there.
    """

    size: int
    overlap: int
    ring: bool
    noise_share: float | None
    model_at: Callable[[Sequence[int]], GuidedModel]


def windows_of(count: int, joint: Joint, step: int) -> list[Window]:
    """The windows of a step, spread evenly: as few as overlap by at least joint.overlap."""
    size, stride = min(joint.size, count), joint.size - joint.overlap
    if count <= joint.size:
        return [Window(step % count if joint.ring else 0, size, 0)]
    if joint.ring:
        number = -(-count // stride)
        starts = [round(k * count / number) for k in range(number)]
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
    estimate: Tensor | None = None  # of the clean latents, each by the last look at it

    def velocity(latents: Tensor, step: int) -> Tensor:
        nonlocal estimate
        sigma, timestep = schedule.sigmas[step], schedule.timesteps[step]
        held = pin if pin is not None and sigma > pin.release_sigma else None
        begins = not joint.ring or estimate is None or sigma > _RING_SETTLED
        known, v = (latents if estimate is None else estimate).clone(), torch.zeros_like(latents)
        for number, window in enumerate(windows_of(latents.shape[2], joint, step)):
            chosen = window.latents(latents.shape[2])
            new = chosen[window.context :]
            model, x = joint.model_at(chosen), latents[:, :, chosen]
            if number == 0 and begins:
                given = held
            else:
                given = Pin(known[:, :, chosen[: window.context]], joint.noise_share) if window.context else None
            if given is None:
                said = model(x, x.new_full((x.shape[0],), timestep))
            else:
                said = given.look(model, x, noise[:, :, chosen], sigma, timestep)
            v[:, :, new] = said[:, :, window.context :]
            if number == 0 and held is not None:
                v[:, :, : held.count] = noise[:, :, : held.count] - held.clean
            known[:, :, new] = latents[:, :, new] - sigma * v[:, :, new]
        estimate = known
        return v

    return velocity


def closed(latents: Tensor, warm: int) -> Tensor:
    """A ring of latents [1, z, T, h, w] as a stream to decode, [1, z, warm + T + 1, h, w]: the decoder comes to the
    first latent from the last ones, and one latent more gives the frame that the last ones flow into."""
    return torch.cat((latents[:, :, -warm:], latents, latents[:, :, :1]), dim=2)
