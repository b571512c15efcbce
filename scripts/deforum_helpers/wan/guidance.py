"""Two velocities, with the prompt and with the negative one, made into the one that the solver follows.

Shape legend: velocities are [B, z, T, h, w]; scale is [1, 1, 1 or T, 1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(positive: Tensor, negative: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance.  Source: Ho and Salimans, arXiv 2207.12598."""
    return negative + scale * (positive - negative)


def zero_star(positive: Tensor, negative: Tensor, scale: Tensor) -> Tensor:
    """CFG-Zero*: the negative velocity first scaled to lie as near the positive one as it can.

    Source: Fan et al., arXiv 2503.18886 (its other half, doing nothing in the first steps, is for undertrained models).
    """
    dims = tuple(range(1, negative.ndim))
    fit = (positive * negative).sum(dims, keepdim=True)
    fit = fit / negative.square().sum(dims, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return plain(positive, negative * fit, scale)


MODES: dict[str, Combine] = {"cfg": plain, "cfg-zero": zero_star}
