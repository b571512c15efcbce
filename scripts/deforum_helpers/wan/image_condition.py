"""Given pictures and videos, as the models want to be told of them.

Shape legend: F pixel frames (4n+1), T = (F - 1) / 4 + 1 latent frames, H, W pixels, h, w latent rows and columns;
pixels are in [-1, 1].
Sources: Wan 2.1 (I2V, FLF2V, VACE conditioning, size rule), Wan 2.2 (TI2V-5B's size rule).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .vae import TEMPORAL_STRIDE, WanVae

MASK_BLOCK = 8  # VACE folds the mask's 8x8 pixel blocks into channels


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


def image_channels(vae: WanVae, frames: int, first: Tensor, last: Tensor | None = None) -> Tensor:
    """The 20 channels beside the noise: 4 of mask, then the latents of the given pictures amid mid grey.

    first, last: [3, H, W].  Returns [1, 4 + z, T, h, w] float32.
    """
    video = first.new_zeros(1, 3, frames, *first.shape[1:])
    video[0, :, 0] = first
    if last is not None:
        video[0, :, -1] = last
    latents = vae.encode(video)
    given = (0,) if last is None else (0, -1)
    mask = given_frames_mask(frames, *latents.shape[3:], given).to(latents)
    return torch.cat((mask[None], latents), dim=1)


def stretch(picture: Tensor, height: int, width: int) -> Tensor:
    """[3, H, W] to another size, bicubic without antialias and without a crop, as officially for 2.1."""
    return F.interpolate(picture[None], size=(height, width), mode="bicubic", align_corners=False)[0]


def size_for_area(height: int, width: int, max_area: int) -> tuple[int, int]:
    """(height, width) that keep a picture's aspect within an area, in steps of 16.

    Evaluated in float64 with floors, literally as officially: an exact 480x832 picture becomes 464x832.
    """
    aspect = height / width
    rows = round(math.sqrt(max_area * aspect) // 8 // 2 * 2)
    columns = round(math.sqrt(max_area / aspect) // 8 // 2 * 2)
    return rows * 8, columns * 8


def size_for_area_5b(height: int, width: int, max_area: int, multiple: int = 32) -> tuple[int, int]:
    """TI2V-5B's rule: of flooring the width first or the height first, the one nearer to the picture's aspect."""
    aspect = width / height
    ideal = math.sqrt(max_area * aspect)
    wide = int(ideal // multiple * multiple)
    by_width = int(max_area / wide // multiple * multiple), wide
    tall = int(max_area / ideal // multiple * multiple)
    by_height = tall, int(max_area / tall // multiple * multiple)
    off = [max(aspect / (w / h), (w / h) / aspect) for h, w in (by_width, by_height)]
    return by_width if off[0] < off[1] else by_height


def vace_context(vae: WanVae, frames: Tensor, mask: Tensor, references: tuple[Tensor, ...] = ()) -> Tensor:
    """VACE's 96 channels: what to keep, what to make anew, and where.

    frames: [3, F, H, W]; mask: [1, F, H, W], 1 = make anew.  references: pictures [3, H, W], each one latent
    frame in front.  Returns [1, 2 z + 64, references + T, h, w].
    """
    anew = (mask > 0.5).to(frames)
    halves = [vae.encode((frames * part)[None]) for part in (1 - anew, anew)]
    out = torch.cat((*halves, fold_mask(mask, halves[0].shape[2])[None].to(halves[0])), dim=1)
    for picture in reversed(references):
        latent = vae.encode(picture[None, :, None])
        rest = out.shape[1] - latent.shape[1]
        out = torch.cat((F.pad(latent, (0, 0, 0, 0, 0, 0, 0, rest)), out), dim=2)
    return out


def fold_mask(mask: Tensor, latent_frames: int) -> Tensor:
    """[1, F, H, W] -> [64, T, h, w]: 8x8 pixel blocks to channels (row, then column), time by nearest frame."""
    frames, height, width = mask.shape[1:]
    blocks = mask[0].view(frames, height // MASK_BLOCK, MASK_BLOCK, width // MASK_BLOCK, MASK_BLOCK)
    channels = blocks.permute(2, 4, 0, 1, 3).flatten(0, 1)  # [64, F, h, w]
    size = (latent_frames, *channels.shape[2:])
    return F.interpolate(channels[None], size=size, mode="nearest-exact")[0]
