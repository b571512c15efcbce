"""The image encoder of Wan's image-to-video models: CLIP ViT-H/14's visual tower, without its last block.

Shape legend: B pictures, P = (size / 14)^2 + 1 tokens, class token first, c width.
Source: Wan 2.1 (open_clip's XLM-RoBERTa ViT-H/14; official tensor names).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageEncoderConfig:
    image_size: int = 224
    patch_size: int = 14
    dim: int = 1280
    mlp_ratio: int = 4
    num_heads: int = 16
    num_layers: int = 32
    eps: float = 1e-5


class EncoderAttention(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.to_qkv = nn.Linear(config.dim, config.dim * 3)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, P, c / H]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        dim, wide = config.dim, config.dim * config.mlp_ratio
        self.norm1, self.norm2 = nn.LayerNorm(dim, config.eps), nn.LayerNorm(dim, config.eps)
        self.attn = EncoderAttention(config)
        self.mlp = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """The visual tower without its final norm and projection, which Wan doesn't use."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim, patches = config.dim, (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Conv2d(3, dim, config.patch_size, config.patch_size, bias=False)
        self.cls_embedding = nn.Parameter(torch.randn(1, 1, dim).div_(dim**0.5))
        self.pos_embedding = nn.Parameter(torch.randn(1, patches + 1, dim).div_(dim**0.5))
        self.pre_norm = nn.LayerNorm(dim, config.eps)
        self.transformer = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_layers))

    def forward(self, pictures: Tensor, blocks: int | None = None) -> Tensor:
        """Pictures [B, 3, H, W] of any size, in [-1, 1] -> tokens [B, P, c] after all blocks but the last.

        blocks: how many to run instead.
        """
        weight = self.patch_embedding.weight
        x = self.patch_embedding(self.prepare(pictures).to(weight.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_embedding.expand(len(x), -1, -1), x), dim=1) + self.pos_embedding
        x = self.pre_norm(x)
        for block in self.transformer[: self.config.num_layers - 1 if blocks is None else blocks]:
            x = block(x)
        return x

    def prepare(self, pictures: Tensor) -> Tensor:
        """Stretch to the square, bicubic without antialias as officially, then CLIP's normalisation."""
        size = (self.config.image_size, self.config.image_size)
        x = F.interpolate(pictures.float(), size=size, mode="bicubic", align_corners=False) * 0.5 + 0.5
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (x - mean) / std
