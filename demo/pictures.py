"""Contact sheets and the moving picture of the README."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

# the chains that the moving picture shows side by side
SHOWN = [
    ["a red hot air balloon drifts to the right over the sea during the day",
     "a red hot air balloon drifts to the right over the sea at sunset",
     "a red hot air balloon rises over snowy mountains at sunset",
     "a yellow hot air balloon drifts to the left over snowy mountains at night"],
    ["a blue car drives to the right through the desert on a sunny day",
     "a blue car drives to the right through the desert at sunset",
     "an orange car drives to the left through green hills at sunset",
     "an orange car drives to the left through green hills at night"],
    ["a white bird flies to the left over green hills at sunset",
     "a white bird flies to the right over green hills at night",
     "a pink bird flies to the left over the desert at night",
     "a pink bird flies to the left over the desert during the day"],
    ["a purple boat sails to the right on the sea at night",
     "a purple boat sails to the right on the sea at sunset",
     "a green boat sails to the left on the sea during the day",
     "a red boat sails to the left on the sea during the day"],
]  # fmt: skip


def sheet(clips: Tensor, captions: list[str], file: Path, count: int = 5) -> None:
    """One row a clip: its caption and `count` frames, evenly spaced.  clips: uint8 [N, F, H, W, 3]."""
    frames, height, width = clips.shape[1:4]
    chosen = torch.linspace(0, frames - 1, count).round().long()
    head = 14
    page = Image.new("RGB", (count * width, len(clips) * (height + head)), "white")
    draw = ImageDraw.Draw(page)
    for row, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        top = row * (height + head)
        draw.text((3, top + 1), caption[: count * width // 6], fill="black")
        for column, frame in enumerate(clip[chosen]):
            page.paste(Image.fromarray(frame.numpy()), (column * width, top + head))
    page.save(file, optimize=True)


def animation(videos: Tensor, file: Path, scale: int = 2) -> None:
    """Four chains in a square, looping.  videos: uint8 [4, F, H, W, 3]; every second frame is shown."""
    top, bottom = torch.cat([videos[0], videos[1]], dim=2), torch.cat([videos[2], videos[3]], dim=2)
    square = torch.cat([top, bottom], dim=1)[::2]
    size = (square.shape[2] * scale, square.shape[1] * scale)
    images = [Image.fromarray(frame.numpy()).resize(size, Image.Resampling.BICUBIC) for frame in square]
    frames = [image.quantize(256, kmeans=1, dither=Image.Dither.NONE) for image in images]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=125, loop=0, optimize=True)
