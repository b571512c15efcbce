"""Several prompts in one window: which latent frames hear which, and how cross-attention mixes them.

Shape legend: B clips, R contexts, S rows of one, d width, T latent frames, P tokens of a latent frame,
L = T * P, H heads, D = d / H.

A row of weights per latent frame, over the texts, adds up to 1.  It is meant in one of two ways:

    blend   attend to one context, the weighted mean of the texts' raw contexts (before the model's text embedding,
            where each row still stands for a token of its text)
    relay   attend to all texts at once, with log(weight) added to the logits of each one's keys: a time bias

In both, a weight of 1 is that text alone, and mixing a text with itself changes nothing.
Source of the time bias: Prompt Relay, arXiv 2604.10030.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import AttentionFn


@dataclass(frozen=True)
class Mix:
    """What one latent frame hears: a weight for each text, adding up to 1; relay: as a time bias, else blended."""

    weights: tuple[float, ...]
    relay: bool = False


@dataclass(frozen=True)
class Run:
    """Neighbouring latent frames that hear the same: which contexts, and what is added to the logits of each."""

    frames: int
    contexts: tuple[int, ...]
    biases: tuple[float, ...]


def mixed_contexts(texts: Tensor, mixes: Sequence[Mix]) -> tuple[Tensor, tuple[Run, ...]]:
    """The contexts that a window needs, each distinct one once, and the runs of frames that attend to them.

    texts: raw contexts [K, S, text_dim].  mixes: one per latent frame.  Returns [R, S, text_dim] and the runs.
    """
    rows: dict[tuple[float, ...], int] = {}
    runs = []
    for mix, frames in groupby(mixes):
        heard = [k for k, weight in enumerate(mix.weights) if weight > 0]
        if mix.relay or len(heard) == 1:
            singles = [tuple(float(k == j) for j in range(len(texts))) for k in heard]
            contexts = tuple(rows.setdefault(single, len(rows)) for single in singles)
            biases = tuple(math.log(mix.weights[k]) for k in heard) if len(heard) > 1 else (0.0,)
        else:
            contexts, biases = (rows.setdefault(mix.weights, len(rows)),), (0.0,)
        runs.append(Run(len(list(frames)), contexts, biases))
    weights = torch.tensor(list(rows), dtype=texts.dtype, device=texts.device)  # [R, K]
    return torch.einsum("rk,ksd->rsd", weights, texts), tuple(runs)


def of_window(runs: Sequence[Run], first: int, last: int) -> tuple[Run, ...]:
    """The runs of latent frames [first, last) alone; the contexts stay as they are."""
    cut, at = [], 0
    for run in runs:
        frames = min(at + run.frames, last) - max(at, first)
        if frames > 0:
            cut.append(replace(run, frames=frames))
        at += run.frames
    assert sum(run.frames for run in cut) == last - first, "the window reaches past the runs"
    return tuple(cut)


def attend_in_runs(q: Tensor, keys: Tensor, values: Tensor, runs: Sequence[Run], attend: AttentionFn) -> Tensor:
    """Each run's tokens to its own contexts.

    q: [B, L, H, D]; keys, values: [B, R, S, H, D].  Returns [B, L, H, D].
    """
    tokens = q.shape[1] // sum(run.frames for run in runs)
    out = []
    for run, part in zip(runs, q.split([run.frames * tokens for run in runs], dim=1), strict=True):
        k, v = (torch.cat([side[:, row] for row in run.contexts], dim=1) for side in (keys, values))
        if len(run.contexts) == 1:
            out.append(attend(part, k, v))
        else:
            bias = q.new_tensor(run.biases).repeat_interleave(keys.shape[2]).view(1, 1, 1, -1)
            out.append(_with_bias(part, k, v, bias))
    return torch.cat(out, dim=1)


def _with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Kernels without a bias can't do this, so it is torch's own attention."""
    q, k, v = (side.transpose(1, 2) for side in (q, k, v))
    mask = bias.expand(1, 1, q.shape[2], k.shape[2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
