"""Measure the bundled demo checkpoint and draw its contact sheets.  `python demo/evaluate.py` (about 4 minutes)

Writes docs/demo/*.png, demo.gif and results.json. Needs the judge (`python demo/classify.py`). Everything is rendered
by the project's own classes from models/demo as it lies there, at the settings of a job: Euler, 14 steps, shift 3,
guidance 4, negative prompt "".
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pictures
import torch
import world
from captions import caption
from classify import Judge, hit_rates, load_judge
from common import MODEL, ROOT, WINDOW, WORK, load_weights, make_dit, make_vae
from deforum_helpers.variants import VAES
from deforum_helpers.wan.pinning import Pin
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule
from deforum_helpers.wan.vae import StreamState
from safetensors.torch import load_file
from text_model import context_of, load_official, load_tokenizer, make_text_encoder
from torch import Tensor
from train_vae import held_out
from world import Look

STEPS, GUIDANCE, SHIFT, PREFIX = 14, 4.0, 3.0, 2
BATCH = 16
BARS = {"prompts": 0.95, "third_clip": 0.85, "free": 0.80}


class Demo:
    """The checkpoint, loaded as float32."""

    def __init__(self, folder: Path) -> None:
        self.dit = load_weights(make_dit(), folder / "diffusion_pytorch_model.safetensors").eval()
        self.vae = load_weights(make_vae(), folder / "vae.safetensors").eval()
        self.vae.latents_mean, self.vae.latents_std = VAES["wan2.1"].latents_mean, VAES["wan2.1"].latents_std
        self.text = load_official(make_text_encoder(), load_file(folder / "text_encoder.safetensors")).eval()
        self.tokenizer = load_tokenizer(folder / "tokenizer")

    @torch.inference_mode()
    def latents(self, prompts: list[str], seed: int, before: Tensor | None = None) -> Tensor:
        """Windows [B, 16, 5, 10, 16], pinned to `before` [B, 16, n, 10, 16] where it is given."""
        out = []
        for start in range(0, len(prompts), BATCH):
            part = prompts[start : start + BATCH]
            noise = torch.randn(len(part), 16, WINDOW, 10, 16, generator=torch.Generator().manual_seed(seed + start))
            conditions = [
                self.dit.condition(context_of(self.text, self.tokenizer, texts)) for texts in (part, [""] * len(part))
            ]
            pin = None if before is None else Pin(before[start : start + BATCH], noise_share=None)
            schedule = noise_schedule("euler", STEPS, SHIFT)
            model = guided_model(self.dit, Prompts(*conditions), (GUIDANCE,), noise)
            out.append(sample(model, noise, "euler", schedule, pin=pin))
        return torch.cat(out)

    @torch.inference_mode()
    def frames(self, latents: Tensor) -> Tensor:
        """Decode whole streams: uint8 [B, F, 80, 128, 3]."""
        out = []
        for stream in latents:
            state = StreamState()
            video = torch.cat(list(self.vae.decode(stream[None], state)), dim=2)[0]
            out.append(((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0))
        return torch.stack(out)

    @torch.inference_mode()
    def encode(self, clips: Tensor) -> Tensor:
        """uint8 [B, F, 80, 128, 3] -> normalised latents."""
        pixels = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return torch.cat([self.vae.encode(clip[None]) for clip in pixels])

    def chain(self, schedules: list[list[str]], seed: int) -> Tensor:
        """Clips that continue each other from their latents; schedules[k] are the prompts of chain k."""
        stream = self.latents([prompts[0] for prompts in schedules], seed)
        for clip in range(1, len(schedules[0])):
            prompts = [prompts[clip] for prompts in schedules]
            window = self.latents(prompts, seed + 1000 * clip, stream[:, :, -PREFIX:])
            stream = torch.cat([stream, window[:, :, PREFIX:]], dim=2)
        return self.frames(stream)


def text_to_video(demo: Demo, judge: Judge, count: int = 64) -> tuple[dict, Tensor, list[str]]:
    """Held-out prompts of the training grammar, with the shuffled-label control and the rates by object."""
    rng = np.random.default_rng(424_242)
    looks = [world.sample_look(rng) for _ in range(count)]
    prompts = [caption(look, rng, drop=0) for look in looks]
    clips = demo.frames(demo.latents(prompts, seed=100))
    by_object = {}
    for kind in world.OBJECTS:
        chosen = [k for k, look in enumerate(looks) if look.object == kind]
        by_object[kind] = {"clips": len(chosen), **hit_rates(judge, clips[chosen], [looks[k] for k in chosen])}
    control = hit_rates(judge, clips, looks[7:] + looks[:7])
    return {"rates": hit_rates(judge, clips, looks), "shuffled_labels": control, "by_object": by_object}, clips, prompts


def chains(demo: Demo, judge: Judge, count: int = 32) -> tuple[dict, Tensor, list[list[str]]]:
    """Chains of three clips; the third one's end is judged. The same stories, truly rendered, as the ceiling."""
    rng = np.random.default_rng(515_151)
    stories = [world.sample_story(rng, clips=3) for _ in range(count)]
    schedules = [[caption(look, rng, drop=0) for look in story.looks] for story in stories]
    videos = demo.chain(schedules, seed=300)
    truth = torch.from_numpy(np.stack([world.render(story) for story in stories]))
    result = {}
    for clip, name in ((1, "second"), (2, "third")):
        start = world.join_frame(clip) - 1
        part = slice(start, start + world.CLIP_FRAMES + 1)
        looks = [story.looks[clip] for story in stories]
        result[f"{name}_clip"] = hit_rates(judge, videos[:, part], looks, end_only=True)
        result[f"{name}_clip_true_renders"] = hit_rates(judge, truth[:, part], looks, end_only=True)
    steps = (videos[:, 1:].float() - videos[:, :-1].float()).abs().mean((2, 3, 4))
    joins = [world.join_frame(clip) - 1 for clip in (1, 2)]
    result["mean_change_at_joins"] = round(steps[:, joins].mean().item(), 3)
    result["mean_change_elsewhere"] = round(np.delete(steps.numpy(), joins, axis=1).mean().item(), 3)
    return result, videos, schedules


def free_wording(demo: Demo, judge: Judge) -> tuple[dict, Tensor, list[str]]:
    """Prompts written by hand, with words and shapes that the grammar doesn't have."""
    rows = json.loads((Path(__file__).parent / "free_prompts.json").read_text(encoding="utf-8"))
    looks = [Look(*row[1:]) for row in rows]
    clips = demo.frames(demo.latents([row[0] for row in rows], seed=500))
    return {"prompts": len(rows), "rates": hit_rates(judge, clips, looks)}, clips, [row[0] for row in rows]


def image_to_video(demo: Demo, judge: Judge, count: int = 32) -> tuple[dict, Tensor, list[str]]:
    """A true first frame of a story that starts anywhere, and its caption."""
    rng = np.random.default_rng(616_161)
    stories = [world.sample_story(rng, anywhere=True) for _ in range(count)]
    looks = [story.looks[0] for story in stories]
    prompts = [caption(look, rng, drop=0) for look in looks]
    truth = torch.from_numpy(np.stack([world.render(story) for story in stories]))
    clips = demo.frames(demo.latents(prompts, 700, demo.encode(truth[:, :1])))
    error = (clips[:, 0].float() - truth[:, 0].float()).square().mean((1, 2, 3)) / 255**2
    decibels = -10 * torch.log10(error)
    result = {"rates": hit_rates(judge, clips, looks), "true_renders": hit_rates(judge, truth, looks),
              "first_frame_db": round(decibels.mean().item(), 2)}  # fmt: skip
    return result, clips, prompts


def vae_quality(demo: Demo, count: int = 32) -> dict[str, float]:
    """Decibels on held-out clips, and how near to unit the official normalisation makes their latents."""
    clips = held_out(count)
    latents = demo.encode(clips)
    error = (demo.frames(latents).float() - clips.float()).square().mean((1, 2, 3, 4)) / 255**2
    decibels = -10 * torch.log10(error)
    return {"mean_db": round(decibels.mean().item(), 2), "worst_db": round(decibels.min().item(), 2),
            "latents_mean": round(latents.mean().item(), 3), "latents_std": round(latents.std().item(), 3)}  # fmt: skip


def judge_quality(judge: Judge) -> dict[str, float]:
    rng = np.random.default_rng(717_171)
    stories = [world.sample_story(rng) for _ in range(200)]
    clips = torch.from_numpy(np.stack([world.render(story) for story in stories]))
    return hit_rates(judge, clips, [story.looks[0] for story in stories])


def verdict(result: dict) -> dict[str, bool]:
    bars = {
        f"64 held-out prompts >= {BARS['prompts']}": min(result["held_out_prompts"]["rates"].values())
        >= BARS["prompts"],
        f"third clip >= {BARS['third_clip']}": min(result["chains"]["third_clip"].values()) >= BARS["third_clip"],
        f"free wording >= {BARS['free']}": min(result["free_wording"]["rates"].values()) >= BARS["free"],
        "VAE >= 32 dB": result["vae"]["mean_db"] >= 32,
        "size <= 12 MB": result["megabytes"] <= 12,
    }
    return {name: bool(passed) for name, passed in bars.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "demo")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    demo, judge, begin = Demo(args.model), load_judge(args.work), time.monotonic()
    result: dict = {"judge_on_true_renders": judge_quality(judge), "vae": vae_quality(demo)}
    size = sum(file.stat().st_size for file in args.model.rglob("*") if file.is_file())
    result["megabytes"] = round(size / 1e6, 2)
    result["held_out_prompts"], clips, prompts = text_to_video(demo, judge)
    pictures.sheet(clips[:16], prompts[:16], args.out / "prompts.png")
    result["chains"], videos, schedules = chains(demo, judge)
    pictures.sheet(videos[:10], [" / ".join(p) for p in schedules[:10]], args.out / "chains.png", count=9)
    result["free_wording"], clips, prompts = free_wording(demo, judge)
    pictures.sheet(clips[:16], prompts[:16], args.out / "free_wording.png")
    result["image_to_video"], clips, prompts = image_to_video(demo, judge)
    pictures.sheet(clips[:10], prompts[:10], args.out / "image_to_video.png")
    pictures.animation(demo.chain(pictures.SHOWN, seed=31), args.out / "demo.gif")
    result["bars"] = verdict(result)
    result["seconds"] = round(time.monotonic() - begin)
    (args.out / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
