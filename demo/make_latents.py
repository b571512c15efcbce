"""Render stories and encode them once, for the DiT to train on.  `python demo/make_latents.py --minutes 10`

Also measures the mean and spread of each latent channel. Goes on with more stories when run again.

`--shipped` encodes with the autoencoder in models/demo, for going on from the weights that lie there.

`--plain` makes windows as plain text-to-video weights have seen them, with the autoencoder in models/demo: cut from
anywhere in a story and encoded alone, so that the first latent of each is a single frame.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import world
from common import (
    MODEL,
    PLAIN_WORK,
    WORK,
    Z_DIM,
    encode,
    has_halves,
    load_weights,
    make_vae,
    save_atomically,
    to_pixels,
)
from deforum_helpers.variants import VAES
from deforum_helpers.wan.vae import WanVae
from torch import Tensor


def story_of(index: int) -> tuple[world.Story, bool]:
    """Story number `index`, and whether it is for going on alone, because it begins as no prompt would have it.

    Of five: two three-clip stories that start where a prompt would put the object, one of them tinted, a tinted one
    that starts anywhere, two of a single clip.
    """
    rng = np.random.default_rng(777_000 + index)
    story = world.sample_story(rng, clips=1 if index % 5 in (2, 4) else 3, anywhere=index % 5 == 1)
    return story, index % 5 in TINTED


def tinted(frames: np.ndarray, index: int) -> np.ndarray:
    """The frames of a story in colours a little off, throughout: what goes on is to keep the colours it was given, and
    not to go back to those that the world has."""
    rng = np.random.default_rng(333_000 + index)
    gain = 1 + rng.normal(0, 0.05) + rng.normal(0, 0.03, 3)
    offset = rng.normal(0, 4) + rng.normal(0, 4, 3)
    return (frames * gain + offset).clip(0, 255).round().astype(np.uint8)


def plain_window_of(index: int) -> tuple[world.Story, int]:
    """Window number `index` of plain weights: a story of two clips that starts anywhere, and the frame to cut it at.

    The look goes on in three of four; in the others something changes on the way, as it does in any film.
    """
    rng = np.random.default_rng(555_000 + index)
    story = world.sample_story(rng, clips=2 if index % 4 == 0 else 1, anywhere=True)
    if len(story.looks) == 1:
        story = replace(story, looks=story.looks * 2)
    return story, int(rng.integers(world.CLIP_FRAMES + 1))


TINTED = (1, 3)  # which of five stories
_vae: WanVae | None = None


def start_worker(weights: Path) -> None:
    """Each worker renders and encodes alone, on one thread: nothing waits for anything."""
    global _vae
    torch.set_num_threads(1)
    _vae = load_weights(make_vae(), weights).eval()


def job(index: int, plain: bool) -> tuple[np.ndarray, dict, np.ndarray]:
    """Latents [16, T, 10, 16] float16, facts and object centres of one story or plain window."""
    if plain:
        story, first = plain_window_of(index)
        shown = slice(first, first + world.FIRST_FRAMES)
        looks, anywhere = story.looks[2 * first > world.FIRST_FRAMES :][:1], True  # what most of the frames show
    else:
        story, anywhere = story_of(index)
        shown, looks = slice(None), story.looks
    frames = world.render(story)
    if anywhere and not plain:  # just these are for going on alone
        frames = tinted(frames, index)
    facts = {"index": index, "anywhere": anywhere, "looks": [asdict(look) for look in looks]}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=has_halves(torch.device("cpu"))):
        mean = encode(_vae, to_pixels(torch.from_numpy(frames[None, shown])).contiguous())[0]
    return mean[0].half().numpy(), facts, world.centres(story)[shown]


def statistics(latents: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all clips."""
    flat = torch.cat([z.float().flatten(1) for z in latents], dim=1)
    return flat.mean(1), flat.std(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--stories", type=int, default=20_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shipped", action="store_true", help="with the autoencoder in models/demo")
    parser.add_argument("--plain", action="store_true", help="windows of plain text-to-video weights")
    args = parser.parse_args()
    work = args.work or (PLAIN_WORK if args.plain else WORK)
    file = work / "latents.pt"
    data: dict = {"latents": [], "facts": [], "centres": []}
    if file.exists():
        data = torch.load(file, weights_only=True)
    done, begin = len(data["latents"]), time.monotonic()
    context = multiprocessing.get_context("spawn")
    shipped = args.plain or args.shipped
    vae = (MODEL if shipped else work) / "vae.safetensors"
    with context.Pool(args.workers, start_worker, (vae,)) as pool:
        make = partial(job, plain=args.plain)
        for latents, facts, centres in pool.imap(make, range(done, args.stories), chunksize=4):
            data["latents"].append(torch.from_numpy(latents))
            data["facts"].append(facts)
            data["centres"].append(torch.from_numpy(centres))
            minutes = (time.monotonic() - begin) / 60
            if len(data["latents"]) % 200 == 0:
                print(f"{len(data['latents'])} stories, minute {minutes:.1f}", flush=True)
            if minutes > args.minutes:
                break
        pool.terminate()
    if shipped:  # the exported autoencoder's latents are already as the official figures say
        row = VAES["wan2.1"]
        data["mean"], data["std"] = torch.tensor(row.latents_mean), torch.tensor(row.latents_std)
    elif "mean" not in data:  # fixed by the first run: a DiT may be training on them already
        data["mean"], data["std"] = statistics(data["latents"])
    assert data["mean"].shape == (Z_DIM,)
    save_atomically(data, file)
    print(len(data["latents"]), "stories; mean", data["mean"].tolist(), "std", data["std"].tolist(), flush=True)


if __name__ == "__main__":
    main()
