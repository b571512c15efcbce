"""diffusers, given the bundled demo's weights, must see what we see."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers_twin
from deforum_helpers.model_files import inspect_model
from deforum_helpers.wan.loading import load_dit, load_vae
from deforum_helpers.wan.machine import choose_machine

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def info():
    return inspect_model(DEMO)


def test_backbone(info) -> None:
    ours, theirs = load_dit(info.parts["dit"], info.row, choose_machine("cpu")), diffusers_twin.transformer(info)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 16, 5, 10, 16, generator=generator)
    context = torch.randn(2, info.row.text_len, info.row.text_dim, generator=generator)
    timesteps = torch.tensor([1000.0, 437.5])
    with torch.inference_mode():
        got = ours(latents, timesteps, ours.condition(context))
        wanted = theirs(latents, timesteps, context, return_dict=False)[0]
    assert (got - wanted).abs().max() < 1e-4
    assert wanted.abs().max() > 0.1  # the comparison is between numbers, not between zeros


def test_autoencoder(info) -> None:
    ours, theirs = load_vae(info.parts["vae"], info.row, choose_machine("cpu")), diffusers_twin.autoencoder(info)
    latents = torch.randn(1, 16, 5, 10, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        got = torch.cat(list(ours.decode(latents)), dim=2)
        wanted = diffusers_twin.decode(theirs, latents).clamp(-1, 1)
    assert got.shape == wanted.shape == (1, 3, 17, 80, 128)
    assert (got - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.05
