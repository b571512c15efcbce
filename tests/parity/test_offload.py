"""Blocks streamed from host memory must compute what resident ones compute, and the memory ladder must hold."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.memory import GIB, LEVELS, Needs, peak, plan_memory
from deforum_helpers.wan.offload import BlockStream

CONFIG = DitConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=5, freq_dim=32, text_dim=16, text_len=8)
# 1.3B in bfloat16 at 832x480x81: text encoder 11.4 GB, backbone 2.8 GB in 30 blocks, autoencoder 0.25 GB.
NEEDS_1_3B = Needs(11_400_000_000, 2_840_000_000, 30, 92_000_000, 0, 250_000_000, 1_600_000_000, 1_200_000_000)


def forward(model: WanFlowMatchingModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 16, 3, 4, 6, generator=generator)
    context = torch.randn(1, 5, 16, generator=generator)
    with torch.inference_mode():
        return model(latents, torch.tensor([500.0]), model.condition(context))


def test_streamed_blocks_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)
    model.blocks.bfloat16().float()  # round, so that a mixed-up view would show
    wanted = forward(model)
    stream = BlockStream(model.blocks, torch.device("cpu"))
    assert torch.equal(forward(model), wanted)
    assert torch.equal(forward(model), wanted)  # the second pass starts where the first one ended
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in model.blocks]
    assert stream.device_bytes < 3 * max(sizes)
    stream.stop()
    assert torch.equal(forward(model), wanted)


def test_a_pass_that_was_broken_off_leaves_no_trace() -> None:
    torch.manual_seed(1)
    model = WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)
    wanted = forward(model)
    stream = BlockStream(model.blocks, torch.device("cpu"))
    breaking = model.blocks[2].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        forward(model)
    breaking.remove()
    assert torch.equal(forward(model), wanted)
    stream.stop()


def test_the_ladder_needs_less_at_every_step() -> None:
    peaks = [peak(NEEDS_1_3B, level) for level in range(LEVELS)]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == LEVELS


@pytest.mark.parametrize(
    ("free", "level"), [(0, 0), (80, 0), (24, 0), (16, 1), (8, 1), (5, 2), (3, LEVELS - 1), (1, LEVELS - 1)]
)
def test_the_first_step_that_fits_is_taken(free: int, level: int) -> None:
    plan = plan_memory(NEEDS_1_3B, free * GIB)
    assert plan.level == level, plan.reason
    if 0 < plan.level < LEVELS - 1:
        assert peak(NEEDS_1_3B, plan.level - 1) > free * GIB - GIB


def test_an_encoder_larger_than_the_card_is_streamed() -> None:
    assert plan_memory(NEEDS_1_3B, 8 * GIB).stream_text_encoder
    assert not plan_memory(NEEDS_1_3B, 24 * GIB).stream_text_encoder
