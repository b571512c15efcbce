"""Compiled blocks give the same numbers, and a machine that can't compile renders all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.errors import SettingsError
from deforum_helpers.wan.attention import pick_attention
from deforum_helpers.wan.compiling import CompiledBlocks
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel

CONFIG = DitConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=3, freq_dim=32, text_dim=16, text_len=8)


def model() -> WanFlowMatchingModel:
    torch.manual_seed(0)
    return WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)


def twice(dit: WanFlowMatchingModel) -> list[torch.Tensor]:
    """Two steps with one prompt: the first makes its keys and values, the second would be compiled."""
    generator = torch.Generator().manual_seed(3)
    latents, context = torch.randn(1, 16, 3, 4, 6, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.inference_mode():
        conditioning = dit.condition(context)
        return [dit(latents, torch.tensor([t]), conditioning) for t in (900.0, 500.0)]


def compiled_by(backend, monkeypatch, tmp_path: Path) -> tuple[WanFlowMatchingModel, CompiledBlocks, list[str]]:
    said: list[str] = []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **options: compiler(call, backend=backend, **options))
    dit, blocks = model(), CompiledBlocks(tmp_path, lambda part, seconds, note: said.append(f"{part}: {note}"))
    blocks.install([dit])
    return dit, blocks, said


def test_blocks_share_one_piece_of_code_that_gives_the_same_numbers(monkeypatch, tmp_path: Path) -> None:
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    dit, blocks, said = compiled_by(backend, monkeypatch, tmp_path)
    for got, wanted in zip(twice(dit), twice(model()), strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)
    assert len(graphs) == 1
    assert not blocks.failed
    assert len(said) == 2
    assert all(line.startswith("compile: ") for line in said)


def test_a_compiler_that_fails_is_told_and_done_without(monkeypatch, tmp_path: Path) -> None:
    def backend(graph, inputs):
        raise RuntimeError("no C++ compiler was found")

    torch._dynamo.reset()
    dit, blocks, said = compiled_by(backend, monkeypatch, tmp_path)
    for got, wanted in zip(twice(dit), twice(model()), strict=True):
        assert torch.equal(got, wanted)
    assert "no C++ compiler" in blocks.failed
    assert "going on without" in said[-1]
    assert len(said) == 2  # tried once, not in every block and step


def test_an_attention_that_isn_t_there_is_an_error_in_one_line() -> None:
    with pytest.raises(SettingsError, match="SageAttention"):
        pick_attention(torch.device("cpu"), torch.float32, 64, "sage")
