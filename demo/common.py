"""What the training scripts share: where things lie, the three tiny models, the optimiser, atomic saving."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.vae import VaeConfig, WanVae
from deforum_helpers.wan.vae_layers import StreamState

WORK = ROOT / "outputs" / "demo_training"  # everything that training leaves; not in the repository
PLAIN_WORK = ROOT / "outputs" / "demo_plain"  # the same of the plain variant
DECODER_WORK = ROOT / "outputs" / "demo_decoder"  # and of the decoder trained on alone
MODEL = ROOT / "models" / "demo"
Z_DIM, TEXT_DIM, TEXT_LEN, VOCABULARY = 16, 96, 64, 2048
WINDOW = 5  # latents of a clip's window: 17 frames
UNIT = (tuple([0.0] * Z_DIM), tuple([1.0] * Z_DIM))  # while training, latents are normalised by the scripts


def make_vae() -> WanVae:
    return WanVae(VaeConfig(dim=8, dec_dim=8), *UNIT)


def make_dit() -> WanFlowMatchingModel:
    return WanFlowMatchingModel(
        DitConfig(dim=160, ffn_dim=480, num_heads=5, num_layers=5, text_dim=TEXT_DIM, text_len=TEXT_LEN)
    )


def encode(vae: WanVae, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 3, F, H, W] in [-1, 1], F = 4n+1 -> mean and log-variance [B, 16, n+1, H/8, W/8], in one chunk."""
    mean, log_variance = vae.moments(pixels, StreamState())
    return mean, log_variance.clamp(-30, 20)


def decode(vae: WanVae, latents: Tensor) -> Tensor:
    """Raw latents -> pixels [B, 3, F, H, W], not clamped, in one chunk."""
    state = StreamState()
    return vae.decoder(vae.conv2(latents, state), state)


def channels_last(model: nn.Module) -> nn.Module:
    """Lay convolution weights out as the CPU kernels like them."""
    for p in model.parameters():
        if p.ndim in (4, 5):
            layout = torch.channels_last if p.ndim == 4 else torch.channels_last_3d
            p.data = p.data.contiguous(memory_format=layout)
    return model


def to_pixels(clips: Tensor) -> Tensor:
    """uint8 [B, F, H, W, 3] -> float [B, 3, F, H, W] in [-1, 1]."""
    pixels = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    return pixels.contiguous(memory_format=torch.channels_last_3d)


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Strictly: a missing or unknown tensor is an error."""
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=True)
    return model


def save_atomically(data: object, path: Path) -> None:
    """A checkpoint is either the old one or the new one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(data, part)
    part.replace(path)


class Ema:
    """A running average of parameters; `swap` exchanges it with the live ones."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.live = list(parameters)
        self.average = [p.detach().clone() for p in self.live]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        for p, average in zip(self.live, self.average, strict=True):
            kept = p.detach().clone()
            p.copy_(average)  # not its .data: what layers have made of a weight is kept until they see it change
            average.copy_(kept)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by five Newton-Schulz steps; kernels are flattened to matrices.

    Same-shaped matrices go through it as one batch. The update's size is matched to Adam's (0.2 sqrt(longer side)).
    Source: Jordan et al., Muon (2024).
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.flatten(1).shape), []).append(p)
            for shape, same in by_shape.items():
                updates = orthogonalise(torch.stack([self._momentum(p) for p in same]))
                scale = -group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(same, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=scale)

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 0.05)
        return p.grad.lerp(state["momentum"], 0.95).flatten(1)


def has_halves(device: torch.device) -> bool:
    """Whether bfloat16 is fast there.  A processor that can't calculate in it takes up to twenty times as long."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def orthogonalise(x: Tensor) -> Tensor:
    """[N, r, c] -> nearly (semi-)orthogonal matrices with the same row and column spaces; bfloat16 is enough."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x.bfloat16() if has_halves(x.device) else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()
