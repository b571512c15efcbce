#!/usr/bin/env python3
"""The same weights, the same machine, the same process: this project and diffusers, turn about.

    python bench/against_diffusers.py [--repeats N] [--threads N] [--out FILE.json]

Cases: a forward pass of the backbone (guidance's two prompts in one batch), an autoencoder decode of a window, and a
whole clip from prompt to frames.  Prints medians and ratios; writes them as JSON with machine and versions.
Run it on a quiet machine: other programs' threads slow both, but not evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "parity")]

import diffusers_twin
import torch
from deforum_helpers.model_files import inspect_model
from deforum_helpers.wan.loading import Parts, load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule

PROMPT = "a red balloon drifts to the right over the sea at sunset"
GUIDANCE, STEPS, SHIFT, LATENTS = 4.0, 14, 3.0, (16, 5, 10, 16)

Case = tuple[Callable[[], object], Callable[[], object]]


def cases(parts: Parts, info: Any) -> dict[str, Case]:
    """Name -> (ours, theirs), each doing the same work once."""
    dit, vae = parts.dits[0], parts.vae
    transformer, autoencoder = diffusers_twin.transformer(info), diffusers_twin.autoencoder(info)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *LATENTS, generator=generator)
    context = torch.randn(2, info.row.text_len, info.row.text_dim, generator=generator)
    timesteps, conditioning = torch.tensor([500.0, 500.0]), dit.condition(context)
    one = latents[:1]
    return {
        "dit forward": (
            lambda: dit(latents, timesteps, conditioning),
            lambda: transformer(latents, timesteps, context, return_dict=False),
        ),
        "vae decode": (lambda: list(vae.decode(one)), lambda: diffusers_twin.decode(autoencoder, one)),
        "vae encode": _encode_case(vae, autoencoder),
        "whole clip": (lambda: our_clip(parts), diffusers_clip(parts, transformer, autoencoder)),
    }


def _encode_case(vae: Any, autoencoder: Any) -> Case:
    video = torch.rand(1, 3, 17, 80, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return lambda: vae.encode(video), lambda: autoencoder.encode(video).latent_dist.mean


def our_clip(parts: Parts) -> torch.Tensor:
    """Prompt to frames, the prompt embedded afresh."""
    parts.text_encoder.cache = None
    dit = parts.dits[0]
    contexts = parts.text_encoder.encode([PROMPT, ""])
    prompts = Prompts(*(dit.condition(context[None]) for context in contexts))
    noise = torch.randn(1, *LATENTS, generator=torch.Generator().manual_seed(3))
    schedule = noise_schedule("unipc", STEPS, SHIFT)
    latents = sample(guided_model(dit, prompts, (GUIDANCE,), noise), noise, "unipc", schedule)
    return torch.cat(list(parts.vae.decode(latents)), dim=2)


def diffusers_clip(parts: Parts, transformer: Any, autoencoder: Any) -> Callable[[], object]:
    """The same with diffusers' WanPipeline: its own loop, scheduler and decode; text encoder and tokenizer shared."""
    from diffusers import UniPCMultistepScheduler, WanPipeline
    from transformers import AutoTokenizer

    parts.text_encoder.load()
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    pipeline = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(ROOT / "models" / "demo" / "tokenizer", local_files_only=True),
        text_encoder=parts.text_encoder._model, vae=autoencoder, scheduler=scheduler, transformer=transformer,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)

    def clip() -> object:
        return pipeline(
            PROMPT, negative_prompt="", height=80, width=128, num_frames=17, num_inference_steps=STEPS,
            guidance_scale=GUIDANCE, max_sequence_length=parts.variant.text_len, output_type="pt",
            generator=torch.Generator().manual_seed(3),
        )  # fmt: skip

    return clip


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Alternate the two; medians of wall and processor seconds."""
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, run in enumerate(case):
            started, used = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first turn warms up
                wall[side].append(time.perf_counter() - started)
                cpu[side].append(time.process_time() - used)
    ours, theirs = (statistics.median(times) for times in wall)
    ours_cpu, theirs_cpu = (statistics.median(times) for times in cpu)
    return {
        "ours_seconds": ours, "diffusers_seconds": theirs, "ratio": theirs / ours,
        "ours_cpu_seconds": ours_cpu, "diffusers_cpu_seconds": theirs_cpu, "cpu_ratio": theirs_cpu / ours_cpu,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0 = torch's own choice")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "cpu_demo.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    import diffusers
    import transformers

    info = inspect_model(ROOT / "models" / "demo").require()
    parts = load_parts(str(ROOT / "models" / "demo"), choose_machine("cpu"), lambda *_: None)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        "repeats": options.repeats,
        "cases": {},
    }  # fmt: skip
    print(f"{result['machine']}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    print(f"{'case':14s} {'ours':>10s} {'diffusers':>10s} {'ratio':>7s} {'cpu ratio':>10s}")
    with torch.inference_mode():
        for name, case in cases(parts, info).items():
            row = result["cases"][name] = measure(case, options.repeats)
            print(
                f"{name:14s} {row['ours_seconds'] * 1e3:8.1f}ms {row['diffusers_seconds'] * 1e3:8.1f}ms "
                f"{row['ratio']:6.2f}x {row['cpu_ratio']:9.2f}x"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
