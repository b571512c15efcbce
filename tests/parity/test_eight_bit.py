"""Weights kept in 8 bits: close to the full ones, half their size, and as the file has them where it has them so."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.errors import SettingsError
from deforum_helpers.model_files import inspect_model
from deforum_helpers.wan.eight_bit import (
    STORED,
    EightBitLinear,
    check_multiply,
    multiply_eight_bit,
    narrow,
    widen,
)
from deforum_helpers.wan.loading import load_dit
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.offload import BlockStream
from safetensors.torch import load_file, save_file

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
CPU = choose_machine("cpu")


def velocity(dit, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 16, 3, 10, 16, generator=generator)
    context = torch.randn(1, 20, dit.config.text_dim, generator=generator)
    with torch.inference_mode():
        return dit(latents, torch.tensor([600.0]), dit.condition(context))


@pytest.fixture(scope="module")
def info():
    return inspect_model(DEMO).require()


def test_rounding_is_that_of_three_bits_of_mantissa() -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 32)[:, None]
    stored, scale = narrow(weight)
    back = widen(stored, scale, torch.float32)
    large = weight.abs() > weight.abs().amax(dim=1, keepdim=True) / 100
    assert stored.dtype == STORED
    assert ((back - weight).abs() / weight.abs())[large].max() <= 1 / 16 + 1e-6
    assert not torch.equal(back, weight)


def test_the_demo_in_eight_bits_is_near_the_demo_and_smaller(info) -> None:
    full, narrowed = (load_dit(info.parts["dit"], info.row, CPU, weights_dtype=kind) for kind in ("auto", "fp8"))
    wanted, got = velocity(full), velocity(narrowed)
    assert 0 < (got - wanted).norm() / wanted.norm() < 0.05
    sizes = [sum(p.numel() * p.element_size() for p in dit.blocks.parameters()) for dit in (full, narrowed)]
    assert sizes[1] < 0.3 * sizes[0]  # of float32, on a CPU


def test_eight_bit_blocks_are_streamed_bit_for_bit(info) -> None:
    dit = load_dit(info.parts["dit"], info.row, CPU, weights_dtype="fp8")
    wanted = velocity(dit)
    stream = BlockStream(dit.blocks, torch.device("cpu"))
    assert torch.equal(velocity(dit), wanted)
    stream.stop()


def test_a_file_in_eight_bits_is_kept_as_it_is(info, tmp_path: Path) -> None:
    """Scaled fp8 as ComfyUI publishes it: widened on use, it gives what the widened file gives."""
    state = load_file(info.parts["dit"].files[0])
    for name in [n for n in state if n.startswith("blocks.") and n.endswith(".weight") and state[n].dim() == 2]:
        wide = state[name].float()
        scale = (wide.abs().max() / 448).reshape(1)
        state[name], state[name.removesuffix("weight") + "scale_weight"] = (wide / scale).to(STORED), scale
    state["scaled_fp8"] = torch.zeros(2, dtype=STORED)
    save_file(state, tmp_path / "demo_fp8_scaled.safetensors")
    part = inspect_model(tmp_path / "demo_fp8_scaled.safetensors").parts["dit"]
    wide, kept = (load_dit(part, info.row, CPU, weights_dtype=kind) for kind in ("auto", "fp8"))
    name = "blocks.1.ffn.0"
    assert torch.equal(kept.get_submodule(name).weight.view(torch.uint8), state[f"{name}.weight"].view(torch.uint8))
    assert torch.allclose(velocity(kept), velocity(wide), atol=1e-6)


def test_a_weight_that_was_widened_is_used_as_it_is() -> None:
    layer = EightBitLinear(8, 4)
    layer.weight.data, layer.bias.data = torch.randn(4, 8), torch.zeros(4)
    x = torch.randn(3, 8)
    assert torch.equal(layer(x), x @ layer.weight.t())


def test_products_in_eight_bits_need_a_card_that_has_them() -> None:
    with pytest.raises(SettingsError, match="weights_dtype"):
        check_multiply(torch.device("cpu"))


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_products_in_eight_bits(device: str) -> None:
    weight, x = torch.randn(256, 512, device=device), torch.randn(2, 100, 512, device=device, dtype=torch.bfloat16)
    bias = torch.randn(256, device=device)
    got = multiply_eight_bit(x, *narrow(weight), bias).float()
    wanted = x.float() @ weight.t() + bias
    assert got.shape == wanted.shape
    assert 0.01 < (got - wanted).norm() / wanted.norm() < 0.06
