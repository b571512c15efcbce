"""Pictures from files and arrays, as the autoencoder wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError


def cover(picture: Image.Image | np.ndarray, width: int, height: int) -> Tensor:
    """An RGB picture scaled (Lanczos) to cover width x height and cropped at its centre.

    Returns [1, 3, 1, H, W] float32 in [-1, 1].
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    scale = max(width / image.width, height / image.height)
    size = round(image.width * scale), round(image.height * scale)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.array(image.crop((left, top, left + width, top + height)))  # a copy: torch wants it writable
    return torch.from_numpy(pixels).permute(2, 0, 1)[None, :, None].float().div(255).sub(0.5).div(0.5)


def load_picture(path: Path) -> Image.Image:
    """Read an RGB picture.  Raises InputError for anything else."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"not a picture ({error})", where=str(path), next_step="give a PNG, JPEG or WebP file"
        ) from error
