"""The `loras` field: how it is read, which files it means, and that a clip's request says what acts in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from deforum_helpers.errors import DeforumWanError, SettingsError
from deforum_helpers.lora_files import find_loras, lora_beside, lora_folders, used_loras
from deforum_helpers.model_files import inspect_model
from deforum_helpers.planning.loras import lora_lines, renamed_loras
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import plan
from deforum_helpers.variants import VARIANTS
from deforum_helpers.web import host, paths
from hypothesis import given
from hypothesis import strategies as st
from sparse_models import write_sparse

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
PAIR = {
    "diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 160),
    "diffusion_model.blocks.0.self_attn.q.lora_B.weight": (160, 4),
}
OTHERS = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": (4, 320)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "extension"
    write_sparse(root / "models/lora/ink.safetensors", PAIR)
    write_sparse(root / "models/lora/styles/Grain.safetensors", PAIR)
    write_sparse(root / "models/lora/sd15.safetensors", OTHERS)
    write_sparse(root / "models/lora/wide.safetensors", {name: tuple(1536 if n == 160 else n for n in shape)
                                                         for name, shape in PAIR.items()})  # fmt: skip
    return root


def used(loras: str, root: Path):
    return used_loras(RenderSettings(loras=loras), inspect_model(DEMO), lora_folders(root))


def test_one_a_line_with_a_number_or_a_schedule_or_in_a_tag() -> None:
    lines = lora_lines("ink = 0.5\n\n  # a thought\nstyles/Grain\n<lora:fog:0.8>\nglow = 0:(0.1), 20:(0.9)")
    assert [(line.name, line.strength, line.line) for line in lines] == [
        ("ink", "0.5", 1), ("styles/Grain", "", 4), ("fog", "0.8", 5), ("glow", "0:(0.1), 20:(0.9)", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("= 0.5", "line 1 names no file"),
        ("a = 1\nA = 2", "line 2 names \"A\" a second time"),
        ("\n".join(f"n{k}" for k in range(17)), "too many at once"),
    ],
)
def test_lines_that_cant_be_meant(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        lora_lines(text)
    assert caught.value.where == "loras"


@pytest.mark.parametrize("strength", ["eleven", "11", "0:(1", "0:(1/0)"])
def test_a_strength_that_cant_be_used_names_its_line(strength: str) -> None:
    with pytest.raises(DeforumWanError, match="loras, line 2"):
        plan(RenderSettings(prompts={"0": "a"}, loras=f"x = 1\ny = {strength}"), VARIANTS["demo"], 1)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        lora_lines(text)
    except SettingsError as error:
        assert "\n" not in error.one_line()


def test_the_strength_acts_clip_by_clip() -> None:
    settings = RenderSettings(prompts={"0": "a"}, max_frames=40, loras="x = 0:(0), 39:(0.39)\ny = 0:(0)", width=128,
                              height=80)  # fmt: skip
    decided = plan(settings, VARIANTS["demo"], 1)
    assert decided.clips[0].loras == ()
    assert len(decided.clips) > 2
    for clip in decided.clips[1:]:
        assert dict(clip.loras)["x"] == pytest.approx(clip.start_frame / 100)
        assert "y" not in dict(clip.loras)


def test_files_are_named_by_their_place_in_the_folder(folder: Path) -> None:
    assert [lora.name for lora in find_loras(lora_folders(folder))] == ["ink", "styles/Grain", "wide"]
    for name in ("ink", "INK.safetensors", "styles/grain", "Grain", str(folder / "models/lora/ink.safetensors")):
        (lora,) = used(f"{name} = 0.5", folder)
        assert Path(lora.path).stem.lower() in name.lower()


def test_a_file_that_isnt_there_or_doesnt_fit_is_told_before_anything_runs(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such LoRA; got 'inc'; allowed: ink, styles/Grain, wide.*models/lora"):
        used("inc", folder)
    with pytest.raises(SettingsError, match=r"line 1: is not a LoRA of this model.*\[160, 160\].*\[4, 1536\]"):
        used("wide", folder)
    (folder / "models/lora/page.safetensors").write_text("<!DOCTYPE html>" + " " * 99)
    with pytest.raises(SettingsError, match="line 1: is a web page, not weights"):
        used("page", folder)


@pytest.mark.parametrize("name", ["~nobody-here/ink", "/" + 3000 * "x", "../lora/ink", "/nowhere/ink.safetensors"])
def test_odd_names_are_no_file(name: str, folder: Path) -> None:
    with pytest.raises(SettingsError, match="no such LoRA"):
        used(name, folder)
    assert all(error.where == "loras" for error in paths.foreign_paths(RenderSettings(loras=name)))


def test_two_files_of_one_name_are_told_apart(folder: Path) -> None:
    write_sparse(folder / "models/lora/more/Grain.safetensors", PAIR)
    with pytest.raises(SettingsError, match="name of several files"):
        used("Grain", folder)
    assert used("more/Grain", folder)[0].path.endswith("Grain.safetensors")
    assert Path(used("more/Grain", folder)[0].path).parent.name == "more"


def test_a_changed_file_is_another_lora(folder: Path) -> None:
    before = used("ink", folder)[0].identity
    path = folder / "models/lora/ink.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert used("ink", folder)[0].identity != before


def test_of_two_experts_a_file_changes_the_one_it_names(tmp_path: Path) -> None:
    from sparse_models import comfyui

    models = comfyui(tmp_path / "models")
    pair = {name: tuple(5120 if n == 160 else n for n in shape) for name, shape in PAIR.items()}
    for name in ("fast_high_noise", "fast_low_noise", "ink"):
        write_sparse(models / f"loras/{name}.safetensors", pair)
    model = inspect_model(models / "diffusion_models/wan2.2_t2v_high_noise_14B_fp8.safetensors")
    settings = RenderSettings(loras="fast_high_noise\nfast_low_noise\nink")
    assert [lora.expert for lora in used_loras(settings, model, [models / "loras"])] == ["high", "low", ""]


def test_links_that_go_round_have_an_end(folder: Path) -> None:
    (folder / "models/lora/styles/again").symlink_to(folder / "models/lora", target_is_directory=True)
    (folder / "models/lora/itself.safetensors").symlink_to(folder / "models/lora/itself.safetensors")
    assert [lora.name for lora in find_loras(lora_folders(folder))] == ["ink", "styles/Grain", "wide"]


def test_a_file_beside_the_settings_file(folder: Path) -> None:
    """By a path with its ending; all else of the field stays as written."""
    place = folder / "models/lora"
    beside = renamed_loras(
        "# mine\nstyles/Grain.safetensors = 0:(0.5)\n<lora:ink:0.3>\n./ink.safetensors",
        lambda name: lora_beside(name, place),
    )
    assert beside.splitlines() == [
        "# mine", f"{place / 'styles/Grain.safetensors'} = 0:(0.5)", "<lora:ink:0.3>", str(place / "ink.safetensors"),
    ]  # fmt: skip
    assert lora_beside("gone.safetensors", place) == "gone.safetensors"
    assert lora_beside("ink", place) == "ink"


def test_from_another_machine_no_path_out_of_the_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "readable_folders", lambda: [tmp_path / "in"])
    for name in ("/etc/passwd", "../../secret", str(tmp_path / "x.safetensors")):
        (error,) = paths.foreign_paths(RenderSettings(loras=f"{name} = 1"))
        assert error.where == "loras"
    assert not paths.foreign_paths(RenderSettings(loras="styles/ink = 1"))
