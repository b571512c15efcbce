"""Cases of the bundled demo checkpoint, which is whole: besides every model's its text, its loading, its clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers_twin
import torch
from deforum_helpers.model_files import ModelInfo, inspect_model
from deforum_helpers.variants import VAES
from deforum_helpers.wan.loading import Parts, load_dit, load_parts, load_vae
from deforum_helpers.wan.machine import Machine
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule
from model_cases import Bench, Size
from timing import Case
from twins import Twins

DEMO = Path(__file__).resolve().parents[1] / "models" / "demo"
PROMPT = "a red balloon drifts to the right over the sea at sunset"
GUIDANCE, STEPS, SHIFT, LATENTS = 4.0, 14, 3.0, (16, 5, 10, 16)


def demo_cases(machine: Machine) -> list[Case]:
    """In the order of a render."""
    info = inspect_model(DEMO).require()
    parts = load_parts(str(DEMO), machine, lambda *_: None)
    parts.text_encoder.cache = None
    twins = Twins(
        parts.dits[0], diffusers_twin.transformer_of(info.row, parts.dits[0].state_dict(), machine),
        parts.vae, diffusers_twin.autoencoder_of(VAES["wan2.1"], info.row.vae_dim, parts.vae.state_dict(), machine),
    )  # fmt: skip
    bench = Bench("demo", info.row, machine, twins, Size(LATENTS[1:], LATENTS[1:]))
    pipeline = _pipeline(parts, twins)
    return [
        _load(info, machine),
        _text(parts, pipeline),
        *bench.cases(),
        Case(
            "demo whole clip", lambda: our_clip(parts), lambda: diffusers_clip(parts, pipeline),
            f"prompt to frames, 128x80x17, {STEPS} steps",
        ),
    ]  # fmt: skip


def _load(info: ModelInfo, machine: Machine) -> Case:
    """Alone: diffusers' loader of this model wants a package that the environment doesn't have."""

    def ours() -> None:
        load_dit(info.parts["dit"], info.row, machine)
        load_vae(info.parts["vae"], info.row, machine)

    return Case("demo load", ours, None, "backbone and autoencoder, the files in the page cache")


def _text(parts: Parts, pipeline: Any) -> Case:
    def theirs() -> object:
        return pipeline.encode_prompt(PROMPT, "", True, max_sequence_length=parts.variant.text_len)

    return Case("demo text encoder", lambda: parts.text_encoder.encode([PROMPT, ""]), theirs, "prompt and negative")


def our_clip(parts: Parts) -> torch.Tensor:
    """Prompt to frames, the prompt embedded afresh."""
    dit, device = parts.dits[0], parts.machine.device
    contexts = parts.text_encoder.encode([PROMPT, ""])
    prompts = Prompts(*(dit.condition(context[None]) for context in contexts))
    noise = torch.randn(1, *LATENTS, generator=torch.Generator(device).manual_seed(3), device=device)
    schedule = noise_schedule("unipc", STEPS, SHIFT)
    latents = sample(guided_model(dit, prompts, (GUIDANCE,), noise), noise, "unipc", schedule)
    return torch.cat(list(parts.vae.decode(latents)), dim=2)


def _pipeline(parts: Parts, twins: Twins) -> Any:
    """diffusers' WanPipeline: its own loop, scheduler and decode; text encoder and tokenizer shared."""
    from diffusers import UniPCMultistepScheduler, WanPipeline
    from transformers import AutoTokenizer

    parts.text_encoder.load()
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    pipeline = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(DEMO / "tokenizer", local_files_only=True),
        text_encoder=parts.text_encoder._model, vae=twins.their_vae, scheduler=scheduler, transformer=twins.their_dit,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def diffusers_clip(parts: Parts, pipeline: Any) -> object:
    """The same clip by diffusers."""
    return pipeline(
        PROMPT, negative_prompt="", height=80, width=128, num_frames=17, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, max_sequence_length=parts.variant.text_len, output_type="pt",
        generator=torch.Generator(parts.machine.device).manual_seed(3),
    )  # fmt: skip
