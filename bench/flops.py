"""Arithmetic of a forward pass, counted on paper: what a measured time is held against.

A multiplication and its addition are two operations.  N tokens, d width: a block's linears take 2 N (6 d^2 + 2 d ffn),
its self-attention 4 N^2 d, its cross-attention 4 N S d for S rows of text.  Norms, embeddings and the head don't count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from deforum_helpers.wan.dit import DitConfig


@dataclass(frozen=True)
class Work:
    """Operations of one forward pass of one clip."""

    linear: float
    self_attention: float
    cross_attention: float

    @property
    def total(self) -> float:
        return self.linear + self.self_attention + self.cross_attention


def dit_work(config: DitConfig, latent_size: tuple[int, int, int]) -> Work:
    """latent_size: latent frames, rows, columns."""
    frames, rows, columns = latent_size
    n, d = frames * (rows // 2) * (columns // 2), config.dim
    layers = config.num_layers
    return Work(
        linear=layers * 2.0 * n * (6 * d * d + 2 * d * config.ffn_dim),
        self_attention=layers * 4.0 * n * n * d,
        cross_attention=layers * 4.0 * n * config.text_len * d,
    )


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product here: the best of several."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        _settle(device)
        started = time.perf_counter()
        a @ b
        _settle(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
