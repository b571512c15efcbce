"""Latents at a window's start that are given, not made: how a model is shown them.

Shape legend: B clips, z latent channels, T latent frames of the window, n given ones; latents are [B, z, T, h, w].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (model input, timesteps [B] or [B, T]) -> velocity
GuidedModel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pin:
    """Latents at the window's start that are given.

    clean: [B, z, n, h, w].  noise_share: of the step's noise, how much the model sees them under, at the step's
    timestep; None = it sees them clean, at timestep 0 (models trained so).  Under all of the noise, where things stand
    in the new latents is settled before it can be seen where they stood, and they fade over there.
    release_sigma: held while sigma is above it; 0 = to the end.
    """

    clean: Tensor
    noise_share: float | None
    release_sigma: float = 0.0

    @property
    def count(self) -> int:
        return self.clean.shape[2]

    def look(self, model: GuidedModel, latents: Tensor, noise: Tensor, sigma: float, timestep: float) -> Tensor:
        """What the model says of a window at a step, [B, z, T, h, w]; for the given latents it means nothing.

        latents: the window's, whatever the given ones are there.  noise: that they all come from.
        """
        t = latents.new_full((latents.shape[0], latents.shape[2]), timestep)
        if self.noise_share is None:
            start = self.clean
            t[:, : self.count] = 0
        else:
            start, t = noised(self.clean, noise, self.noise_share * sigma), t[:, 0]
        return model(torch.cat((start, latents[:, :, self.count :]), dim=2), t)


def noised(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """clean [B, z, n, h, w] on its straight way to the first n latents of noise."""
    return torch.lerp(clean, noise[:, :, : clean.shape[2]], sigma)
