"""Several prompts in one window, against a slow computation and against one prompt alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.wan.attention import sdpa
from deforum_helpers.wan.prompt_timeline import Mix, attend_in_runs, mixed_contexts, of_window

K, S, DIM, H, P = 3, 7, 8, 2, 5
MIXES = [Mix((1.0, 0.0, 0.0))] * 2 + [Mix((0.7, 0.3, 0.0), True), Mix((0.2, 0.8, 0.0)), Mix((0.0, 0.0, 1.0))]


def inputs(frames: int = len(MIXES)):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(1, frames * P, H, DIM // H), draw(K, S, DIM)


def attended(q, texts, mixes):
    contexts, runs = mixed_contexts(texts, mixes)
    keys = contexts[None].unflatten(-1, (H, -1))
    return attend_in_runs(q, keys, keys.sin(), runs, sdpa)


def slowly(q, texts, mixes):
    """Frame by frame, with the softmax written out."""
    out = []
    for frame, mix in enumerate(mixes):
        part = q[:, frame * P : (frame + 1) * P]
        weights = torch.tensor(mix.weights, dtype=torch.float64)
        if mix.relay:
            keys, factor = texts.reshape(K * S, DIM), weights.repeat_interleave(S)
        else:
            keys, factor = (weights[:, None, None] * texts).sum(0), torch.ones(S, dtype=torch.float64)
        keys = keys.unflatten(-1, (H, -1))
        mass = torch.einsum("blhd,shd->bhls", part, keys).div((DIM // H) ** 0.5).exp() * factor
        out.append(torch.einsum("bhls,shd->blhd", mass / mass.sum(-1, keepdim=True), keys.sin()))
    return torch.cat(out, dim=1)


def test_it_is_what_the_slow_computation_gives() -> None:
    q, texts = inputs()
    assert torch.allclose(attended(q, texts, MIXES), slowly(q, texts, MIXES), atol=1e-12)


@pytest.mark.parametrize("relay", [False, True])
def test_a_text_mixed_with_itself_is_that_text(relay) -> None:
    q, texts = inputs()
    same = texts[:1].expand(K, -1, -1)
    alone = attended(q, same, [Mix((1.0, 0.0, 0.0))] * 5)
    assert torch.allclose(attended(q, same, [Mix((0.5, 0.25, 0.25), relay)] * 5), alone, atol=1e-12)


def test_a_hard_bias_is_each_frame_s_own_text() -> None:
    q, texts = inputs(4)
    hard = attended(q, texts, [Mix((1.0, 0.0, 0.0))] * 2 + [Mix((0.0, 1.0, 0.0))] * 2)
    nearly = attended(q, texts, [Mix((1 - 1e-13, 1e-13, 0.0), True)] * 2 + [Mix((1e-13, 1 - 1e-13, 0.0), True)] * 2)
    assert torch.allclose(hard, nearly, atol=1e-9)


def test_a_window_of_the_whole_is_the_mix_of_the_window() -> None:
    q, texts = inputs()
    contexts, runs = mixed_contexts(texts, MIXES)
    keys = contexts[None].unflatten(-1, (H, -1))
    part = attend_in_runs(q[:, P : 4 * P], keys, keys.sin(), of_window(runs, 1, 4), sdpa)
    assert torch.allclose(part, attended(q[:, P : 4 * P], texts, MIXES[1:4]), atol=1e-12)
    assert torch.allclose(part, attended(q, texts, MIXES)[:, P : 4 * P], atol=1e-12)
