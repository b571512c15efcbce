"""The same weights in this project's modules and in diffusers': the demo's from its files, the large ones' random.

Random weights keep each layer's output near the size of its input, so that no number overflows and nothing is faster
than with real ones.  Both sides hold the very same tensors wherever both want the same dtype: a 14B backbone is in
memory once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import diffusers_twin
import torch
from deforum_helpers.variants import VAES, Variant
from deforum_helpers.wan.attention import pick_attention
from deforum_helpers.wan.dit import WanFlowMatchingModel, WanSelfAttention
from deforum_helpers.wan.loading import dit_config, dit_dtype, vae_dtype
from deforum_helpers.wan.machine import Machine
from deforum_helpers.wan.vae import VaeConfig, WanVae
from torch import nn


@dataclass(frozen=True)
class Twins:
    """Two of everything.  theirs are diffusers' modules."""

    dit: WanFlowMatchingModel
    their_dit: Any
    vae: WanVae
    their_vae: Any


def random_twins(variant: Variant, machine: Machine) -> Twins:
    """A variant's backbone and autoencoder with random weights, made on the device."""
    dit = _filled(lambda: WanFlowMatchingModel(dit_config(variant)), machine.device, dit_dtype(machine.dtype))
    attention = pick_attention(machine.device, machine.dtype, variant.head_dim)
    for module in dit.modules():
        if isinstance(module, WanSelfAttention):
            module.attend = attention.run
    row = VAES[variant.vae]
    config = VaeConfig(dim=row.dim, dec_dim=row.decoder_dim, z_dim=row.z_dim)

    def build() -> WanVae:
        return WanVae(config, row.latents_mean, row.latents_std)

    vae = _filled(build, machine.device, vae_dtype(machine.dtype))
    return Twins(
        dit, diffusers_twin.transformer_of(variant, dit.state_dict(), machine),
        vae, diffusers_twin.autoencoder_of(row, row.dim, vae.state_dict(), machine),
    )  # fmt: skip


def _filled(build: Any, device: torch.device, dtype: Any) -> Any:
    with torch.device("meta"):
        module = build()
    state = {}
    generator = torch.Generator(device).manual_seed(0)
    for name, value in module.state_dict().items():
        state[name] = _random(name, value.shape, generator, device).to(dtype(name))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _random(name: str, shape: torch.Size, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    if name.endswith(("gamma",)) or ("norm" in name and name.endswith("weight")):
        return torch.ones(shape, device=device)
    if name.endswith("bias"):
        return torch.zeros(shape, device=device)
    spread = 1 / math.sqrt(math.prod(shape[1:]) or 1)
    return torch.randn(shape, generator=generator, device=device) * spread


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
