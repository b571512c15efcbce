"""An autoencoder that goes tile by tile must make what the whole one makes."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.model_files import inspect_model
from deforum_helpers.wan import vae_tiles
from deforum_helpers.wan.loading import load_vae
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.vae import StreamState, VaeConfig, WanVae

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def vae() -> WanVae:
    info = inspect_model(DEMO)
    return load_vae(info.parts["vae"], info.row, choose_machine("cpu"))


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(1, 16, 4, 11, 40, generator=torch.Generator().manual_seed(0))


def decoded(vae: WanVae, latents: torch.Tensor, tile: int) -> torch.Tensor:
    """In two goes of a stream, with chunks of one and of two latents."""
    vae.tile, state = tile, StreamState()
    try:
        with torch.inference_mode():
            parts = [*vae.decode(latents[:, :, :2], state, 1), *vae.decode(latents[:, :, 2:], state, 2)]
        return torch.cat(parts, dim=2)
    finally:
        vae.tile = 0


def test_tiles_decode_as_the_whole(vae: WanVae, latents: torch.Tensor) -> None:
    difference = (decoded(vae, latents, 14) - decoded(vae, latents, 0)).abs().max()
    assert difference < 3e-5  # a step of 8-bit colour is 8e-3


def test_with_the_full_halo_not_a_bit_differs(vae: WanVae, latents: torch.Tensor, monkeypatch) -> None:
    spans = vae_tiles.spans
    monkeypatch.setattr(vae_tiles, "spans", lambda size, core: spans(size, core, 13))
    assert torch.allclose(decoded(vae, latents, 14), decoded(vae, latents, 0), atol=1e-6, rtol=0)


def test_without_a_halo_a_seam_would_show(vae: WanVae, latents: torch.Tensor, monkeypatch) -> None:
    spans = vae_tiles.spans
    monkeypatch.setattr(vae_tiles, "spans", lambda size, core: spans(size, core, 0))
    assert (decoded(vae, latents, 14) - decoded(vae, latents, 0)).abs().max() > 0.05


def test_tiles_encode_as_the_whole(vae: WanVae) -> None:
    video = torch.rand(1, 3, 9, 88, 320, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        whole = vae.encode(video, 4)
        vae.tile = 14
        try:
            tiled = vae.encode(video, 4)
        finally:
            vae.tile = 0
    assert (tiled - whole).abs().max() < 1e-5


def test_the_newer_autoencoder_goes_by_tiles_too() -> None:
    torch.manual_seed(0)
    config = VaeConfig(dim=8, dec_dim=8, z_dim=8, shortcuts=True, pixel_patch=2)
    vae = WanVae(config, (0.0,) * 8, (1.0,) * 8).eval().requires_grad_(False)
    latents = torch.randn(1, 8, 3, 6, 40)
    assert (decoded(vae, latents, 20) - decoded(vae, latents, 0)).abs().max() < 1e-3


@pytest.mark.parametrize("size", [1, 31, 32, 33, 60, 104])
def test_cores_cover_everything_once(size: int) -> None:
    spans = vae_tiles.spans(size, 32)
    assert [i for span in spans for i in range(span.core_start, span.core_end)] == list(range(size))
    assert all(span.core_end - span.core_start <= 32 for span in spans)
    assert all(span.core_start - span.start in (0, 8) or span.start == 0 for span in spans)
