"""Every layout in the table of docs/models.md: the same model, and the same output to the bit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from deforum_helpers.model_files import ModelInfo, identify_parts, inspect_model, read_tensor_file
from deforum_helpers.variants import VARIANTS, Variant
from deforum_helpers.wan.loading import load_dit, load_vae
from deforum_helpers.wan.machine import choose_machine
from deforum_helpers.wan.text_encoder import TextEncoder
from deforum_helpers.wan.weights import load_state
from diffusers_twin import MAPPING, renamed
from golden_format import GOLDEN, load_fixture
from layout_writers import BUNDLED, WRITERS, read_demo

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
CPU = torch.device("cpu")


def loaded(info: ModelInfo, part: str) -> dict[str, Tensor]:
    return dict(load_state(info.parts[part], CPU, torch.float32))


@pytest.mark.parametrize("layout", WRITERS)
def test_layout(layout: str, tmp_path: Path) -> None:
    """demo: the tensors as they were written; for quantised layouts, what the stored values are worth."""
    demo = read_demo()
    path = WRITERS[layout](tmp_path / "somewhere", demo)
    info = inspect_model(path).require()
    assert info.variant == "demo"
    for part, wanted in demo.items():
        got = loaded(info, part)
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], value.float()) for name, value in wanted.items())


@pytest.mark.parametrize("layout", ["diffusers", "GGUF"])
def test_output_is_the_same(layout: str, tmp_path: Path) -> None:
    demo = read_demo()
    info = inspect_model(WRITERS[layout](tmp_path / "there", demo)).require()
    for part, file in (("dit", "diffusion_pytorch_model"), ("vae", "vae"), ("text_encoder", "text_encoder")):
        (tmp_path / "plain").mkdir(exist_ok=True)
        save_file(
            {name: value.float() for name, value in demo[part].items()}, tmp_path / "plain" / f"{file}.safetensors"
        )
    plain = inspect_model(tmp_path / "plain")
    plain = dataclasses.replace(plain, parts={**plain.parts, "tokenizer": inspect_model(BUNDLED).parts["tokenizer"]})
    assert all(torch.equal(a, b) for a, b in zip(output(info), output(plain), strict=True))


def output(info: ModelInfo) -> tuple[Tensor, Tensor, Tensor]:
    """(context of a prompt, velocity, decoded frames)."""
    machine = choose_machine("cpu", "float32")
    encoder = TextEncoder(info.parts["text_encoder"], info.parts["tokenizer"], info.row.text_len, CPU, torch.float32)
    dit, vae = load_dit(info.parts["dit"], info.row, machine), load_vae(info.parts["vae"], info.row, machine)
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        context = encoder.encode(["a red ball"])
        velocity = dit(latents, torch.tensor([700.0]), dit.condition(context))
        frames = torch.cat(list(vae.decode(latents)), dim=2)
    return context.clone(), velocity.clone(), frames.clone()


def test_the_docs_list_every_layout() -> None:
    rows = [line.split("|")[1].strip() for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row for row in rows if row in WRITERS] == list(WRITERS)


# Parts that the demo doesn't have, from the golden fixtures' tiny models


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Variant]:
    """Make a fixture's tiny backbone a variant, so that it can be recognised."""

    def add(config: dict[str, object], **fields: object) -> Variant:
        names = ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "freq_dim", "text_dim", "text_len")
        row = dataclasses.replace(
            VARIANTS["demo"], name="tiny", **{name: config[name] for name in names}, **fields
        )  # fmt: skip
        monkeypatch.setitem(VARIANTS, "tiny", row)
        return row

    return add


@pytest.mark.parametrize("case", ["dit_i2v", "dit_flf2v", "dit_vace", "dit22_i2v", "dit22_ti2v"])
@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_backbones_of_all_kinds(case: str, layout: str, tiny: Callable[..., Variant], tmp_path: Path) -> None:
    fixture = load_fixture(GOLDEN / f"{case}.safetensors")
    weights = fixture.part("w.")
    image = weights.get("img_emb.proj.0.weight")
    positions = weights.get("img_emb.emb_pos")
    tiny(
        fixture.config["config"],
        image_tokens=0 if image is None else 257 if positions is None else positions.shape[1],
        image_dim=0 if image is None else len(image),
        image_pos_emb=positions is not None,
        vace_layers=tuple(fixture.config["config"].get("vace_layers", ())),
        vace_in_dim=fixture.config["config"].get("vace_in_dim", 0),
    )
    save_file(weights if layout == "official" else renamed(weights, MAPPING["dit"]), tmp_path / "x.safetensors")
    (part,) = identify_parts([read_tensor_file(tmp_path / "x.safetensors")])
    assert (part.part, part.layout, part.problems) == ("dit", layout, ())
    got = dict(load_state(part, CPU, torch.float32))
    assert got.keys() == weights.keys()
    assert all(torch.equal(got[name], value) for name, value in weights.items())


@pytest.mark.parametrize(("case", "section"), [("vae21", "vae_2.1"), ("vae22", "vae_2.2")])
@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_both_autoencoders(case: str, section: str, layout: str, tmp_path: Path) -> None:
    weights = load_fixture(GOLDEN / f"{case}.safetensors").part("w.")
    save_file(weights if layout == "official" else renamed(weights, MAPPING[section]), tmp_path / "x.safetensors")
    (part,) = identify_parts([read_tensor_file(tmp_path / "x.safetensors")])
    assert (part.part, part.layout, part.problems) == ("vae", layout, ())
    got = dict(load_state(part, CPU, torch.float32))
    assert got.keys() == weights.keys()
    assert all(torch.equal(got[name], value) for name, value in weights.items())


def _transformers_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for name, value in state.items():
        if "to_qkv" in name:
            layer = name.split(".")[2]
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                place = f"vision_model.encoder.layers.{layer}.self_attn.{part}_proj.{name.rsplit('.', 1)[1]}"
                result[place] = rows.contiguous()
            continue
        table = {ours: theirs.split(" (")[0] for ours, theirs in MAPPING["clip_visual"].items()}
        ((foreign, _),) = renamed({name: value}, table).items()
        result[foreign] = value
    result["vision_model.embeddings.class_embedding"] = state["visual.cls_embedding"].reshape(-1)
    result["vision_model.embeddings.position_embedding.weight"] = state["visual.pos_embedding"][0].contiguous()
    result["visual_projection.weight"] = state["visual.head"].t().contiguous()
    result["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    return result


def _open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    table = {
        "visual.pre_norm": "visual.ln_pre", "visual.post_norm": "visual.ln_post", "norm1": "ln_1", "norm2": "ln_2",
        "visual.patch_embedding": "visual.conv1", "attn.proj": "attn.out_proj", "mlp.0": "mlp.c_fc",
        "mlp.2": "mlp.c_proj", "visual.cls_embedding": "visual.class_embedding", "visual.head": "visual.proj",
        "visual.pos_embedding": "visual.positional_embedding", "visual.transformer.": "visual.transformer.resblocks.",
        "attn.to_qkv.": "attn.in_proj_",
    }  # fmt: skip
    result = {}
    for name, value in state.items():
        for ours, theirs in table.items():
            name = name.replace(ours, theirs)
        result[name] = value
    result["visual.class_embedding"] = state["visual.cls_embedding"].reshape(-1)
    result["visual.positional_embedding"] = state["visual.pos_embedding"][0].contiguous()
    return {**result, "logit_scale": torch.ones(()), "text.transformer.x": torch.ones(2)}


@pytest.mark.parametrize("layout", ["official", "transformers", "open_clip"])
def test_image_encoder(layout: str, tmp_path: Path) -> None:
    weights = load_fixture(GOLDEN / "clip_visual.safetensors").part("w.")
    convert = {"official": dict, "transformers": _transformers_clip, "open_clip": _open_clip}[layout]
    extra = {"textual.token_embedding.weight": torch.ones(3), "log_scale": torch.ones(())}
    state = {**convert(weights), **(extra if layout == "official" else {})}
    save_file(state, tmp_path / "x.safetensors")
    (part,) = identify_parts([read_tensor_file(tmp_path / "x.safetensors")])
    assert (part.part, part.layout, part.problems) == ("image_encoder", layout, ())
    got = dict(load_state(part, CPU, torch.float32))
    unused = {"visual.head", "visual.post_norm.weight", "visual.post_norm.bias"}
    assert got.keys() == weights.keys() - unused
    assert all(torch.equal(value, weights[name]) for name, value in got.items())
