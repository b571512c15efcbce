"""Windows of latents as the renderer makes them: from nothing, from a first frame, and continuing a clip.

A window is WINDOW latents of a story; its first `pinned` ones are given clean (at timestep 0), the others are to be
made; its caption is the look that the last of them have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import caption, negative
from common import WINDOW
from torch import Tensor
from world import Look

FIRST, ADDED = WINDOW, 3  # latents of the first clip, and of each further one
PINNED_ODDS = {1: 0.15, 2: 0.65, 3: 0.20}  # the renderer pins two where it can

# Shares of text-to-video and of clips that go on; the rest starts from a frame.
MIXED, FRESH, CONTINUED, FROM_FRAME = (0.45, 0.40), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)


@dataclass(frozen=True)
class Window:
    story: int
    start: int
    pinned: int
    look: Look


@dataclass
class Batch:
    """clean [B, 16, 5, 10, 16] normalised, pinned [B], captions, weight [B, 1, 5, 10, 16]."""

    clean: Tensor
    pinned: Tensor
    captions: list[str]
    weight: Tensor


class Windows:
    """plain: of make_latents.py --plain; there every story is one window, and may start anywhere."""

    def __init__(self, file: Path, held_out: int = 100, *, plain: bool = False) -> None:
        data = torch.load(file, weights_only=True)
        self.mean, self.std = data["mean"], data["std"]
        shape = (-1, 1, 1, 1)
        self.latents = [(z.float() - self.mean.view(shape)) / self.std.view(shape) for z in data["latents"]]
        self.weights = [object_weight(c) for c in data["centres"]]
        self.looks = [[Look(**look) for look in facts["looks"]] for facts in data["facts"]]
        self.teaches_text = [plain or not facts["anywhere"] for facts in data["facts"]]
        last = len(self.latents) - held_out
        self.train, self.test = range(last), range(last, len(self.latents))

    def fresh(self, stories: range) -> list[Window]:
        """Text-to-video: from the start of a story that starts where a prompt puts it."""
        return [Window(k, 0, 0, self.looks[k][0]) for k in stories if self.teaches_text[k]]

    def from_frame(self, stories: range) -> list[Window]:
        """From a first frame (one pinned latent), or the first two latents of a very short clip."""
        return [Window(k, 0, n, self.looks[k][0]) for k in stories for n in (1, 1, 1, 2)]

    def continued(self, stories: range) -> dict[int, list[Window]]:
        """By the number of pinned latents: every join of every story that the window can straddle."""
        out: dict[int, list[Window]] = {n: [] for n in PINNED_ODDS}
        for k in stories:
            looks, length = self.looks[k], self.latents[k].shape[1]
            for clip in range(1, len(looks)):
                for n, windows in out.items():
                    start = FIRST + ADDED * (clip - 1) - n
                    reaches = start + WINDOW > FIRST + ADDED * clip  # into the clip after
                    if start + WINDOW <= length and not (reaches and looks[clip + 1] != looks[clip]):
                        windows.append(Window(k, start, n, looks[clip]))
        return out


class Sampler:
    """Draws batches, mixed by shares."""

    def __init__(self, windows: Windows, stories: range, seed: int, shares: tuple[float, float] = MIXED) -> None:
        self.windows, self.rng, self.shares = windows, np.random.default_rng(seed), shares
        self.fresh, self.from_frame = windows.fresh(stories), windows.from_frame(stories)
        self.continued = windows.continued(stories)

    def window(self) -> Window:
        kind = self.rng.uniform()
        if kind < self.shares[0]:
            pool = self.fresh
        elif kind < sum(self.shares):
            pool = self.continued[int(self.rng.choice(list(PINNED_ODDS), p=list(PINNED_ODDS.values())))]
        else:
            pool = self.from_frame
        return pool[self.rng.integers(len(pool))]

    def batch(self, size: int, drop: float = 0.10) -> Batch:
        """drop: share of captions that are empty or made of negative-prompt words."""
        chosen = [self.window() for _ in range(size)]
        captions = []
        for window in chosen:
            roll = self.rng.uniform()
            empty, words = roll < 0.6 * drop, roll < drop
            captions.append("" if empty else negative(self.rng) if words else caption(window.look, self.rng))
        cut = [(w.story, slice(w.start, w.start + WINDOW)) for w in chosen]
        weight = torch.stack([self.windows.weights[k][:, s] for k, s in cut])
        return Batch(
            torch.stack([self.windows.latents[k][:, s] for k, s in cut]),
            torch.tensor([w.pinned for w in chosen]),
            captions,
            weight / weight.mean((1, 2, 3, 4), keepdim=True),
        )


def object_weight(centres: Tensor, extra: float = 5.0) -> Tensor:
    """[F, 2] object centres -> [1, T, 10, 16]: how much each latent counts; the object covers few of them."""
    rows, columns = torch.meshgrid(torch.arange(10.0) * 8 + 4, torch.arange(16.0) * 8 + 4, indexing="ij")
    near = (columns - centres[:, 0, None, None]) ** 2 + (rows - centres[:, 1, None, None]) ** 2
    weight = torch.exp(-((near / 26**2) ** 2))  # [F, 10, 16]
    groups = weight[1:].unflatten(0, (-1, 4)).amax(1)  # a latent covers four frames, the first one only one
    return 1 + extra * torch.cat([weight[:1], groups])[None]
