"""The judge of the demo's samples: a small classifier trained on true renders.  `python demo/classify.py` (2 minutes)

Colour, object, scenery and time are read off single frames, motion off three frames of a clip. It never sees a
sample of the model, and isn't shipped.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import world
from common import WORK, save_atomically
from torch import Tensor, nn
from world import ATTRIBUTES

LOOKS = tuple(name for name in ATTRIBUTES if name != "motion")


def _trunk(channels_in: int) -> nn.Sequential:
    widths, layers = (channels_in, 32, 48, 64, 96), []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(a, b, 3, 2 if i < 3 else 1, 1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers)


class Judge(nn.Module):
    """uint8 clips [B, F, 80, 128, 3] -> logits by attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.move = _trunk(3), _trunk(9)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * 96, len(values)) for name, values in ATTRIBUTES.items()})

    def frames(self, frames: Tensor) -> dict[str, Tensor]:
        """Half-size frames [B, 3, 40, 64] -> colour, object, scenery, time."""
        features = _pool(self.look(frames))
        return {name: self.heads[name](features) for name in LOOKS}

    def motion(self, three: Tensor) -> Tensor:
        """First, middle and last frame [B, 3, 3, 40, 64] -> motion; what stands still is taken out."""
        moving = three - three.mean(1, keepdim=True)
        return self.heads["motion"](_pool(self.move(moving.flatten(1, 2))))


def _pool(x: Tensor) -> Tensor:
    return torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1)


def shrink(clips: Tensor) -> Tensor:
    """uint8 [B, F, 80, 128, 3] -> [B, F, 3, 40, 64] in [-1, 1]."""
    x = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, clips.shape[:2])


@torch.no_grad()
def judge_clips(judge: Judge, clips: Tensor, end_only: bool = False) -> dict[str, Tensor]:
    """What each clip shows, as indices into ATTRIBUTES.

    Looks are read off three frames of the second half (end_only: the last three frames) and averaged.
    """
    x = shrink(clips)
    count = x.shape[1]
    shown = [count - 3, count - 2, count - 1] if end_only else [count // 2, 3 * count // 4, count - 1]
    logits = [judge.frames(x[:, k]) for k in shown]
    out = {name: sum(one[name].log_softmax(1) for one in logits).argmax(1) for name in LOOKS}
    out["motion"] = judge.motion(x[:, [0, count // 2, count - 1]]).argmax(1)
    return out


def hit_rates(judge: Judge, clips: Tensor, looks: list[world.Look], end_only: bool = False) -> dict[str, float]:
    """Share of clips that show what was asked for, by attribute; None in a look isn't counted."""
    shown = judge_clips(judge, clips, end_only)
    rates = {}
    for name, values in ATTRIBUTES.items():
        wanted = [getattr(look, name) for look in looks]
        hits = [values[int(k)] == value for k, value in zip(shown[name], wanted, strict=True) if value is not None]
        rates[name] = round(float(np.mean(hits)), 4)
    return rates


def clips_of(story: world.Story) -> list[tuple[np.ndarray, world.Look]]:
    """A story's clips as the judge sees them: 17 frames, then 13 each (one of the clip before)."""
    video = world.render(story)
    out = [(video[: world.FIRST_FRAMES], story.looks[0])]
    for clip in range(1, len(story.looks)):
        start = world.join_frame(clip) - 1
        out.append((video[start : start + world.CLIP_FRAMES + 1], story.looks[clip]))
    return out


def dataset(stories: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Half-size last frames [N, 3, 40, 64], frame triples [N, 3, 3, 40, 64], labels."""
    rng = np.random.default_rng(seed)
    pictures, triples, looks = [], [], []
    for k in range(stories):
        for video, look in clips_of(world.sample_story(rng, clips=3, anywhere=bool(k % 2))):
            three = shrink(torch.from_numpy(video[None, [0, len(video) // 2, len(video) - 1]]))[0]
            pictures.append(three[2].half())
            triples.append(three.half())
            looks.append(look)
    labels = {
        name: torch.tensor([values.index(getattr(look, name)) for look in looks]) for name, values in ATTRIBUTES.items()
    }
    return torch.stack(pictures), torch.stack(triples), labels


def _roughen(x: Tensor) -> Tensor:
    """Noise and a little blur: samples are neither as clean nor as sharp as renders."""
    if torch.rand(()) < 0.5:
        flat = x.flatten(0, -4)
        x = F.avg_pool2d(flat, 3, 1, 1, count_include_pad=False).view(x.shape)
    return x + 0.15 * torch.rand(()) * torch.randn_like(x)


def train(judge: Judge, data: tuple[Tensor, Tensor, dict[str, Tensor]], steps: int) -> None:
    pictures, triples, labels = data
    optimiser = torch.optim.AdamW(judge.parameters(), 3e-3, weight_decay=0.02)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps) + 1e-5
        chosen = torch.randint(0, len(pictures), (48,))
        logits = judge.frames(_roughen(pictures[chosen].float()))
        logits["motion"] = judge.motion(_roughen(triples[chosen].float()))
        loss = sum(F.cross_entropy(logits[name], labels[name][chosen]) for name in ATTRIBUTES)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 99:
            print(f"step {step + 1} loss {loss.item():.3f}", flush=True)


def load_judge(work: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(torch.load(work / "judge.pt", weights_only=True))
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--stories", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    judge = Judge()
    train(judge, dataset(args.stories, 31), args.steps)
    judge.eval()
    save_atomically(judge.state_dict(), args.work / "judge.pt")
    pictures, triples, labels = dataset(100, 32)
    with torch.no_grad():
        logits = judge.frames(pictures.float()) | {"motion": judge.motion(triples.float())}
    print(
        "held-out",
        {name: round((logits[name].argmax(1) == labels[name]).float().mean().item(), 4) for name in ATTRIBUTES},
    )


if __name__ == "__main__":
    main()
