"""Cases of one backbone and autoencoder at a size: a forward pass, a guided step, encode, decode, a short clip."""

from __future__ import annotations

from dataclasses import dataclass

import diffusers_twin
import torch
from deforum_helpers.variants import Variant
from deforum_helpers.wan.machine import Machine
from deforum_helpers.wan.sampling import Prompts, guided_model, sample
from deforum_helpers.wan.solvers import noise_schedule
from flops import dit_work
from timing import Case
from torch import Tensor
from twins import Twins

GUIDANCE, SHIFT = 5.0, 5.0


@dataclass(frozen=True)
class Size:
    """What the backbone and the autoencoder are measured at, as (latent frames, latent rows, latent columns).

    clip_steps: sampling steps of a whole clip at the backbone's size, 0 = not measured.
    """

    dit: tuple[int, int, int]
    vae: tuple[int, int, int]
    clip_steps: int = 0

    @staticmethod
    def video(width: int, height: int, frames: int, clip_steps: int = 0) -> Size:
        latents = ((frames - 1) // 4 + 1, height // 8, width // 8)
        return Size(latents, latents, clip_steps)


class Bench:
    """Twins at a size.  label: goes in front of each case's name."""

    def __init__(self, label: str, variant: Variant, machine: Machine, twins: Twins, size: Size) -> None:
        self.label, self.machine, self.twins, self.size = label, machine, twins, size
        self.work = dit_work(twins.dit.config, size.dit)
        generator = torch.Generator(machine.device).manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=machine.device)

        self.contexts = random(2, variant.text_len, variant.text_dim)
        self.latents = random(1, variant.out_dim, *size.dit)
        self.vae_latents = random(1, variant.out_dim, *size.vae)

    def cases(self) -> list[Case]:
        """In the order of a render."""
        frames, rows, columns = self.size.vae
        picture = f"{columns * 8}x{rows * 8}x{4 * (frames - 1) + 1}"
        found = [self._forward(), self._guided_step(), self._encode(picture), self._decode(picture)]
        return found + ([self._clip()] if self.size.clip_steps else [])

    def _forward(self) -> Case:
        dit, theirs = self.twins.dit, self.twins.their_dit
        t = torch.full((1,), 500.0, device=self.machine.device)
        conditioning, context = dit.condition(self.contexts[:1]), self.contexts[:1].to(self.machine.dtype)
        latents = self.latents.to(self.machine.dtype)
        f, h, w = self.size.dit
        return Case(
            f"{self.label} dit forward",
            lambda: dit(self.latents, t, conditioning),
            lambda: theirs(latents, t, context, return_dict=False),
            f"{f * h * w // 4} tokens, {dit.config.num_layers} blocks, {self.work.total / 1e12:.2f} TFLOP",
            self.work.total,
        )

    def _guided_step(self) -> Case:
        dit, theirs = self.twins.dit, self.twins.their_dit
        t = torch.full((1,), 500.0, device=self.machine.device)
        prompts = Prompts(*(dit.condition(context[None]) for context in self.contexts))
        model = guided_model(dit, prompts, (GUIDANCE,), self.latents)
        latents, contexts = self.latents.to(self.machine.dtype), self.contexts.to(self.machine.dtype)

        def two_passes() -> Tensor:  # as diffusers' pipeline does it
            positive = theirs(latents, t, contexts[:1], return_dict=False)[0]
            negative = theirs(latents, t, contexts[1:], return_dict=False)[0]
            return negative + GUIDANCE * (positive - negative)

        return Case(
            f"{self.label} guided step", lambda: model(self.latents, t), two_passes, "both prompts of one step",
            2 * self.work.total,
        )  # fmt: skip

    def _encode(self, picture: str) -> Case:
        vae, theirs = self.twins.vae, self.twins.their_vae
        frames, rows, columns = self.size.vae
        video = torch.rand(1, 3, 4 * (frames - 1) + 1, rows * 8, columns * 8, device=self.machine.device) * 2 - 1
        same = video.to(theirs.dtype)
        return Case(
            f"{self.label} vae encode",
            lambda: vae.encode(video), lambda: theirs.encode(same).latent_dist.mean,
            f"{picture}; ours in float32, as it always encodes" if theirs.dtype != torch.float32 else picture,
        )  # fmt: skip

    def _decode(self, picture: str) -> Case:
        vae, theirs, latents = self.twins.vae, self.twins.their_vae, self.vae_latents

        def ours() -> None:
            for _ in vae.decode(latents):
                pass

        return Case(f"{self.label} vae decode", ours, lambda: diffusers_twin.decode(theirs, latents), picture)

    def _clip(self) -> Case:
        """Noise to frames from given contexts, with a few steps: each further step is one more guided step."""
        twins, steps = self.twins, self.size.clip_steps

        def ours() -> None:
            prompts = Prompts(*(twins.dit.condition(context[None]) for context in self.contexts))
            schedule = noise_schedule("unipc", steps, SHIFT)
            model = guided_model(twins.dit, prompts, (GUIDANCE,), self.latents)
            for frames in twins.vae.decode(sample(model, self.latents, "unipc", schedule)):
                frames.cpu()

        return Case(f"{self.label} whole clip", ours, self._diffusers_clip(), f"{steps} steps, text given")

    def _diffusers_clip(self):
        from diffusers import UniPCMultistepScheduler, WanPipeline

        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
        pipeline = WanPipeline(
            tokenizer=None, text_encoder=None, vae=self.twins.their_vae, scheduler=scheduler,
            transformer=self.twins.their_dit,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        frames, rows, columns = self.size.dit
        contexts = self.contexts.to(self.machine.dtype)
        return lambda: pipeline(
            prompt_embeds=contexts[:1], negative_prompt_embeds=contexts[1:], height=rows * 8, width=columns * 8,
            num_frames=4 * (frames - 1) + 1, num_inference_steps=self.size.clip_steps, guidance_scale=GUIDANCE,
            output_type="pt", latents=self.latents,
        )  # fmt: skip
