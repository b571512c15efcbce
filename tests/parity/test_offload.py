"""Blocks streamed from host memory must compute what resident ones compute, and the memory ladder must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.eight_bit import is_eight_bit
from deforum_helpers.wan.loading import dit_config
from deforum_helpers.wan.memory import GIB, LEVELS, Heard, Needs, estimate_needs, peak, plan_memory, worthwhile
from deforum_helpers.wan.offload import BlockStream, TakingTurns, stream_blocks
from torch import nn

CONFIG = DitConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=5, freq_dim=32, text_dim=16, text_len=8)
# 1.3B in bfloat16 at 832x480x81: text encoder 11.4 GB, backbone 2.8 GB in 30 blocks, autoencoder 0.25 GB.
NEEDS_1_3B = Needs(11_400_000_000, 2_840_000_000, 30, 92_000_000, 0, 250_000_000, 1_600_000_000, 2_760_000_000)


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


def test_buffers_are_let_go_only_when_the_copies_into_them_are_done(monkeypatch) -> None:
    """A device's copies run on: memory freed under one would be handed to somebody else."""
    model = WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)
    stream = BlockStream(model.blocks, torch.device("cpu"))
    held: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: held.append(stream.device_bytes))
    stream._copies = object()  # as where copies have a stream of their own
    stream.stop()
    assert held and held[0] > 0


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


def test_experts_that_take_turns_give_the_same_numbers() -> None:
    torch.manual_seed(2)
    models = [WanFlowMatchingModel(CONFIG).eval().requires_grad_(False) for _ in range(2)]
    wanted = [forward(model) for model in models]
    turns = TakingTurns(models, torch.device("cpu"))
    moved: list[nn.Module] = []
    bring = turns.bring

    def noted(model: nn.Module) -> None:
        moved.append(model)
        bring(model)

    turns.bring = noted
    assert [torch.equal(forward(models[i]), wanted[i]) for i in (0, 1, 0)] == [True] * 3
    assert moved == [models[0], models[1], models[0]]


def test_the_ladder_needs_less_at_every_step() -> None:
    for needs in (NEEDS_1_3B, replace(NEEDS_1_3B, experts=2)):
        peaks = [peak(needs, level) for level in worthwhile(needs)]
        assert peaks == sorted(peaks, reverse=True)
        assert len(set(peaks)) == len(peaks)
    assert len(worthwhile(needs)) == LEVELS
    assert len(worthwhile(NEEDS_1_3B)) == LEVELS - 1  # one model alone has nobody to take turns with


@pytest.mark.parametrize(
    ("free", "rung"),
    [(0, "resident"), (80, "resident"), (24, "text"), (16, "text"), (8, "chunks"), (5.5, "tiled"), (3, "offload"),
     (1, "offload")],
)  # fmt: skip
def test_the_first_step_that_fits_is_taken(free: float, rung: str) -> None:
    plan = plan_memory(NEEDS_1_3B, int(free * GIB))
    assert plan.rung.name == rung, plan.reason
    if rung not in ("resident", "offload"):
        assert peak(NEEDS_1_3B, plan.level - 1) > free * GIB - GIB


def test_out_of_memory_goes_down_to_a_step_that_needs_less() -> None:
    plan = plan_memory(NEEDS_1_3B, 0)
    names = [plan.rung.name]
    while plan.lower is not None:
        plan = plan_memory(NEEDS_1_3B, 0, plan.lower)
        names.append(plan.rung.name)
    assert names == ["resident", "text", "chunks", "tiled", "offload"]


def needs_of(name: str, width: int, height: int, weights_dtype: str = "auto") -> Needs:
    """Needs of a real model in bfloat16 with a window of 81 frames, its parameters counted on the meta device."""
    row = VARIANTS[name]
    with torch.device("meta"):
        dit = WanFlowMatchingModel(dit_config(row)).state_dict()
    narrow = 0 if weights_dtype == "auto" else sum(v.numel() for n, v in dit.items() if is_eight_bit(n, v.shape))
    experts = max(1, len(row.experts))
    return estimate_needs(
        text_encoder=5_680_000_000 * 2, dit=experts * (sum(v.numel() for v in dit.values()) * 2 - narrow),
        blocks=row.num_layers * experts, image_encoder=632_000_000 * 2 if row.image_tokens else 0, vae=127_000_000 * 2,
        dim=row.dim, ffn_dim=row.ffn_dim, vae_dim=96, size=(21, height, width), stride=8, itemsize=2,
        heard=Heard(1, 2, row.text_len, row.image_tokens), experts=experts, encodes_video=row.condition_channels > 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "card", "weights", "rung"),
    [
        ("wan2.1-t2v-1.3B", 8, "auto", "chunks"),
        ("wan2.1-t2v-1.3B", 24, "auto", "text"),
        ("wan2.1-t2v-14B", 16, "auto", "offload"),
        ("wan2.1-t2v-14B", 24, "auto", "offload"),
        ("wan2.1-t2v-14B", 24, "fp8", "chunks"),
        ("wan2.1-i2v-14B-480P", 16, "auto", "offload"),
        ("wan2.2-t2v-A14B", 48, "auto", "turns"),
        ("wan2.2-t2v-A14B", 48, "fp8", "text"),
    ],
)
def test_real_models_at_480p_have_a_place_on_small_cards(model: str, card: int, weights: str, rung: str) -> None:
    needs, free = needs_of(model, 832, 480, weights), int(card * 0.93 * GIB)  # a desktop takes some of a card
    plan = plan_memory(needs, free)
    assert plan.rung.name == rung, plan.reason
    assert peak(needs, plan.level) < free, plan.reason


def test_an_encoder_larger_than_the_card_is_streamed() -> None:
    assert plan_memory(NEEDS_1_3B, 8 * GIB).stream_text_encoder
    assert plan_memory(NEEDS_1_3B, 12 * GIB).stream_text_encoder  # it would fit alone, but the backbone is there too
    assert not plan_memory(NEEDS_1_3B, 24 * GIB).stream_text_encoder


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_render_keeps_to_the_memory_it_was_given() -> None:
    """The demo's clip with the allocator capped: resident does not fit, the ladder's last step does."""
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    with torch.device(device):
        model = WanFlowMatchingModel(replace(CONFIG, dim=1536, num_heads=12, ffn_dim=8960, num_layers=12)).eval()
    model = model.requires_grad_(False).to("cpu")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    torch.cuda.set_per_process_memory_fraction(0.6 * size / total, device)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            model.to(device)
        model.to("cpu")
        torch.cuda.empty_cache()
        stream_blocks(model, [*model.blocks], device)
        latents = torch.randn(1, 16, 3, 4, 6, device=device)
        with torch.inference_mode():
            out = model(
                latents, torch.tensor([500.0], device=device), model.condition(torch.randn(1, 5, 16, device=device))
            )
        assert torch.isfinite(out).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
