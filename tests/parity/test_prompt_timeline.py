"""Several prompts in one window, against a slow computation and against one prompt alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.protocol import PromptPair, TextMix
from deforum_helpers.wan import dit as dit_module
from deforum_helpers.wan import sampling
from deforum_helpers.wan.attention import sdpa
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel
from deforum_helpers.wan.prompt_timeline import attend_in_runs, mixed_contexts, runs_at
from deforum_helpers.wan.sampling import Prompts, guided_model
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline
from test_pipeline import first, following, parts, pipeline, render  # noqa: F401 - fixtures

K, S, DIM, H, P = 3, 7, 8, 2, 5
ALONE = [TextMix((k,), (1.0,)) for k in range(K)]
BLEND, RELAY = TextMix((0, 1), (0.25, 0.75)), TextMix((0, 1), (0.7, 0.3), True)
MIXES = [ALONE[0], ALONE[0], RELAY, BLEND, ALONE[2]]


def inputs(frames: int = len(MIXES)):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(1, frames * P, H, DIM // H), draw(K, S, DIM)


def keys_of(contexts):
    """Stands in for a block's projections."""

    def keys_values(rows):
        keys = torch.cat([contexts[row] for row in rows])[None].unflatten(-1, (H, -1))
        return keys, keys.sin()

    return keys_values


def attended(q, texts, mixes):
    contexts, runs = mixed_contexts(texts, mixes)
    return attend_in_runs(q, keys_of(contexts), runs, sdpa)


def slowly(q, texts, mixes):
    """Frame by frame, with the softmax written out."""
    out = []
    for frame, mix in enumerate(mixes):
        part = q[:, frame * P : (frame + 1) * P]
        weights = torch.tensor(mix.weights, dtype=torch.float64)
        heard = texts[list(mix.prompts)]
        if mix.relay:
            keys, factor = heard.flatten(0, 1), weights.repeat_interleave(S)
        else:
            keys, factor = (weights[:, None, None] * heard).sum(0), torch.ones(S, dtype=torch.float64)
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
    alone = attended(q, same, [ALONE[0]] * 5)
    assert torch.allclose(attended(q, same, [TextMix((0, 1, 2), (0.5, 0.25, 0.25), relay)] * 5), alone, atol=1e-12)


def test_a_hard_bias_is_each_frame_s_own_text() -> None:
    q, texts = inputs(4)
    hard = attended(q, texts, [ALONE[0]] * 2 + [ALONE[1]] * 2)
    nearly = [TextMix((0, 1), (1 - 1e-13, 1e-13), True)] * 2 + [TextMix((0, 1), (1e-13, 1 - 1e-13), True)] * 2
    assert torch.allclose(hard, attended(q, texts, nearly), atol=1e-9)


def test_each_distinct_context_is_there_once() -> None:
    _, texts = inputs()
    contexts, runs = mixed_contexts(texts, [*MIXES, BLEND, ALONE[1], RELAY])
    assert len(contexts) == 4  # three texts and one blend
    assert sum(run.frames for run in runs) == 8 and len(runs) == 7
    assert all(torch.equal(contexts[row], texts[k]) for k, row in ((0, 0), (1, 1), (2, 3)))


def test_weights_add_up_in_half_precision_too() -> None:
    texts = torch.full((2, S, DIM), 1.0, dtype=torch.bfloat16)
    contexts, _ = mixed_contexts(texts, [TextMix((0, 1), (1 / 3, 2 / 3))])
    assert contexts.dtype == torch.bfloat16 and torch.equal(contexts[0], texts[0])


@pytest.mark.parametrize("latents", [range(1, 4), [3, 4, 0, 1]])  # of a ring, too
def test_a_window_of_the_whole_is_the_mix_of_the_window(latents) -> None:
    q, texts = inputs()
    contexts, runs = mixed_contexts(texts, MIXES)
    part = q.unflatten(1, (len(MIXES), P))[:, list(latents)].flatten(1, 2)
    got = attend_in_runs(part, keys_of(contexts), runs_at(runs, latents), sdpa)
    assert torch.allclose(got, attended(part, texts, [MIXES[k] for k in latents]), atol=1e-12)


# The whole backbone

CONFIG = DitConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=2, freq_dim=32, text_dim=DIM, text_len=S)
LONG = [TextMix((0, 1), (1 - k / 8, k / 8), relay=k % 2 == 0) for k in range(1, 8)]  # more contexts than are kept


@pytest.fixture(scope="module")
def backbone() -> WanFlowMatchingModel:
    torch.manual_seed(0)
    model = WanFlowMatchingModel(CONFIG).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    return model


def sides(model, mixes):
    """Conditionings of three prompts and three negative ones."""
    generator = torch.Generator().manual_seed(4)
    return [model.condition(torch.randn(K, 5, DIM, generator=generator), None, mixes) for _ in range(2)]


def latents_of(mixes) -> torch.Tensor:
    return torch.randn(1, 16, len(mixes), 4, 6, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("mixes", [MIXES, LONG], ids=["few", "many"])
def test_one_batch_and_two_passes_say_the_same(backbone, mixes, monkeypatch) -> None:
    noise, t = latents_of(mixes), torch.tensor([600.0])
    prompts, said = Prompts(*sides(backbone, mixes)), []
    for most in (sampling.BATCHED_TOKENS, 0):
        monkeypatch.setattr(sampling, "BATCHED_TOKENS", most)
        said.append(guided_model(backbone, prompts, (3.0,) * len(mixes), noise)(noise, t))
    assert torch.allclose(*said, atol=1e-5)


@pytest.mark.parametrize("mixes", [MIXES, LONG], ids=["few", "many"])
def test_what_is_kept_only_saves_work(backbone, mixes, monkeypatch) -> None:
    noise, t, said = latents_of(mixes), torch.tensor([600.0]), []
    for most in (0, 4, 100):
        monkeypatch.setattr(dit_module, "MOST_KEPT", most)
        conditioning = sides(backbone, mixes)[0]
        said += [backbone(noise, t, conditioning), backbone(noise, t, conditioning)]
        kept = most * S >= conditioning.context.shape[1]
        assert [bool(tensors) for tensors in conditioning.kept.values()] == [kept] * CONFIG.num_layers
    assert all(torch.allclose(said[0], other, atol=1e-5) for other in said[1:])


def test_one_prompt_throughout_is_that_prompt(backbone) -> None:
    noise, t = latents_of(MIXES), torch.tensor([600.0])
    texts = torch.randn(K, 5, DIM, generator=torch.Generator().manual_seed(6))
    alone = backbone(noise, t, backbone.condition(texts[1:2]))
    for mix in (ALONE[1], TextMix((0, 1), (0.0, 1.0)), TextMix((0, 1), (0.0, 1.0), True)):
        assert torch.allclose(backbone(noise, t, backbone.condition(texts, None, [mix] * 5)), alone, atol=1e-6)
    other = backbone(noise, t, backbone.condition(texts, None, [BLEND] * 5))
    assert not torch.allclose(other, alone, atol=1e-3)


def test_windows_share_what_is_kept(backbone) -> None:
    prompts = Prompts(*sides(backbone, MIXES))
    window = prompts.at([3, 4, 0])
    assert [run.frames for run in window.both.runs] == [1, 1, 1]
    backbone(latents_of(MIXES[:3]).expand(2, -1, -1, -1, -1), torch.tensor([600.0]), window.both)
    assert prompts.both.kept is window.both.kept and all(prompts.both.kept.values())
    assert not prompts.positive.kept


# The pipeline on the demo

DAY = PromptPair("a red balloon floats over the sea during the day", "")
NIGHT = PromptPair("a red balloon floats over the sea at night", "blurry")


def travelling(request, mixes, tmp_path, name="t", **changes):
    files = {"latents_file": str(tmp_path / f"{name}.safetensors"), "frames_file": str(tmp_path / f"{name}.npy")}
    return replace(request, prompts=(DAY, NIGHT), mixes=tuple(mixes), **files, **changes)


def test_a_clip_that_hears_one_of_its_prompts_is_made_of_that_prompt(pipeline, first, tmp_path) -> None:  # noqa: F811
    alone = replace(first, prompt=NIGHT.prompt, negative_prompt=NIGHT.negative_prompt)
    wanted = render(pipeline, alone).astype(int)
    for name, mix in (("b", TextMix((0, 1), (0.0, 1.0))), ("r", TextMix((1,), (1.0,), True))):
        got = render(pipeline, travelling(first, [mix] * 3, tmp_path, name)).astype(int)
        assert np.abs(got - wanted).max() <= 1


@pytest.mark.parametrize("relay", [False, True])
def test_a_clip_that_goes_from_one_prompt_to_another(relay, parts, pipeline, first, tmp_path) -> None:  # noqa: F811
    mixes = [TextMix((0, 1), (1 - k / 2, k / 2), relay) for k in range(3)]
    request = travelling(first, mixes, tmp_path)
    frames = render(pipeline, request)
    again = travelling(first, mixes, tmp_path, "again")
    assert np.array_equal(render(WanFlowMatchingPipeline(parts), again), frames)
    assert again.fingerprint() == request.fingerprint()
    other = travelling(first, mixes[::-1], tmp_path, "other")
    assert other.fingerprint() != request.fingerprint()
    assert not np.array_equal(render(pipeline, other), frames)


def test_a_window_as_long_as_the_clip_changes_nothing(pipeline, first, tmp_path) -> None:  # noqa: F811
    mixes = [TextMix((0, 1), (1 - k / 2, k / 2)) for k in range(3)]
    frames = render(pipeline, travelling(first, mixes, tmp_path))
    joint = travelling(first, mixes, tmp_path, "j", window_latents=3, window_overlap=1)
    assert np.array_equal(render(pipeline, joint), frames)


def test_prompts_reach_the_windows_that_hear_them(pipeline, first, tmp_path) -> None:  # noqa: F811
    long = replace(
        first, latent_frames=8, new_latents=8, guidance=(4.0,) * 8, window_latents=4, window_overlap=2,
        num_inference_steps=1,
    )  # fmt: skip
    day, night = TextMix((0,), (1.0,)), TextMix((1,), (1.0,))
    throughout = render(pipeline, travelling(long, [day] * 8, tmp_path, "d"))
    late = render(pipeline, travelling(long, [day] * 7 + [night], tmp_path, "n"))
    assert np.abs(throughout[:17].astype(int) - late[:17]).max() <= 1
    assert np.abs(throughout[-4:].astype(int) - late[-4:]).max() > 1
