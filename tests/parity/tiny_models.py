"""Models of every kind that are small enough for a test: the demo's autoencoder and text encoder, and a backbone that
was never trained.  What such a model makes is noise, but it is told and it starts as the real ones are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from deforum_helpers.checkpoints import ModelInfo, inspect_model
from deforum_helpers.hashing import sha256_of
from deforum_helpers.protocol import ClipDone, ClipRequest, Decoding, Event, Step
from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.image_encoder import ImageEncoder, ImageEncoderConfig
from deforum_helpers.wan.loading import Parts, load_parts
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
_IMAGE_DIM = 32


def tiny_model(name: str) -> ModelInfo:
    """What a render is told of it: the published row's, so that it is planned for as the real one is."""
    return replace(inspect_model(DEMO), variant=name)


def tiny_parts(name: str) -> Parts:
    """The parts of a model of that row's kind, random where the demo has none."""
    demo, row = load_parts(str(DEMO), choose_machine("cpu"), lambda *_: None), VARIANTS[name]
    torch.manual_seed(3)
    dit = WanFlowMatchingModel(DitConfig(
        dim=48, ffn_dim=96, num_heads=2, num_layers=2, in_dim=row.in_dim, out_dim=row.out_dim, text_dim=96, text_len=64,
        image_dim=_IMAGE_DIM if row.image_tokens else 0, first_last=row.image_pos_emb,
        vace_layers=(0, 1) if row.vace_layers else (), vace_in_dim=row.vace_in_dim or 96,
    ))  # fmt: skip
    for weights in dit.parameters():  # some start at zero, and would hide what they are given
        torch.nn.init.normal_(weights, std=0.05)
    encoder = None
    if row.image_tokens:
        encoder = ImageEncoder(ImageEncoderConfig(dim=_IMAGE_DIM, num_heads=2, num_layers=2)).eval()
    return replace(demo, variant=row, dits=(dit.eval().requires_grad_(False),), image_encoder=encoder)


class TinyRenderer:
    """A worker in this process.  requests: what it was asked for; stop: called at each step and decoded chunk."""

    def __init__(self, parts: Parts, stop: Callable[[ClipRequest, str], None] = lambda request, phase: None) -> None:
        self.pipeline, self.stop = WanFlowMatchingPipeline(parts), stop
        self.requests: list[ClipRequest] = []

    def run(
        self, request: ClipRequest, on_event: Callable[[Event], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> ClipDone:  # fmt: skip
        tell = on_event or (lambda event: None)
        self.requests.append(request)

        def on_step(step: int, sigma: float, clean: torch.Tensor) -> None:
            self.stop(request, "sampling")
            tell(Step(request.id, step + 1, request.num_inference_steps, sigma, 0.01))

        def on_decode(latents: int) -> None:
            self.stop(request, "decoding")
            tell(Decoding(request.id, latents, request.new_latents))

        clip = self.pipeline.render(request, on_step, on_decode)
        hashes = (sha256_of(Path(file)) for file in (request.latents_file, request.frames_file))
        return ClipDone(request.id, clip.frames, *hashes, clip.seconds)

    def close(self) -> None:
        pass
