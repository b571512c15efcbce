#!/usr/bin/env python3
"""What each opt-in saves and what it changes, on the bundled demo: the same clips with it and without.

    python bench/options.py [--pictures FOLDER]     # about 3 minutes on two cores

Per option: seconds of sampling against the plain way's, alternating, medians; how far the latents are from the plain
ones (relative L2) and the pictures (PSNR in dB); bytes of the backbone's weights.  Writes bench/results/options.json;
--pictures puts one sheet per option there, plain above, with the option below.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has them
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "parity")]

import numpy as np
import torch
from against_diffusers import facts
from deforum_helpers.wan.clip_files import to_pixels
from deforum_helpers.wan.loading import LoadOptions, Parts, load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule
from PIL import Image
from torch import Tensor

DEMO = str(ROOT / "models" / "demo")
PROMPTS = (
    "a red balloon drifts to the right over the sea at sunset",
    "a blue car drives to the left through the desert at night",
    "a green ball bounces on a meadow during the day",
)
SHIFT, GUIDANCE, LATENTS = 3.0, 4.0, (16, 5, 10, 16)


@dataclasses.dataclass(frozen=True)
class Option:
    """One way of rendering.  solver, steps: of this comparison's both sides."""

    name: str
    load: LoadOptions = dataclasses.field(default_factory=LoadOptions)
    step_cache: float = 0.0
    guidance_mode: str = "cfg"
    solver: str = "unipc"
    steps: int = 14


OPTIONS = (
    Option("step_cache 0.06, 40 steps", step_cache=0.06, steps=40),
    Option("step_cache 0.1, 40 steps", step_cache=0.1, steps=40),
    Option("step_cache 0.2, 40 steps", step_cache=0.2, steps=40),
    Option("step_cache 0.15, 14 steps", step_cache=0.15),
    Option("guidance_mode cfg-zero", guidance_mode="cfg-zero"),
    Option("weights_dtype fp8", load=LoadOptions(weights_dtype="fp8")),
    Option("compile", load=LoadOptions(compile=True)),
)


class Side:
    """A loaded model and a way of sampling with it."""

    def __init__(self, parts: Parts, contexts: list[Tensor], option: Option) -> None:
        self.parts, self.option, self.asked = parts, option, 0
        dit = parts.dits[0]
        self.prompts = [Prompts(*(dit.condition(context[None]) for context in pair)) for pair in contexts]

    def latents(self, index: int) -> Tensor:
        """Clip `index`, sampled."""
        option = self.option
        noise = torch.randn(1, *LATENTS, generator=torch.Generator().manual_seed(index))
        schedule = noise_schedule(option.solver, option.steps, SHIFT)

        def backbone(*arguments: Any) -> Tensor:
            self.asked += 1
            return self.parts.dits[0](*arguments)

        model = guided_model(backbone, self.prompts[index], (GUIDANCE,), noise, option.guidance_mode)
        return sample(model, noise, option.solver, schedule, step_cache=option.step_cache)

    def pictures(self, latents: Tensor) -> np.ndarray:
        return to_pixels(torch.cat(list(self.parts.vae.decode(latents)), dim=2))

    @property
    def weight_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parts.dits[0].parameters())


def compare(option: Option, plain: Parts, contexts: list[Tensor], repeats: int, folder: Path | None) -> dict[str, Any]:
    """One option against the plain way with the same solver and steps."""
    same = option.load == LoadOptions()
    parts = plain if same else load_parts(DEMO, plain.machine, lambda *_: None, option.load)
    sides = (
        Side(plain, contexts, Option("plain", solver=option.solver, steps=option.steps)),
        Side(parts, contexts, option),
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    made: list[list[Tensor]] = [[], []]
    for turn in range(repeats + 1):
        for which, side in enumerate(sides):
            started = time.process_time()
            result = [side.latents(index) for index in range(len(contexts))]
            if turn:
                seconds[which].append(time.process_time() - started)
            made[which] = result
    pictures = [[side.pictures(x) for x in latents] for side, latents in zip(sides, made, strict=True)]
    if folder:
        save_sheet(folder / (option.name.replace(" ", "_").replace(",", "") + ".png"), pictures)
    pairs = list(zip(*made, strict=True))
    return {
        "plain_cpu_seconds": statistics.median(seconds[0]), "option_cpu_seconds": statistics.median(seconds[1]),
        "speed": statistics.median(seconds[0]) / statistics.median(seconds[1]),
        "passes": round(sides[1].asked / sides[0].asked, 3),
        "latents_relative_l2": statistics.mean(float((b - a).norm() / a.norm()) for a, b in pairs),
        "psnr_db": statistics.mean(psnr(a, b) for a, b in zip(*pictures, strict=True)),
        "weights": round(sides[1].weight_bytes / sides[0].weight_bytes, 3),
    }  # fmt: skip


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of uint8 pictures; 99 stands for equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else min(99.0, 10 * math.log10(255**2 / error))


def save_sheet(path: Path, pictures: list[list[np.ndarray]]) -> None:
    """First, middle and last frame of every clip in a row: plain above, with the option below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        np.concatenate([frames[i] for frames in clips for i in (0, len(frames) // 2, -1)], axis=1) for clips in pictures
    ]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "options.json")
    options = parser.parse_args()
    machine = choose_machine("cpu")
    plain = load_parts(DEMO, machine, lambda *_: None)
    plain.text_encoder.cache = None
    result: dict[str, Any] = {**facts(machine, options.repeats, 0.0), "options": {}}
    with torch.inference_mode():
        contexts = [plain.text_encoder.encode([prompt, ""]) for prompt in PROMPTS]
        for option in OPTIONS:
            row = compare(option, plain, contexts, options.repeats, options.pictures)
            result["options"][option.name] = row
            say(
                f"{option.name:28s} {row['speed']:5.2f}x, {row['passes']:.0%} of the passes, latents "
                f"{row['latents_relative_l2']:.4f} off, {row['psnr_db']:.1f} dB, weights {row['weights']:.0%}"
            )
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
