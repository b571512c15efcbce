"""A LoRA acts the same wherever a backbone's weights are kept, and leaves no trace there either."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.eight_bit import narrowed, to_eight_bit
from deforum_helpers.wan.lora import LoraMix
from deforum_helpers.wan.offload import BlockStream, TakingTurns
from deforum_helpers.wan.weights import load_into
from safetensors.torch import save_file

CONFIG = DitConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=3, freq_dim=32, text_dim=16, text_len=8)
CPU = torch.device("cpu")


@pytest.fixture
def model() -> WanFlowMatchingModel:
    torch.manual_seed(0)
    return WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def lora(tmp_path: Path) -> str:
    generator = torch.Generator().manual_seed(1)
    state = {"diffusion_model.text_embedding.0.diff_b": torch.randn(48, generator=generator)}
    for layer in ("blocks.0.self_attn.q", "blocks.2.cross_attn.k"):
        for role in ("A", "B"):
            shape = (4, 48) if role == "A" else (48, 4)
            state[f"diffusion_model.{layer}.lora_{role}.weight"] = torch.randn(shape, generator=generator) / 4
    save_file(state, tmp_path / "x.safetensors")
    return str(tmp_path / "x.safetensors")


def forward(model: WanFlowMatchingModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents, context = torch.randn(1, 16, 3, 4, 6, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.inference_mode():
        return model(latents, torch.tensor([500.0]), model.condition(context))


def mixed_resident(model: WanFlowMatchingModel, lora: str) -> torch.Tensor:
    mix = LoraMix(model)
    mix.set([(lora, 0.7)])
    result = forward(model)
    mix.set([])
    return result


def test_in_streamed_blocks(model: WanFlowMatchingModel, lora: str) -> None:
    plain, wanted = forward(model), mixed_resident(model, lora)
    assert not torch.equal(plain, wanted)
    stream = BlockStream(model.blocks, CPU)
    mix = LoraMix(model, stream)
    for _ in range(2):
        assert torch.equal(forward(model), plain)
        mix.set([(lora, 0.7)])
        assert torch.equal(forward(model), wanted)
        assert torch.equal(forward(model), wanted)
        mix.set([])
    assert torch.equal(forward(model), plain) and not mix.originals


def test_in_experts_that_take_turns(model: WanFlowMatchingModel, lora: str) -> None:
    plain, wanted = forward(model), mixed_resident(model, lora)
    other = WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)
    TakingTurns((model, other), CPU)
    mix = LoraMix(model)
    mix.set([(lora, 0.7)])
    forward(other)
    assert torch.equal(forward(model), wanted)
    mix.set([])
    assert torch.equal(forward(model), plain)


@pytest.mark.parametrize("streamed", [False, True])
def test_in_weights_of_8_bits(streamed: bool, model: WanFlowMatchingModel, lora: str) -> None:
    wanted, state = mixed_resident(model, lora), dict(narrowed(model.state_dict().items()))
    with torch.device("meta"):
        narrow = to_eight_bit(WanFlowMatchingModel(CONFIG), multiply=False)
    narrow = load_into(narrow, state).eval().requires_grad_(False)
    plain = forward(narrow)
    mix = LoraMix(narrow, BlockStream(narrow.blocks, CPU) if streamed else None)
    mix.set([(lora, 0.7)])
    near, far = (forward(narrow) - wanted).norm(), (plain - wanted).norm()
    assert near < 0.2 * far, "closer to the LoRA in full precision than to no LoRA"
    mix.set([])
    assert torch.equal(forward(narrow), plain) and not mix.originals


def test_in_weights_of_8_bits_from_the_file(model: WanFlowMatchingModel, lora: str) -> None:
    """Rounded once: as if the file itself had had the LoRA in it."""
    whole = dict(model.state_dict())
    LoraMix(model).set([(lora, 0.02)])
    wanted = dict(narrowed(model.state_dict().items()))
    with torch.device("meta"):
        narrow = to_eight_bit(WanFlowMatchingModel(CONFIG), multiply=False)
    narrow = load_into(narrow, dict(narrowed(whole.items()))).eval().requires_grad_(False)
    read = []

    def reread(name: str) -> torch.Tensor:
        read.append(name)
        return whole[name]

    mix = LoraMix(narrow, reread=reread)
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    mix.set([(lora, 0.02)])
    assert read == ["blocks.0.self_attn.q.weight", "blocks.2.cross_attn.k.weight"]
    got = narrow.state_dict()
    assert all(torch.equal(got[name].float(), value.float()) for name, value in wanted.items())
    mix.set([])
    assert all(torch.equal(narrow.state_dict()[name].float(), value.float()) for name, value in before.items())
