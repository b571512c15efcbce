"""From noise to clean latents: guidance, pinned latents, and a solver that knows of neither.

Shape legend: B clips, z latent channels, T latent frames of the window, n pinned ones; latents are [B, z, T, h, w].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dit import Conditioning
from .guidance import MODES
from .pinning import GuidedModel, Pin, noised
from .solvers import SOLVERS, Callback, NoiseSchedule, Velocity
from .step_cache import StepCache, steps_after
from .windows import Joint, joint_velocity

Backbone = Callable[[Tensor, Tensor, Conditioning], Tensor]

BATCHED_TOKENS = 8192  # up to here one pass over both prompts beats two; beyond, it only doubles the memory


@dataclass(frozen=True)
class Prompts:
    """What guides the model.  negative may be None where guidance is 1 everywhere.

    both: the two as one batch, made of them; None without a negative, and for models that are given image tokens.
    """

    positive: Conditioning
    negative: Conditioning | None
    both: Conditioning | None = None

    def __post_init__(self) -> None:
        positive, negative = self.positive, self.negative
        if self.both is None and negative is not None and positive.image is None:
            both = Conditioning(torch.cat((positive.context, negative.context)), runs=positive.runs)
            object.__setattr__(self, "both", both)

    def at(self, latents: Sequence[int]) -> Prompts:
        """What guides the model in a window of these latent frames."""
        return Prompts(*(part and part.at(latents) for part in (self.positive, self.negative, self.both)))


def sample(
    model: GuidedModel | None,
    noise: Tensor,
    solver: str,
    schedule: NoiseSchedule,
    *,
    pin: Pin | None = None,
    channels: Tensor | None = None,
    step_cache: float = 0.0,
    fresh: Collection[int] = (),
    guide: Tensor | None = None,
    joint: Joint | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Integrate the flow from noise to clean latents.

    model: of guided_model or switch_experts; None with joint.  noise: [B, z, T, h, w] float32.
    joint: the clip in windows, each with its own model, instead of all at once.
    channels: further input channels of the model (mask and image latents), [B, c, T, h, w].
    step_cache: threshold of StepCache, 0 = every step is computed; fresh: steps that are computed whatever it says.
    guide: clean latents [B, z, T, h, w] to start from, under as much noise as the schedule begins with.
    Returns [B, z, T, h, w] float32; pinned latents come back as given unless released on the way.
    """
    assert (model is None) != (joint is None)
    if channels is not None:
        model = with_channels(model, channels)
    start = noise if guide is None else noised(guide, noise, schedule.sigmas[0])
    velocity = joint_velocity(joint, schedule, noise, pin) if joint else model_velocity(model, schedule)
    if pin is not None:
        velocity = velocity if joint else pinned_velocity(model, schedule, pin, noise)
        start = start.clone()
        start[:, :, : pin.count] = noised(pin.clean, noise, schedule.sigmas[0])
        fresh = {*fresh, *steps_after(schedule, pin.release_sigma)}
    if step_cache:
        velocity = StepCache(velocity, schedule, step_cache, fresh)
    latents = SOLVERS[solver].sample(velocity, start, schedule, callback)
    if pin is not None and pin.release_sigma <= 0:
        latents[:, :, : pin.count] = pin.clean
    return latents


def guided_model(
    dit: Backbone, prompts: Prompts, guidance: tuple[float, ...], noise: Tensor, mode: str = "cfg"
) -> GuidedModel:
    """(model input, timesteps) -> velocity with guidance, by one pass or two.

    mode: of guidance.MODES.
    guidance: one scale per latent frame, or one for all.  noise: tells size, dtype and device.
    Guidance of 1 everywhere needs no unconditional pass at all.
    """
    if prompts.negative is None or all(scale == 1 for scale in guidance):
        return lambda x, t: dit(x, t, prompts.positive)
    scale = torch.tensor(guidance, dtype=noise.dtype, device=noise.device).view(1, 1, -1, 1, 1)
    combine = MODES[mode]
    tokens = noise.shape[0] * noise[0, 0].numel() // 4
    if tokens > BATCHED_TOKENS or prompts.both is None:

        def two_passes(x: Tensor, t: Tensor) -> Tensor:
            negative = dit(x, t, prompts.negative)
            return combine(dit(x, t, prompts.positive), negative, scale)

        return two_passes

    def one_pass(x: Tensor, t: Tensor) -> Tensor:
        times = t if t.shape[0] == 1 else torch.cat((t, t))  # one for both is shared by the whole batch
        positive, negative = dit(torch.cat((x, x)), times, prompts.both).chunk(2)
        return combine(positive, negative, scale)

    return one_pass


def switch_experts(high: GuidedModel, low: GuidedModel, boundary: float) -> GuidedModel:
    """Wan 2.2's two experts: the high-noise one from timestep boundary * 1000 on, else the low-noise one."""
    return lambda x, t: (high if t.max().item() >= boundary * 1000 else low)(x, t)


def with_channels(model: GuidedModel, channels: Tensor) -> GuidedModel:
    """A model that is given further input channels beside the latents."""
    return lambda x, t: model(torch.cat((x, channels), dim=1), t)


def model_velocity(model: GuidedModel, schedule: NoiseSchedule) -> Velocity:
    """The solver's view of a model that starts from noise alone."""

    def velocity(latents: Tensor, step: int) -> Tensor:
        return model(latents, latents.new_full((latents.shape[0],), schedule.timesteps[step]))

    return velocity


def pinned_velocity(model: GuidedModel, schedule: NoiseSchedule, pin: Pin, noise: Tensor) -> Velocity:
    """The solver's view of a model whose first n latents are given.

    While they are held, their velocity is exactly noise - clean: any solver then carries them along the straight
    line to where they must end, and its history stays right when they are released.
    """
    free, straight = model_velocity(model, schedule), noise[:, :, : pin.count] - pin.clean

    def velocity(latents: Tensor, step: int) -> Tensor:
        sigma = schedule.sigmas[step]
        if sigma <= pin.release_sigma:
            return free(latents, step)
        v = pin.look(model, latents, noise, sigma, schedule.timesteps[step])
        return torch.cat((straight, v[:, :, pin.count :]), dim=2)

    return velocity


def blend_in(fresh: Tensor, tail: Tensor) -> Tensor:
    """Cross-fade the first latents of a clip out of what the clip before had made for the same frames.

    fresh: [B, z, m, h, w], tail: [B, z, k, h, w], k <= m.  Adds no frame; the k weights rise evenly between 0 and 1.
    """
    k = tail.shape[2]
    weight = (torch.arange(1, k + 1, dtype=fresh.dtype, device=fresh.device) / (k + 1)).view(1, 1, -1, 1, 1)
    return torch.cat((torch.lerp(tail.to(fresh), fresh[:, :, :k], weight), fresh[:, :, k:]), dim=2)
