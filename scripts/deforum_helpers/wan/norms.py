"""Root-mean-square normalisation, shared by the backbone and the autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x [..., C] / sqrt(mean(x^2) + eps) * gain [C], the mean in float32.  Returns x's dtype.

    On a CPU torch takes its own rms_norm apart into five passes over memory; this takes three.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, gain.shape, gain, eps)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(length.square() / x.shape[-1] + eps)
    return x * scale.to(x.dtype) * gain.to(x.dtype)
