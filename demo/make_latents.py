"""Render stories and encode them once, for the DiT to train on.  `python demo/make_latents.py --minutes 10`

Also measures the mean and spread of each latent channel. Goes on with more stories when run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import world
from common import WORK, Z_DIM, encode, load_weights, make_vae, save_atomically, to_pixels
from deforum_helpers.wan.vae import WanVae
from torch import Tensor


def story_of(index: int) -> tuple[world.Story, bool]:
    """Story number `index`, and whether it starts anywhere (then it can't teach text-to-video).

    Of five: two three-clip stories that start where a prompt would put the object, one that starts anywhere,
    two of a single clip.
    """
    rng = np.random.default_rng(777_000 + index)
    anywhere = index % 5 == 1
    return world.sample_story(rng, clips=1 if index % 5 in (2, 4) else 3, anywhere=anywhere), anywhere


_vae: WanVae | None = None


def start_worker(weights: Path) -> None:
    """Each worker renders and encodes alone, on one thread: nothing waits for anything."""
    global _vae
    torch.set_num_threads(1)
    _vae = load_weights(make_vae(), weights).eval()


def job(index: int) -> tuple[np.ndarray, dict, np.ndarray]:
    """Latents [16, T, 10, 16] float16, facts and object centres of one story."""
    story, anywhere = story_of(index)
    facts = {"index": index, "anywhere": anywhere, "looks": [asdict(look) for look in story.looks]}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mean = encode(_vae, to_pixels(torch.from_numpy(world.render(story)[None])).contiguous())[0]
    return mean[0].half().numpy(), facts, world.centres(story)


def statistics(latents: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all clips."""
    flat = torch.cat([z.float().flatten(1) for z in latents], dim=1)
    return flat.mean(1), flat.std(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--stories", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    file = args.work / "latents.pt"
    data: dict = {"latents": [], "facts": [], "centres": []}
    if file.exists():
        data = torch.load(file, weights_only=True)
    done, begin = len(data["latents"]), time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, start_worker, (args.work / "vae.safetensors",)) as pool:
        for latents, facts, centres in pool.imap(job, range(done, args.stories), chunksize=4):
            data["latents"].append(torch.from_numpy(latents))
            data["facts"].append(facts)
            data["centres"].append(torch.from_numpy(centres))
            minutes = (time.monotonic() - begin) / 60
            if len(data["latents"]) % 200 == 0:
                print(f"{len(data['latents'])} stories, minute {minutes:.1f}", flush=True)
            if minutes > args.minutes:
                break
        pool.terminate()
    if "mean" not in data:  # fixed by the first run: a DiT may be training on them already
        data["mean"], data["std"] = statistics(data["latents"])
    assert data["mean"].shape == (Z_DIM,)
    save_atomically(data, file)
    print(len(data["latents"]), "stories; mean", data["mean"].tolist(), "std", data["std"].tolist(), flush=True)


if __name__ == "__main__":
    main()
