"""What the benchmark says must be right where it can be checked without the machines it is for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from breakdown import breakdown, kind_of
from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan.dit import WanFlowMatchingModel
from deforum_helpers.wan.loading import dit_config
from flops import dit_work
from timing import Case, measure

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("variant", "width", "height", "teraflops"),
    [("1.3B", 832, 480, 283), ("1.3B", 1280, 720, 1250), ("14B", 832, 480, 1676), ("14B", 1280, 720, 6521)],
)
def test_operations_of_a_forward_pass(variant: str, width: int, height: int, teraflops: float) -> None:
    config = dit_config(VARIANTS[f"wan2.1-t2v-{variant}"])
    assert dit_work(config, (21, height // 8, width // 8)).total / 1e12 == pytest.approx(teraflops, rel=0.003)


def test_operations_of_the_linears_agree_with_torch_s_count() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = dit_config(VARIANTS["demo"])
    model = WanFlowMatchingModel(config).eval().requires_grad_(False)
    latents, context = torch.randn(1, 16, 5, 10, 16), torch.randn(1, config.text_len, config.text_dim)
    conditioning = model.condition(context)
    model(latents, torch.tensor([500.0]), conditioning)  # text keys and values are made once, and don't count
    with FlopCounterMode(display=False) as counter:
        model(latents, torch.tensor([500.0]), conditioning)
    counted = counter.get_total_flops()  # torch counts no attention on a CPU; embeddings and head are the difference
    assert dit_work(config, (5, 10, 16)).linear == pytest.approx(counted, rel=0.02)


def test_operators_are_of_a_kind() -> None:
    names = ("aten::addmm", "aten::_scaled_dot_product_flash_attention", "aten::mkldnn_convolution", "aten::gelu_", "x")
    assert [kind_of(name) for name in names] == ["linear", "attention", "convolution", "norm and elementwise", "rest"]


def test_a_breakdown_adds_up() -> None:
    a = torch.randn(300, 300)
    shares = breakdown(lambda: torch.mm(a, a).mul(2), CPU)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["linear"] > shares["convolution"] == 0


def test_sides_are_measured_turn_about_after_one_turn_to_warm_up() -> None:
    order: list[str] = []
    case = Case("x", lambda: order.append("ours"), lambda: order.append("theirs"), operations=1e12)
    row = measure(case, 3, CPU)
    assert order == ["ours", "theirs"] * 4
    assert row["ratio"] == pytest.approx(row["diffusers_seconds"] / row["ours_seconds"])
    assert row["tflops"] == pytest.approx(1 / row["ours_seconds"])
