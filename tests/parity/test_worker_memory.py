"""Out of memory, the worker goes down the ladder: in the middle of loading, of sampling and of decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.model_files import inspect_model
from deforum_helpers.protocol import ClipDone, ClipRequest, Failed, Loading, PromptPair, Step, TextMix
from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan import loading, memory
from deforum_helpers.wan.vae import WanVae
from deforum_helpers.wan_flow_matching import WanFlowMatchingPipeline
from deforum_helpers.wan_worker import Service
from tiny_models import tiny_parts

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
GIB = memory.GIB


class Listener:
    """In the place of the pipe to the host."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def send(self, event: object) -> None:
        self.events.append(event)

    def check_cancelled(self, request_id: str) -> None:
        pass

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def request_(tmp_path: Path) -> ClipRequest:
    return ClipRequest(
        "a", inspect_model(DEMO).reference, "a red ball", "", 64, 48, 5, 5, 0, 3, "euler", 3.0, (4.0,) * 5, 1, 1.0,
        str(tmp_path / "latents.safetensors"), str(tmp_path / "frames.npy"), device="cpu",
    )  # fmt: skip


def out_of_memory(times: int, then):
    """A function that runs out of memory so many times before it does what it should."""
    left = [times]

    def run(*arguments, **named):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return then(*arguments, **named)

    return run


@pytest.mark.parametrize("place", ["load_dit", "load_vae", "sample", "decode"])
def test_one_step_down_and_on(place: str, request_, listener, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEFORUM_WAN_CACHE", str(tmp_path / "cache"))
    owner, name = {
        "load_dit": (loading, "load_dit"), "load_vae": (loading, "load_vae"),
        "sample": (WanFlowMatchingPipeline, "guided"), "decode": (WanVae, "decode_chunk"),
    }[place]  # fmt: skip
    monkeypatch.setattr(owner, name, out_of_memory(1, getattr(owner, name)))
    service = Service(listener)
    service.answer(request_)
    assert len(listener.of(ClipDone)) == 1 and not listener.of(Failed)
    reasons = [event.note for event in listener.of(Loading) if event.part == "memory"]
    assert any("loading with less at once" in reason for reason in reasons)
    assert service._pipeline.memory.level > 0
    assert len(listener.of(Step)) == 3, "latents that were on disk are not sampled again"


def test_at_the_foot_of_the_ladder_it_is_said(request_, listener, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEFORUM_WAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "load_dit", out_of_memory(99, loading.load_dit))
    Service(listener).answer(request_)
    (failed,) = listener.of(Failed)
    assert failed.kind == "out_of_memory" and "while the model was loaded" in failed.message


def test_prompts_are_embedded_while_the_rest_loads(request_, listener, monkeypatch, tmp_path) -> None:
    """What the thread made is what the render finds; an error of it is told like one of the render's own."""
    monkeypatch.setenv("DEFORUM_WAN_CACHE", str(tmp_path / "cache"))
    threads: list[str] = []
    encode = loading.TextEncoder.encode

    def watched(self, prompts):
        import threading

        threads.append(threading.current_thread().name)
        return encode(self, prompts)

    monkeypatch.setattr(loading.TextEncoder, "encode", watched)
    Service(listener).answer(request_)
    assert threads[0].startswith("text") and len(threads) == 2
    assert listener.of(ClipDone)[0].seconds["text"] < 0.2, "it came out of the cache"

    def broken(self, prompts):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading.TextEncoder, "encode", broken)
    again = Listener()
    Service(again).answer(request_)
    assert again.of(ClipDone), "the latents are on disk, so no prompt is needed"


def mixed(*weights: tuple[float, ...], relay: bool = False) -> dict:
    """A window of 5 latents in which the demo hears several prompts."""
    prompts = tuple(PromptPair(f"a ball, {k}", "blurry") for k in range(len(weights[0])))
    return {"prompts": prompts, "mixes": tuple(TextMix(tuple(range(len(prompts))), each, relay) for each in weights)}


HEARD = {
    "one prompt": {},
    "no guidance": {"guidance": (1.0,) * 5},
    "relay": mixed((1, 0), (0.5, 0.5), (0, 1), (0, 1), (0, 1), relay=True),
    "blend": mixed((1, 0), (0.5, 0.5), (0.5, 0.5), (0, 1), (0, 1)),
    "more than are kept": mixed((1, 0), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0, 1)),
}


@pytest.mark.parametrize("way", HEARD)
def test_the_plan_counts_the_keys_and_values_that_are_kept(way, request_, listener, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEFORUM_WAN_CACHE", str(tmp_path / "cache"))
    planned, made = [], []
    prompts, plan_memory = WanFlowMatchingPipeline.prompts, loading.plan_memory
    monkeypatch.setattr(WanFlowMatchingPipeline, "prompts", lambda *given: made.append(prompts(*given)) or made[-1])
    monkeypatch.setattr(
        loading, "plan_memory", lambda needs, *more: planned.append(needs) or plan_memory(needs, *more)
    )
    Service(listener).answer(replace(request_, **HEARD[way]))
    assert listener.of(ClipDone) and len(planned) == 1
    told = [side for each in made[0] for side in (each.positive, each.negative, each.both) if side is not None]
    kept = [side for each in told for block in each.kept.values() for side in block]
    assert planned[0].kept == sum(side.nbytes for side in kept)
    assert bool(kept) == (way != "more than are kept")


@pytest.mark.parametrize("name", ["wan2.1-i2v-14B-480P", "wan2.1-flf2v-14B", "wan2.1-vace-1.3B"])
def test_the_plan_counts_those_of_pictures_and_of_vace_s_blocks(name: str) -> None:
    parts, row = tiny_parts(name), VARIANTS[name]
    dit, = parts.dits
    config = dit.config
    picture = torch.zeros(row.image_tokens // 257, 257, config.image_dim) if row.image_tokens else None
    told = dit.condition(torch.zeros(1, 3, config.text_dim), picture)
    vace = {"vace_context": torch.zeros(1, config.vace_in_dim, 1, 2, 2)} if row.vace_layers else {}
    with torch.inference_mode():
        dit(torch.zeros(1, config.in_dim, 1, 2, 2), torch.tensor([5.0]), told, **vace)
    heard = memory.Heard(1, 1, config.text_len, row.image_tokens)
    blocks = config.num_layers + len(config.vace_layers)
    kept = sum(side.nbytes for block in told.kept.values() for side in block)
    assert kept == heard.kept(dim=config.dim, blocks=blocks, itemsize=4) > 0


def test_two_experts_keep_their_own() -> None:
    """Four prompts in one window of a 14B model: 3.4 GB, of its two experts twice that."""
    heard = memory.Heard(4, 2, 512)
    assert round(heard.kept(dim=5120, blocks=40, itemsize=2) / 1e9, 1) == 3.4
    assert heard.kept(dim=5120, blocks=80, itemsize=2) == 2 * heard.kept(dim=5120, blocks=40, itemsize=2)
