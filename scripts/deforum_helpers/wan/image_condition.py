"""What an image-to-video model is told about its given frames: masks over latents.

Shape legend: F pixel frames (4n+1), T = (F - 1) / 4 + 1 latent frames, h, w latent rows and columns.
Source: Wan 2.1 (I2V and FLF2V conditioning).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .vae import TEMPORAL_STRIDE


def given_frames_mask(frames: int, rows: int, columns: int, given: tuple[int, ...]) -> Tensor:
    """1 where a frame is given.  given: frame numbers, negative ones count from the end.

    The first frame stands alone in its latent, so its mask is repeated four times to fill it; every other latent
    has one mask channel per frame.  Returns [4, T, h, w] float32.
    """
    mask = torch.zeros(frames)
    mask[list(given)] = 1
    first = mask[:1].expand(TEMPORAL_STRIDE)
    per_latent = torch.cat((first, mask[1:])).view(-1, TEMPORAL_STRIDE)  # [T, 4]
    return per_latent.T[:, :, None, None].expand(-1, -1, rows, columns).contiguous()
