"""Several prompts in one window: which latent frames hear which, and how cross-attention mixes them.

Shape legend: B clips, K texts, R contexts, S rows of one, d width, T latent frames, P tokens of a latent frame,
L = T * P, H heads, D = d / H.

Each latent frame has weights over the texts that add up to 1 (protocol.TextMix).  They are meant in one of two ways:

    blend   attend to one context, the weighted mean of the texts' raw contexts (before the model's text embedding,
            where each row still stands for a token of its text)
    relay   attend to all texts at once, with log(weight) added to the logits of each one's keys: a time bias

In both, a weight of 1 is that text alone, and mixing a text with itself changes nothing.
Source of the time bias: Prompt Relay, arXiv 2604.10030.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ..protocol import TextMix
from .attention import AttentionFn

KeysValues = Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Run:
    """Neighbouring latent frames that hear the same: which contexts, and what is added to the logits of each."""

    frames: int
    contexts: tuple[int, ...]
    biases: tuple[float, ...]


def distinct_contexts(
    mixes: Sequence[TextMix],
) -> tuple[list[tuple[tuple[int, float], ...]], tuple[Run, ...]]:
    """The contexts that a clip needs, each distinct one once, as (text, weight) pairs; the runs that attend to them.

    mixes: one per latent frame.
    """
    rows: dict[tuple[tuple[int, float], ...], int] = {}
    runs = []
    for mix, frames in groupby(mixes):
        heard = [(k, weight) for k, weight in zip(mix.prompts, mix.weights, strict=True) if weight > 0]
        if mix.relay or len(heard) == 1:
            contexts = tuple(rows.setdefault(((k, 1.0),), len(rows)) for k, _ in heard)
            biases = tuple(math.log(weight) for _, weight in heard)
        else:
            contexts, biases = (rows.setdefault(tuple(heard), len(rows)),), (0.0,)
        runs.append(Run(len(list(frames)), contexts, biases))
    return list(rows), tuple(runs)


def mixed_contexts(texts: Tensor, mixes: Sequence[TextMix]) -> tuple[Tensor, tuple[Run, ...]]:
    """The contexts of distinct_contexts, made from those of the texts, and the runs of frames that attend to them.

    texts: raw contexts [K, S, text_dim].  mixes: one per latent frame.  Returns [R, S, text_dim] and the runs.
    """
    rows, runs = distinct_contexts(mixes)
    wide = torch.promote_types(texts.dtype, torch.float32)  # weights in bfloat16 wouldn't add up to 1
    weights = texts.new_zeros(len(rows), len(texts), dtype=wide)  # [R, K]
    for row, heard in enumerate(rows):
        for k, weight in heard:
            weights[row, k] = weight
    return torch.einsum("rk,ksd->rsd", weights, texts.to(wide)).to(texts.dtype), runs


def runs_at(runs: Sequence[Run], latents: Sequence[int]) -> tuple[Run, ...]:
    """The runs of some of the latent frames, in that order, alone; the contexts stay as they are."""
    each = [(run.contexts, run.biases) for run in runs for _ in range(run.frames)]
    return tuple(Run(len(list(same)), *heard) for heard, same in groupby(each[k] for k in latents))


def attend_in_runs(q: Tensor, keys_values: KeysValues, runs: Sequence[Run], attend: AttentionFn) -> Tensor:
    """Each run's tokens to its own contexts.

    q: [B, L, H, D].  keys_values: contexts -> their keys and values one behind the other, each [B, n * S, H, D].
    Returns [B, L, H, D].
    """
    frames = sum(run.frames for run in runs)
    assert q.shape[1] % frames == 0, "the runs are not those of these latents"
    tokens = q.shape[1] // frames
    out = []
    for run, part in zip(runs, q.split([run.frames * tokens for run in runs], dim=1), strict=True):
        k, v = keys_values(run.contexts)
        out.append(attend(part, k, v) if len(run.contexts) == 1 else _with_bias(part, k, v, run.biases))
    return torch.cat(out, dim=1)


def _with_bias(q: Tensor, k: Tensor, v: Tensor, biases: Sequence[float]) -> Tensor:
    """Kernels without a bias can't do this, so it is torch's own attention."""
    q, k, v = (side.transpose(1, 2) for side in (q, k, v))
    bias = q.new_tensor(biases).repeat_interleave(k.shape[2] // len(biases))
    mask = bias.expand(1, 1, q.shape[2], k.shape[2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
