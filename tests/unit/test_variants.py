"""The table of models against the official constants, kept here as plain numbers."""

from __future__ import annotations

import dataclasses

import pytest
from deforum_helpers.variants import DEMO, VAES, VARIANTS

# name: dim, ffn_dim, heads, layers, in, out, steps, shift, guidance, low-noise guidance, fps, frames
OFFICIAL = {
    "wan2.1-t2v-1.3B": (1536, 8960, 12, 30, 16, 16, 50, 5.0, 5.0, None, 16, 81),
    "wan2.1-t2v-14B": (5120, 13824, 40, 40, 16, 16, 50, 5.0, 5.0, None, 16, 81),
    "wan2.1-i2v-14B-480P": (5120, 13824, 40, 40, 36, 16, 40, 3.0, 5.0, None, 16, 81),
    "wan2.1-i2v-14B-720P": (5120, 13824, 40, 40, 36, 16, 40, 5.0, 5.0, None, 16, 81),
    "wan2.1-flf2v-14B": (5120, 13824, 40, 40, 36, 16, 50, 16.0, 5.0, None, 16, 81),
    "wan2.1-vace-1.3B": (1536, 8960, 12, 30, 16, 16, 50, 16.0, 5.0, None, 16, 81),
    "wan2.1-vace-14B": (5120, 13824, 40, 40, 16, 16, 50, 16.0, 5.0, None, 16, 81),
    "wan2.2-ti2v-5B": (3072, 14336, 24, 30, 48, 48, 50, 5.0, 5.0, None, 24, 121),
    "wan2.2-t2v-A14B": (5120, 13824, 40, 40, 16, 16, 40, 12.0, 4.0, 3.0, 16, 81),
    "wan2.2-i2v-A14B": (5120, 13824, 40, 40, 36, 16, 40, 5.0, 3.5, 3.5, 16, 81),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_row_is_the_official_one(name: str) -> None:
    row, d = VARIANTS[name], VARIANTS[name].defaults
    assert (
        row.dim, row.ffn_dim, row.num_heads, row.num_layers, row.in_dim, row.out_dim, d.num_inference_steps, d.shift,
        d.guidance_scale, d.low_noise_guidance_scale, row.native_fps, row.window_frames,
    ) == OFFICIAL[name]  # fmt: skip
    assert (row.text_dim, row.text_len, row.freq_dim, d.solver) == (4096, 512, 256, "unipc")
    assert row.head_dim == 128
    assert (d.width, d.height) in row.sizes


def test_every_row_is_listed_and_consistent() -> None:
    assert set(VARIANTS) == {*OFFICIAL, "wan2.1-fun-inp-1.3B", DEMO}
    for name, row in VARIANTS.items():
        assert row.name == name
        vae = VAES[row.vae]
        assert row.out_dim == vae.z_dim
        assert row.condition_channels in (0, 4 + vae.z_dim)
        assert row.dim % row.num_heads == 0 and row.head_dim % 2 == 0
        assert row.window_frames % 4 == 1 and row.min_frames % 4 == 1 and row.min_frames <= row.window_frames
        assert row.context_latents < (row.window_frames - 1) // 4 + 1
        assert row.size_multiple == 2 * vae.spatial_stride
        assert all(w % row.size_multiple == 0 and h % row.size_multiple == 0 for w, h in row.sizes)
        assert bool(row.experts) == bool(row.boundary) == (row.defaults.low_noise_guidance_scale is not None)
        assert all(layer < row.num_layers for layer in row.vace_layers)
        assert row.text_input or row.image_input
        assert dataclasses.replace(row) == row


def test_vace_layers_are_every_second_or_fifth_block() -> None:
    assert VARIANTS["wan2.1-vace-1.3B"].vace_layers == tuple(range(0, 30, 2))
    assert VARIANTS["wan2.1-vace-14B"].vace_layers == (0, 5, 10, 15, 20, 25, 30, 35)


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("wan2.1-t2v-1.3B", "色调艳丽，"),
        ("wan2.1-i2v-14B-480P", "镜头晃动，色调艳丽，"),
        ("wan2.1-flf2v-14B", "镜头切换，镜头晃动，色调艳丽，"),
        ("wan2.2-i2v-A14B", "色调艳丽，"),
    ],
)
def test_negative_prompt(name: str, opening: str) -> None:
    text = VARIANTS[name].defaults.negative_prompt
    assert text.startswith(opening)
    assert text.endswith("三条腿，背景人很多，倒着走")


def test_vae_rows_have_one_mean_and_std_per_channel() -> None:
    for vae in VAES.values():
        assert len(vae.latents_mean) == len(vae.latents_std) == vae.z_dim
        assert all(std > 0 for std in vae.latents_std)
    # Sums of the official lists: a digit typed wrong shows.
    sums = [sum(values) for vae in VAES.values() for values in (vae.latents_mean, vae.latents_std)]
    assert sums == pytest.approx([-0.7332, 34.2747, -0.5589, 32.5360], abs=1e-9)
    assert VAES["wan2.1"].spatial_stride == 8 and VAES["wan2.2"].spatial_stride == 16


def test_rows_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        VARIANTS[DEMO].dim = 1  # type: ignore[misc]
