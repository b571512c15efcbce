"""Guide frames: a rough video that the window follows, because sampling starts from it instead of from noise alone.

Shape legend: z latent channels, T latent frames of the window, h, w latent rows and columns.
Source: SDEdit, Meng et al., arXiv 2108.01073.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .solvers import NoiseSchedule
from .vae import TEMPORAL_STRIDE, WanVae


def load_frames(path: Path, width: int, height: int) -> Tensor:
    """Frames [3, F, H, W] in [-1, 1], F = 4n+1.  Raises InputError."""
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"frames can't be read ({error})", where=str(path), next_step="re-render that clip"
        ) from error
    if frames.dtype != np.uint8 or frames.shape[1:] != (height, width, 3) or len(frames) % TEMPORAL_STRIDE != 1:
        raise InputError(
            "these aren't frames for this clip", where=str(path), got=f"{frames.dtype} {list(frames.shape)}",
            allowed=f"uint8 [4n+1, {height}, {width}, 3]",
        )  # fmt: skip
    return torch.from_numpy(frames).permute(3, 0, 1, 2).float().div_(127.5).sub_(1)


def guide_latents(vae: WanVae, frames: Tensor, prefix: int, window: int) -> Tensor:
    """Guide frames as the window's latents [1, z, T, h, w].

    frames: [3, F, H, W].  Without a prefix they are the window's frames.  Behind a prefix the first one is the frame
    before the new ones: it is there for the autoencoder to go on from, and the prefix is left zero.
    """
    latents = vae.encode(frames[None])
    own = latents[:, :, -(window - prefix) :]
    assert own.shape[2] == window - prefix, f"{latents.shape[2]} guide latents for {window - prefix}"
    return torch.cat((torch.zeros_like(own[:, :, :1]).expand(-1, -1, prefix, -1, -1), own), dim=2)


def begin_later(schedule: NoiseSchedule, strength: float) -> tuple[NoiseSchedule, int]:
    """The end of a schedule, for a start from a guide.  strength: the share of the steps left out; one is done always.

    Returns it and how many steps are left out.
    """
    skipped = min(round(strength * schedule.steps), schedule.steps - 1)
    return replace(schedule, sigmas=schedule.sigmas[skipped:], timesteps=schedule.timesteps[skipped:]), skipped
