"""The same model in diffusers: a second witness for the numbers, and what benchmarks compare with.

Weights go over by the mapping beside the manifests; nothing of ours but the file reader is involved.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from deforum_helpers.model_files import ModelInfo
from deforum_helpers.variants import VAES
from deforum_helpers.wan.weights import load_state
from torch import Tensor

MAPPING = json.loads((Path(__file__).resolve().parent / "manifests" / "name_mapping.json").read_text(encoding="utf-8"))


def renamed(state: dict[str, Tensor], table: dict[str, str]) -> dict[str, Tensor]:
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
    from diffusers import WanTransformer3DModel

    row = info.row
    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=row.num_heads, attention_head_dim=row.head_dim, in_channels=row.in_dim,
            out_channels=row.out_dim, text_dim=row.text_dim, freq_dim=row.freq_dim, ffn_dim=row.ffn_dim,
            num_layers=row.num_layers,
        )  # fmt: skip
    state = renamed(dict(load_state(info.parts["dit"], "cpu", torch.float32)), MAPPING["dit"])
    model.load_state_dict(state, strict=True, assign=True)
    # Rotary tables are made in the constructor, which on the meta device makes nothing.
    model.rope = type(model.rope)(row.head_dim, (1, 2, 2), 1024)
    return model.eval().requires_grad_(False)


def autoencoder(info: ModelInfo):
    """diffusers' AutoencoderKLWan with a model's 2.1 autoencoder, float32."""
    from diffusers import AutoencoderKLWan

    part, row = info.parts["vae"], VAES["wan2.1"]
    model = AutoencoderKLWan(
        base_dim=part.sizes["dim"], latents_mean=list(row.latents_mean), latents_std=list(row.latents_std)
    )
    model.load_state_dict(renamed(dict(load_state(part, "cpu", torch.float32)), MAPPING["vae_2.1"]), strict=True)
    return model.eval().requires_grad_(False)


def decode(vae, latents: Tensor) -> Tensor:
    """Normalised latents -> pixels, as diffusers' pipeline does it."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    return vae.decode(latents * std + mean, return_dict=False)[0]
