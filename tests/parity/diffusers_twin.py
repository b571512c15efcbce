"""The same model in diffusers: a second witness for the numbers, and what benchmarks compare with.

Weights go over by the mapping beside the manifests; nothing of ours but the file reader is involved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from deforum_helpers.model_files import ModelInfo
from deforum_helpers.variants import VAES, VaeVariant, Variant
from deforum_helpers.wan.machine import Machine
from deforum_helpers.wan.weights import load_state
from torch import Tensor

MAPPING = json.loads((Path(__file__).resolve().parent / "manifests" / "name_mapping.json").read_text(encoding="utf-8"))


def renamed(state: Mapping[str, Tensor], table: dict[str, str]) -> dict[str, Tensor]:
    """Official names -> diffusers names; {i} in the table is any block, {p} is weight or bias."""
    out = {}
    patterns = [(re.compile(_pattern(ours)), theirs) for ours, theirs in table.items()]
    for name, tensor in state.items():
        matched = next(((m, theirs) for pattern, theirs in patterns if (m := pattern.fullmatch(name))), None)
        if matched is None:
            raise KeyError(name)
        out[matched[1].format(**matched[0].groupdict())] = tensor
    return out


def _pattern(name: str) -> str:
    escaped = re.escape(name)
    return escaped.replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{p\}", "(?P<p>weight|bias)")


def transformer(info: ModelInfo):
    """diffusers' WanTransformer3DModel with a model's backbone, float32."""
    return transformer_of(info.row, dict(load_state(info.parts["dit"], "cpu", torch.float32)))


def transformer_of(row: Variant, state: Mapping[str, Tensor], machine: Machine | None = None):
    """diffusers' backbone with these weights (official names), on their device.

    machine: where the work is to be done; what diffusers keeps in float32 whatever the rest is in becomes that.
    """
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=row.num_heads, attention_head_dim=row.head_dim, in_channels=row.in_dim,
            out_channels=row.out_dim, text_dim=row.text_dim, freq_dim=row.freq_dim, ffn_dim=row.ffn_dim,
            num_layers=row.num_layers,
        )  # fmt: skip
    named = renamed(state, MAPPING["dit"])
    if machine is not None:
        full = tuple(WanTransformer3DModel._keep_in_fp32_modules)
        named = {
            name: value.to(torch.float32 if any(part in name for part in full) else machine.dtype)
            for name, value in named.items()
        }
    model.load_state_dict(named, strict=True, assign=True)
    # Rotary tables are made in the constructor, which on the meta device makes nothing.
    model.rope = type(model.rope)(row.head_dim, (1, 2, 2), 1024).to(next(iter(named.values())).device)
    return model.eval().requires_grad_(False)


def autoencoder(info: ModelInfo):
    """diffusers' AutoencoderKLWan with a model's 2.1 autoencoder, float32."""
    part = info.parts["vae"]
    return autoencoder_of(VAES["wan2.1"], part.sizes["dim"], dict(load_state(part, "cpu", torch.float32)))


def autoencoder_of(row: VaeVariant, dim: int, state: Mapping[str, Tensor], machine: Machine | None = None):
    """diffusers' 2.1 autoencoder with these weights (official names); float32 unless a machine says otherwise."""
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan(base_dim=dim, latents_mean=list(row.latents_mean), latents_std=list(row.latents_std))
    if machine is not None:
        model = model.to(machine.device, machine.dtype)
    model.load_state_dict(renamed(state, MAPPING["vae_2.1"]), strict=True)
    return model.eval().requires_grad_(False)


def decode(vae, latents: Tensor) -> Tensor:
    """Normalised latents -> pixels, as diffusers' pipeline does it."""
    mean, std = (
        torch.tensor(v, device=latents.device).view(1, -1, 1, 1, 1)
        for v in (vae.config.latents_mean, vae.config.latents_std)
    )
    return vae.decode((latents * std + mean).to(vae.dtype), return_dict=False)[0]
