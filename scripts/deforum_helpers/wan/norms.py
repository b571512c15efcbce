"""Root-mean-square normalisation, shared by the backbone and the autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x [..., C] / sqrt(mean(x^2) + eps) * gain [C], the mean in float32.  Returns x's dtype.

    On a CPU torch takes its own rms_norm apart into five passes over memory; this takes three.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, gain.shape, gain, eps)
    scaled, gain = x * rms_scale(x, eps).to(x.dtype), gain.to(x.dtype)
    return scaled * gain if torch.is_grad_enabled() else scaled.mul_(gain)


def rms_scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) of x [..., C] in float32 -> [..., 1]."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return torch.rsqrt(length.square() / x.shape[-1] + eps)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width (all heads together), with a learned gain."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
