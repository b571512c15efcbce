"""Identification, on headers with the real checkpoints' names, shapes and sizes (sparse files)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import find_models, inspect_model
from deforum_helpers.errors import ModelError
from deforum_helpers.model_files import identify_parts, inspect_models, read_tensor_file
from deforum_helpers.model_files.fault import Fault
from deforum_helpers.model_files.info import Missing, ModelInfo
from deforum_helpers.model_files.layouts import LAYOUTS
from deforum_helpers.model_files.tensors import dit_sizes_of_variant, dit_tensors
from deforum_helpers.variants import DEMO, VARIANTS
from sparse_models import (
    MANIFESTS,
    comfyui,
    manifest,
    official_t2v,
    write_raw,
    write_shards,
    write_sparse,
    write_tokenizer,
)

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "demo"

VARIANT_OF = {
    "wan2.1_t2v_1.3B": "wan2.1-t2v-1.3B",
    "wan2.1_t2v_14B": "wan2.1-t2v-14B",
    "wan2.1_i2v_14B": "wan2.1-i2v-14B-480P",
    "wan2.1_flf2v_14B": "wan2.1-flf2v-14B",
    "wan2.1_vace_1.3B": "wan2.1-vace-1.3B",
    "wan2.1_vace_14B": "wan2.1-vace-14B",
    "wan2.2_ti2v_5B": "wan2.2-ti2v-5B",
    "wan2.2_i2v_A14B": "wan2.2-i2v-A14B",
}
PREFIXES = ("", "model.diffusion_model.", "model.", "diffusion_model.", "transformer.", "net.")


@pytest.fixture
def t2v(tmp_path: Path) -> Path:
    return official_t2v(tmp_path / "Wan2.1-T2V-1.3B")


# What a file is


@pytest.mark.parametrize("name", sorted(path.stem for path in MANIFESTS.glob("*.*.json")))
def test_every_published_checkpoint_is_identified(name: str, tmp_path: Path) -> None:
    """A file's name says nothing here: all are called x."""
    checkpoint, layout = name.rsplit(".", 1)
    (part,) = identify_parts([read_tensor_file(write_sparse(tmp_path / "x.safetensors", manifest(name)))])
    assert part.problems == ()
    assert part.layout == layout
    kind = {"umt5": "text_encoder", "clip": "image_encoder"}.get(checkpoint.split("_")[0])
    kind = kind or ("vae" if checkpoint.endswith("_vae") else "dit")
    assert part.part == kind
    if checkpoint in VARIANT_OF:
        assert inspect_model(tmp_path).variant == VARIANT_OF[checkpoint]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_prefixes_of_repacks(prefix: str, layout: str, tmp_path: Path) -> None:
    tensors = {prefix + name: shape for name, shape in manifest(f"wan2.1_vace_1.3B.{layout}").items()}
    path = write_sparse(tmp_path / "x.safetensors", {**tensors, "first_stage_model.x": (3,)} if prefix else tensors)
    (part,) = identify_parts([read_tensor_file(path)])
    assert (part.part, part.prefix, part.layout, part.problems) == ("dit", prefix, layout, ())


def test_the_tables_of_names_are_the_published_mapping() -> None:
    """name_mapping.json was checked as a bijection on every checkpoint; the tables must say the same."""
    published = json.loads((MANIFESTS / "name_mapping.json").read_text("utf-8"))
    tables = {(layout.part, layout.name): [] for layout in LAYOUTS}
    for layout in LAYOUTS:
        tables[layout.part, layout.name].append(layout)
    for section, key in (("dit", "dit"), ("vae_2.1", "vae"), ("vae_2.2", "vae"), ("umt5", "text_encoder")):
        theirs = "transformers" if key == "text_encoder" else "diffusers"
        for official, foreign in published[section].items():
            found = {layout.official(foreign.replace("{i}", "7")) for layout in tables[key, theirs]}
            assert (official.replace("{i}", "7"), 0) in found, foreign


def test_a_combined_checkpoint_gives_each_of_its_parts(tmp_path: Path) -> None:
    tensors = {f"model.diffusion_model.{n}": s for n, s in manifest("wan2.1_t2v_1.3B.official").items()}
    tensors |= {f"vae.{n}": s for n, s in manifest("wan2.1_vae.official").items()}
    tensors |= {f"text_encoders.umt5xxl.{n}": s for n, s in manifest("umt5_xxl_enc.transformers").items()}
    parts = identify_parts([read_tensor_file(write_sparse(tmp_path / "x.safetensors", tensors))])
    assert [(p.part, p.prefix, p.problems) for p in parts] == [
        ("dit", "model.diffusion_model.", ()),
        ("vae", "vae.", ()),
        ("text_encoder", "text_encoders.umt5xxl.", ()),
    ]


def test_scaled_fp8_in_its_spellings(tmp_path: Path) -> None:
    tensors = dict(manifest("wan2.1_t2v_1.3B.official"))
    layers = [name[: -len(".weight")] for name in tensors if name.endswith("attn.q.weight")]
    old = {"scaled_fp8": (2,), **{f"{n}.scale_weight": () for n in layers}, **{f"{n}.scale_input": () for n in layers}}
    new = {**{f"{n}.weight_scale": (1536, 1) for n in layers}, **{f"{n}.comfy_quant": (33,) for n in layers}}
    for extra in (old, new):
        path = write_sparse(tmp_path / "x.safetensors", {**tensors, **extra}, "F8_E4M3")
        (part,) = identify_parts([read_tensor_file(path)])
        assert (part.problems, part.quantization, part.dtype) == ((), "scaled", "F8_E4M3")
        scale = part.sources["blocks.3.self_attn.q.weight"].scales[0]
        assert scale.startswith("blocks.3.self_attn.q.") and "scale" in scale
        assert part.sources["blocks.3.self_attn.o.weight"].scales == ("",)


def test_quanto_and_doubled_block_levels(tmp_path: Path) -> None:
    tensors = {}
    for name, shape in manifest("wan2.1_t2v_1.3B.official").items():
        name = name.replace("blocks.4.", "blocks.4.block.")
        if name.endswith("ffn.0.weight"):
            tensors |= {f"{name}._data": shape, f"{name}._scale": (shape[0], 1), f"{name[:-7]}.input_scale": ()}
        else:
            tensors[name] = shape
    (part,) = identify_parts([read_tensor_file(write_sparse(tmp_path / "x.safetensors", tensors))])
    assert part.problems == ()
    assert part.sources["blocks.4.ffn.0.weight"].places[0][1] == "blocks.4.block.ffn.0.weight._data"
    assert part.sources["blocks.4.ffn.0.weight"].scales == ("blocks.4.block.ffn.0.weight._scale",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("blocks.7.norm3.bias"), "blocks.7.norm3.bias missing"),
        (
            lambda t: [t.pop(f"blocks.7.{n}") for n in ("modulation", "norm3.bias", "ffn.0.bias", "ffn.2.bias")],
            "1 more",
        ),
        (lambda t: t.update({"blocks.3.ffn.0.weight": (8960, 1537)}), r"blocks.3.ffn.0.weight is \[8960, 1537\], must"),
        (lambda t: t.update({"blocks.0.extra.weight": (4,)}), "blocks.0.extra.weight does not belong"),
        (lambda t: t.update({"patch_embedding.weight": (1600, 16, 1, 2, 2)}), "wrong size"),
        (lambda t: t.update({"patch_embedding.weight": (1536,)}), "missing|range"),
        (lambda t: t.update({"blocks.0.ffn.0.weight_scale_2": ()}), "nvfp4"),
    ],
)
def test_wrong_tensors_are_named(t2v: Path, change: object, says: str) -> None:
    tensors = manifest("wan2.1_t2v_1.3B.official")
    change(tensors)  # type: ignore[operator]
    write_sparse(t2v / "diffusion_pytorch_model.safetensors", tensors)
    info = inspect_model(t2v)
    assert not info.complete
    assert "diffusion_pytorch_model.safetensors: " in str(info.problems[0])
    with pytest.raises(ModelError, match=says):
        info.require()


@pytest.mark.parametrize("name", [name for name in VARIANTS if not VARIANTS[name].experts])
def test_every_row_of_the_table_is_told_from_the_others(name: str, tmp_path: Path) -> None:
    path = write_sparse(tmp_path / f"{name}.safetensors", dit_tensors(dit_sizes_of_variant(VARIANTS[name])))
    assert inspect_model(path).variant == name


def test_an_unknown_size_names_the_nearest_variant(tmp_path: Path) -> None:
    sizes = {**dit_sizes_of_variant(VARIANTS["wan2.1-t2v-1.3B"]), "num_layers": 20}
    write_sparse(tmp_path / "x.safetensors", dit_tensors(sizes))
    with pytest.raises(ModelError, match=r"nearest is Wan 2.1 T2V-1.3B, with num_layers 20 instead of 30"):
        inspect_model(tmp_path).require()


# What a folder is


@pytest.mark.parametrize(("shards", "index"), [(1, True), (6, True), (6, False)])
def test_an_official_folder_is_complete(tmp_path: Path, shards: int, index: bool) -> None:
    folder = official_t2v(tmp_path / "anything", "14B", shards, index)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > 60e9
    started = time.process_time()
    info = inspect_model(folder)
    assert time.process_time() - started < 1
    assert info.complete, info
    assert info.variant == "wan2.1-t2v-14B"
    assert set(info.parts) == {"dit", "vae", "text_encoder", "tokenizer"}
    assert len(info.parts["dit"].files) == shards
    assert info.capabilities == ("text to video", "continue a clip")
    assert info.reference == str(folder)
    assert inspect_model(info.parts["dit"].files[0]).parts == info.parts


def test_shards_under_any_names(t2v: Path) -> None:
    tensors = list(manifest("wan2.1_t2v_1.3B.official").items())
    write_sparse(t2v / "diffusion_pytorch_model.safetensors", dict(tensors[:500]))
    write_sparse(t2v / "the rest.safetensors", dict(tensors[500:]))
    info = inspect_model(t2v)
    assert info.complete, info
    assert len(info.parts["dit"].files) == 2


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(tmp_path: Path, index: bool) -> None:
    folder = official_t2v(tmp_path / "m", "14B", 6, index)
    (folder / "diffusion_pytorch_model-00003-of-00006.safetensors").unlink()
    info = inspect_model(folder)
    assert not info.complete
    assert any("00003" in problem.text for problem in info.problems)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    folder = official_t2v(tmp_path / "m", "14B", 6)
    path = folder / "diffusion_pytorch_model-00004-of-00006.safetensors"
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(ModelError, match="00004-of-00006"):
        inspect_model(folder).require()
    assert any("is truncated: tensor" in problem.text for problem in inspect_model(folder).problems)


@pytest.mark.parametrize(
    ("file", "part", "command"),
    [
        ("Wan2.1_VAE.safetensors", "vae", "Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth"),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", "text_encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
        ("google/umt5-xxl/tokenizer.json", "tokenizer", '--include "google/umt5-xxl/*"'),
    ],
)
def test_a_missing_part_comes_with_its_download(t2v: Path, file: str, part: str, command: str) -> None:
    (t2v / file).unlink()
    info = inspect_model(t2v)
    assert [gap.part for gap in info.missing] == [part]
    assert info.missing[0].command.startswith("hf download Wan-AI/Wan2.1-T2V-1.3B ")
    assert command in info.missing[0].command
    assert info.missing[0].command.endswith(f'--local-dir "{t2v}"')


@pytest.mark.parametrize(
    ("file", "tensors", "says"),
    [
        ("Wan2.1_VAE.safetensors", "wan2.2_vae.official", "48 latent channels, Wan 2.1 T2V-1.3B needs 16"),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", "t5", "is a T5 text encoder, Wan needs UMT5"),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", "clip", "is a CLIP text encoder, not a part of a Wan model"),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", "narrow", "text encoder of width 64, Wan 2.1 T2V-1.3B needs 4096"),
    ],
)
def test_a_part_of_another_model_is_told_so(t2v: Path, file: str, tensors: str, says: str) -> None:
    umt5 = manifest("umt5_xxl_enc.transformers")
    shapes = {
        "t5": {n: s for n, s in umt5.items() if "relative" not in n or "block.0." in n},
        "clip": {"text_model.embeddings.token_embedding.weight": (49408, 768)},
        "narrow": {n: tuple(64 if k == 4096 else k for k in s) for n, s in umt5.items()},
    }
    write_sparse(t2v / file, shapes.get(tensors) or manifest(tensors))
    info = inspect_model(t2v)
    assert not info.complete
    assert any(says in text for text in map(str, [*info.problems, *info.missing])), info


def test_the_demos_parts_are_never_lent_to_a_real_model(t2v: Path) -> None:
    """Its VAE has the right number of channels and its tokenizer the right special tokens."""
    (t2v / "Wan2.1_VAE.safetensors").unlink()
    (t2v / "google" / "umt5-xxl" / "tokenizer.json").unlink()
    real = next(model for model in find_models([t2v, BUNDLED]) if model.variant != DEMO)
    assert {gap.part for gap in real.missing} == {"vae", "tokenizer"}


def test_other_tokenizers_are_passed_over(t2v: Path) -> None:
    """Official image-to-video folders carry XLM-R's as well."""
    write_tokenizer(t2v / "a-first-in-order", special=("<s>", "<pad>", "</s>", "<unk>"))
    assert inspect_model(t2v).parts["tokenizer"].files == (str(t2v / "google" / "umt5-xxl"),)


def test_comfyui_folders_are_put_together(tmp_path: Path) -> None:
    models = {model.variant: model for model in inspect_models(comfyui(tmp_path))}
    assert set(models) == {"wan2.2-t2v-A14B", "wan2.1-i2v-14B-720P", "wan2.2-ti2v-5B"}
    for model in models.values():
        assert model.complete, model
        assert model.parts["tokenizer"].layout == "spiece_model"
        again = inspect_model(model.reference)
        assert (again.parts, again.variant, again.name) == (model.parts, model.variant, model.name)
        alone = inspect_model(model.path)
        assert (alone.parts, alone.variant) == (model.parts, model.variant)
    assert [Path(f).name for f in models["wan2.2-t2v-A14B"].parts["dit_high"].files] == [
        "wan2.2_t2v_high_noise_14B_fp8.safetensors"
    ]
    assert models["wan2.2-ti2v-5B"].parts["vae"].sizes["z_dim"] == 48
    assert "image_encoder" in models["wan2.1-i2v-14B-720P"].parts


def test_a_folder_of_several_models_asks_which(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds 3 models.*5b\.safetensors"):
        inspect_model(comfyui(tmp_path))


@pytest.mark.parametrize("kind", ["official", "diffusers"])
def test_two_experts(tmp_path: Path, kind: str) -> None:
    folder = official_t2v(tmp_path / "m")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    names = {"official": ("high_noise_model", "low_noise_model"), "diffusers": ("transformer", "transformer_2")}[kind]
    for name in names:
        write_shards(folder / name, "diffusion_pytorch_model", manifest(f"wan2.2_i2v_A14B.{kind}"), 2, index=True)
    info = inspect_model(folder)
    assert info.complete, info
    assert info.variant == "wan2.2-i2v-A14B"
    assert [Path(info.parts[part].files[0]).parent.name for part in ("dit_high", "dit_low")] == list(names)
    assert inspect_model(info.parts["dit_low"].files[1]).parts == info.parts


def test_one_expert_asks_for_the_other(tmp_path: Path) -> None:
    folder = official_t2v(tmp_path / "m")
    path = folder / "diffusion_pytorch_model.safetensors"
    write_sparse(path, manifest("wan2.2_i2v_A14B.official"))
    with pytest.raises(ModelError, match="which one this is must be in its name"):
        inspect_model(folder).require()
    path.rename(folder / "i2v_HIGH_noise.safetensors")
    (gap,) = inspect_model(folder).missing
    assert gap.part == "dit_low"
    assert "low_noise_model" in gap.command


def test_480p_or_720p_is_told_by_the_name(tmp_path: Path) -> None:
    for size in ("480P", "720P"):
        write_sparse(
            tmp_path / f"Wan2.1-I2V-14B-{size}" / "diffusion_pytorch_model.safetensors",
            manifest("wan2.1_i2v_14B.official"),
        )
        info = inspect_model(tmp_path / f"Wan2.1-I2V-14B-{size}")
        assert info.variant == f"wan2.1-i2v-14B-{size}"
        assert "the tensors of" in info.notes[0] or info.missing


def test_the_bundled_demo() -> None:
    info = inspect_model(BUNDLED)
    assert info.complete, info
    assert info.variant == DEMO
    assert info.capabilities == ("text to video", "image to video", "continue a clip")


# Hostile and broken folders


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="doesn't exist"):
        inspect_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no Wan model is there; get it with: hf download Wan-AI"):
        inspect_model(tmp_path).require()
    write_sparse(tmp_path / "vae.safetensors", manifest("wan2.1_vae.official"))
    with pytest.raises(ModelError, match="only the VAE is there"):
        inspect_model(tmp_path).require()
    with pytest.raises(ModelError, match="only the VAE is there"):
        inspect_model(tmp_path / "vae.safetensors").require()


def test_symlink_loops_end(t2v: Path) -> None:
    (t2v / "round").symlink_to(t2v, target_is_directory=True)
    (t2v / "and").mkdir()
    (t2v / "and" / "round").symlink_to(t2v.parent, target_is_directory=True)
    (t2v / "itself.safetensors").symlink_to(t2v / "itself.safetensors")
    info = inspect_model(t2v)
    assert info.complete, info
    assert any("itself.safetensors" in note for note in info.notes)


def test_unreadable_folders(t2v: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the system call itself, because tests may run as root, who reads everything."""
    listing = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder).name == "google":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr("deforum_helpers.model_files.folders.os.scandir", refusing)
    info = inspect_model(t2v)
    assert any("google: can't be read (Permission denied)" in problem.text for problem in info.problems)
    assert [gap.part for gap in info.missing] == ["tokenizer"]


def test_a_web_page_in_place_of_a_part(t2v: Path) -> None:
    (t2v / "Wan2.1_VAE.safetensors").write_text("<!DOCTYPE html><title>Log in</title>")
    info = inspect_model(t2v)
    assert any("Wan2.1_VAE.safetensors: is a web page" in problem.text for problem in info.problems)
    assert [gap.part for gap in info.missing] == ["vae"]
    assert inspect_model(t2v / "diffusion_pytorch_model.safetensors").problems == info.problems


def test_a_broken_file_that_nothing_needs_is_only_noted(t2v: Path) -> None:
    write_raw(t2v / "old.safetensors", b"{", 0)
    info = inspect_model(t2v)
    assert info.complete
    assert "old.safetensors" in info.notes[0]


@pytest.mark.parametrize("text", ["{", "{}", '{"name": "x", "dit": 3}', '{"name": "x", "dit": [3]}', "[]x"])
def test_a_reference_that_is_none(text: str) -> None:
    with pytest.raises(ModelError):
        inspect_model(text)


def test_what_is_wrong_brings_its_next_step_or_gets_the_download():
    """A fault's words may hold "; " and still tell of no next step."""
    lacking = (Missing("vae", "m: the VAE isn't there", "hf download it"),)
    for fault, told in (
        (Fault("a.pth: is too short; got 3"), "a.pth: is too short; got 3; get the VAE with: hf download it"),
        (Fault("a.pth: is a web page", "take the raw file"), "a.pth: is a web page; take the raw file"),
    ):
        with pytest.raises(ModelError) as caught:
            ModelInfo("m", "m", DEMO, problems=(fault,), missing=lacking).require()
        assert caught.value.one_line() == f"{told} (and 1 more: see check-model)"
