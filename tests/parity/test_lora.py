"""LoRA in every spelling: what it adds, what is left over, and that taking it out leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deforum_helpers.builtin_presets import ROWS
from deforum_helpers.errors import ModelError
from deforum_helpers.model_files import inspect_model
from deforum_helpers.model_files.lora_header import read_lora
from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan.dit import WanFlowMatchingModel
from deforum_helpers.wan.loading import load_dit
from deforum_helpers.wan.lora import LoraMix
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.solvers import noise_schedule
from safetensors.torch import save_file
from torch import Tensor

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "demo"
RANK = 4
LAYERS = {  # official name: diffusers name
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
    "blocks.1.self_attn.o": "blocks.1.attn1.to_out.0",
    "blocks.2.cross_attn.v": "blocks.2.attn2.to_v",
    "blocks.3.ffn.0": "blocks.3.ffn.net.0.proj",
    "blocks.4.ffn.2": "blocks.4.ffn.net.2",
}


@pytest.fixture(scope="module")
def dit() -> WanFlowMatchingModel:
    info = inspect_model(BUNDLED)
    return load_dit(info.parts["dit"], info.row, choose_machine("cpu", "bfloat16"))


@pytest.fixture
def mix(dit: WanFlowMatchingModel) -> LoraMix:
    """A fresh mix; the module is left as it was."""
    before = {name: value.clone() for name, value in dit.named_parameters()}
    mix = LoraMix(dit)
    yield mix
    mix.set([])
    assert all(torch.equal(value, before[name]) for name, value in dit.named_parameters())
    assert not mix.originals


def pairs(dit: WanFlowMatchingModel, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for layer in LAYERS:
        rows, columns = dit.get_parameter(f"{layer}.weight").shape
        down = torch.randn(RANK, columns, generator=generator)
        result[layer] = (down, torch.randn(rows, RANK, generator=generator))
    return result


def write(path: Path, state: dict[str, Tensor]) -> str:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def spelt(
    layers: dict[str, tuple[Tensor, Tensor]], form: Callable[[str], str], down: str, up: str
) -> dict[str, Tensor]:
    return {k: v for n, (a, b) in layers.items() for k, v in ((form(n) + down, a), (form(n) + up, b))}


def kohya(name: str) -> str:
    return name.replace(".", "_")


SPELLINGS = {
    "ComfyUI": (lambda n: f"diffusion_model.{n}", ".lora_A.weight", ".lora_B.weight", False),
    "ComfyUI, down and up": (lambda n: f"diffusion_model.{n}", ".lora_down.weight", ".lora_up.weight", True),
    "kohya": (lambda n: f"lora_unet_{kohya(n)}", ".lora_down.weight", ".lora_up.weight", True),
    "kohya, double": (lambda n: f"lora_unet__{kohya(n)}", ".lora_down.weight", ".lora_up.weight", True),
    "diffusers": (lambda n: f"transformer.{LAYERS[n]}", ".lora_A.weight", ".lora_B.weight", False),
    "musubi": (lambda n: f"lora_transformer_{kohya(LAYERS[n])}", ".lora_down.weight", ".lora_up.weight", True),
    "peft": (lambda n: f"base_model.model.{n}", ".lora_A.default.weight", ".lora_B.default.weight", False),
    "DiffSynth": (lambda n: f"pipe.dit.{n}", ".lora_A.default.weight", ".lora_B.default.weight", False),
    "bare": (lambda n: n, ".lora_A.weight", ".lora_B.weight", True),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str, dit: WanFlowMatchingModel, mix: LoraMix, tmp_path: Path) -> None:
    form, down, up, with_alpha = SPELLINGS[spelling]
    layers = pairs(dit)
    state = spelt(layers, form, down, up)
    if with_alpha:
        state |= {f"{form(n)}.alpha": torch.tensor(2.0) for n in layers}
    before = {name: dit.get_parameter(f"{name}.weight").clone() for name in layers}
    assert mix.set([(write(tmp_path / "x.safetensors", state), 0.5)]) == []
    scale = 0.5 * (2.0 / RANK if with_alpha else 1.0)
    for name, (a, b) in layers.items():
        wanted = (before[name].float() + scale * (b @ a)).to(torch.bfloat16)
        torch.testing.assert_close(dit.get_parameter(f"{name}.weight"), wanted, rtol=1e-2, atol=1e-3)
        assert not torch.equal(wanted, before[name])


def test_whole_differences(dit: WanFlowMatchingModel, mix: LoraMix, tmp_path: Path) -> None:
    """diff, diff_b and diff_m, on layers, norms, the first convolution and the modulations."""
    names = {
        "diffusion_model.blocks.0.norm3.diff": "blocks.0.norm3.weight",
        "diffusion_model.blocks.0.norm3.diff_b": "blocks.0.norm3.bias",
        "diffusion_model.blocks.1.self_attn.norm_q.diff": "blocks.1.self_attn.norm_q.weight",
        "diffusion_model.blocks.1.self_attn.q.diff_b": "blocks.1.self_attn.q.bias",
        "lora_unet_blocks_2_ffn_0.diff_b": "blocks.2.ffn.0.bias",
        "diffusion_model.blocks.3.diff_m": "blocks.3.modulation",
        "diffusion_model.head.diff_m": "head.modulation",
        "diffusion_model.patch_embedding.diff": "patch_embedding.weight",
    }
    state = {k: torch.randn(dit.get_parameter(n).shape) for k, n in names.items()}
    before = {n: dit.get_parameter(n).clone() for n in names.values()}
    assert mix.set([(write(tmp_path / "x.safetensors", state), 2.0)]) == []
    for key, name in names.items():
        wanted = (before[name].float() + 2 * state[key]).to(before[name].dtype)
        assert torch.equal(dit.get_parameter(name), wanted), name


def test_several_at_once_in_any_order_of_events(dit: WanFlowMatchingModel, mix: LoraMix, tmp_path: Path) -> None:
    """The mix depends on the set alone, not on what was there before."""
    form, down, up, _ = SPELLINGS["ComfyUI"]
    a, b = (write(tmp_path / f"{seed}.safetensors", spelt(pairs(dit, seed), form, down, up)) for seed in (1, 2))
    weight = dit.get_parameter("blocks.0.self_attn.q.weight")

    def state(uses: list[tuple[str, float]]) -> Tensor:
        mix.set(uses)
        return weight.clone()

    both = state([(a, 0.7), (b, -0.3)])
    alone = state([(a, 0.7)])
    nothing = state([])
    assert torch.equal(state([(a, 0.0)]), nothing)
    assert torch.equal(state([(a, 0.7), (b, -0.3)]), both)
    assert torch.equal(state([(b, 0.0), (a, 0.7)]), alone)
    assert torch.equal(state([]), nothing)
    assert torch.equal(state([(a, 0.7)]), alone)
    assert not torch.equal(both, alone) and not torch.equal(alone, nothing)


def test_what_is_left_over_is_listed(dit: WanFlowMatchingModel, mix: LoraMix, tmp_path: Path) -> None:
    form, down, up, _ = SPELLINGS["ComfyUI"]
    state = spelt(pairs(dit), form, down, up)
    state |= {
        "diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight": torch.zeros(4, 160),
        "diffusion_model.blocks.0.cross_attn.k_img.lora_B.weight": torch.zeros(160, 4),
        "diffusion_model.blocks.9.ffn.2.diff_b": torch.zeros(160),
        "diffusion_model.blocks.0.self_attn.k.lora_A.weight": torch.zeros(4, 160),
        "diffusion_model.patch_embedding.diff": torch.zeros(160, 36, 1, 2, 2),
        "lora_te_text_model_encoder_layers_0.alpha": torch.ones(()),
    }
    path = write(tmp_path / "x.safetensors", state)
    (note,) = mix.set([(path, 1.0)])
    assert note.startswith(f"{path}: has no place for ") and note.endswith(" and 3 more")
    shapes = {name: tuple(value.shape) for name, value in dit.named_parameters()}
    assert set(read_lora(path, shapes).unmatched) == {
        *(name for name in list(state)[-6:] if "patch" not in name),
        "diffusion_model.patch_embedding.diff (wrong size)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 1536)}, "not a LoRA of this model"),
        (
            {
                f"diffusion_model.blocks.0.self_attn.q.lora_{k}.weight": s
                for k, s in (("A", (4, 1536)), ("B", (1536, 4)))
            },
            r"for blocks.0.self_attn.q.weight \[160, 160\], not .*lora_A.weight \[4, 1536\]",
        ),
        ({"some.other.model.lora_A.weight": (4, 4), "some.other.model.lora_B.weight": (4, 4)}, "lora_down and lora_up"),
        ({"blocks.0.self_attn.q.weight": (160, 160)}, "not a LoRA of this model"),
    ],
)
def test_a_file_that_does_not_fit(
    state: dict[str, tuple[int, ...]], says: str, mix: LoraMix, dit: WanFlowMatchingModel, tmp_path: Path
) -> None:
    """Refused before anything is changed, also when it is the second of two."""
    form, down, up, _ = SPELLINGS["ComfyUI"]
    good = write(tmp_path / "good.safetensors", spelt(pairs(dit), form, down, up))
    bad = write(tmp_path / "bad.safetensors", {name: torch.zeros(shape) for name, shape in state.items()})
    before = dit.get_parameter("blocks.0.self_attn.q.weight").clone()
    with pytest.raises(ModelError, match=says) as caught:
        mix.set([(good, 1.0), (bad, 1.0)])
    assert "bad.safetensors" in str(caught.value)
    assert torch.equal(dit.get_parameter("blocks.0.self_attn.q.weight"), before)
    with pytest.raises(ModelError, match=r"no such|can't be read|cannot be read"):
        mix.set([(str(tmp_path / "nowhere.safetensors"), 1.0)])


def test_a_change_that_breaks_off_is_made_good_by_the_next(
    dit: WanFlowMatchingModel, mix: LoraMix, tmp_path: Path
) -> None:
    """A file whose numbers can't be used is met in the middle of the weights; the next set, none too, is exact."""
    form, down, up, _ = SPELLINGS["ComfyUI"]
    layers = pairs(dit)
    good = write(tmp_path / "good.safetensors", spelt(layers, form, down, up))
    layers["blocks.3.ffn.0"][0][0, 0] = torch.nan
    bad = write(tmp_path / "bad.safetensors", spelt(layers, form, down, up))
    uses: list[list[tuple[str, float]]] = [[], [(good, 1.0)]]
    for wanted in uses:
        mix.set(wanted)
        before = {name: value.clone() for name, value in dit.named_parameters()}
        with pytest.raises(ModelError, match=r"bad.safetensors.*blocks.3.ffn.0.*NaN"):
            mix.set([(bad, 1.0)])
        mix.set(wanted)
        assert all(torch.equal(value, before[name]) for name, value in dit.named_parameters())


def test_four_steps_are_those_that_distilled_weights_were_trained_on() -> None:
    """1000, 750, 500 and 250 before the shift, which the preset's own values give."""
    values = next(make for name, _, make in ROWS if name == "4 steps")(VARIANTS["wan2.1-t2v-14B"])
    shift, steps = float(values["shift"]), int(values["num_inference_steps"])
    schedule = noise_schedule(values["solver"], steps, shift)
    wanted = [1000 * shift * t / (1 + (shift - 1) * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert values["guidance_scale"] == "1"
    assert list(schedule.timesteps) == pytest.approx(wanted, abs=0.01)
