"""Presets: the built-in ones against every model, and the user's files, however they are named or damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from deforum_helpers import presets
from deforum_helpers.errors import InputError, OutputError, SettingsError
from deforum_helpers.presets import PresetFolder, apply_preset, builtin_presets, preset_values
from deforum_helpers.settings import FIELDS, RenderSettings, settings_to_dict, settings_to_text
from deforum_helpers.variants import DEMO, VARIANTS
from hypothesis import given, strategies

BUILT_IN = [(variant, preset) for variant in VARIANTS.values() for preset in builtin_presets(variant)]


@pytest.fixture
def folder(tmp_path: Path) -> PresetFolder:
    return PresetFolder(tmp_path / "made when needed" / "presets")


# Built in


@pytest.mark.parametrize(("variant", "preset"), BUILT_IN, ids=lambda value: value.name)
def test_built_in_presets_hold_real_fields_that_suit_the_model(variant, preset):
    assert preset.built_in and preset.description and set(preset.settings) <= set(FIELDS)
    settings, notes = apply_preset(RenderSettings(), preset)
    assert notes == []
    assert preset_values(settings, with_content=True).items() >= preset.settings.items()
    if "width" in preset.settings:
        assert (settings.width, settings.height) in variant.sizes
    assert settings.context_frames < variant.window_frames


def test_what_each_model_is_offered():
    names = {name: [preset.name for preset in builtin_presets(variant)] for name, variant in VARIANTS.items()}
    assert names[DEMO] == ["Quick look", "Quality", "Long take", "Loop", "Hard cuts"]
    assert {name for name, offered in names.items() if "Loop" not in offered} == {
        "wan2.1-i2v-14B-480P", "wan2.1-i2v-14B-720P", "wan2.2-i2v-A14B", "wan2.1-fun-inp-1.3B",
    }, "they take no last frame"  # fmt: skip
    assert names["wan2.1-t2v-14B"] == ["Quick look", "Quality", "4 steps", "Long take", "Loop", "Hard cuts", "Portrait"]
    assert "Hard cuts" not in names["wan2.1-i2v-14B-480P"], "a clip after a cut would have no picture"
    quick = {preset.name: preset for preset in builtin_presets(VARIANTS["wan2.1-t2v-14B"])}["Quick look"].settings
    assert (quick["width"], quick["height"], quick["num_inference_steps"]) == (832, 480, "20")


def test_a_built_in_preset_undoes_another_one_s_sampling():
    by_name = {preset.name: preset for preset in builtin_presets(VARIANTS["wan2.1-t2v-14B"])}
    settings = apply_preset(RenderSettings(), by_name["4 steps"])[0]
    assert (settings.num_inference_steps, settings.guidance_scale) == ("4", "1")
    settings = apply_preset(settings, by_name["Quality"])[0]
    assert (settings.num_inference_steps, settings.guidance_scale, settings.solver) == ("", "", "")


def test_a_loop_is_undone_by_what_can_be_none():
    by_name = {preset.name: preset for preset in builtin_presets(VARIANTS[DEMO])}
    settings = apply_preset(RenderSettings(), by_name["Loop"])[0]
    assert settings.loop
    for name in ("Long take", "Hard cuts"):
        assert not apply_preset(settings, by_name[name])[0].loop


# The user's own


def test_save_get_rename_delete(folder):
    assert folder.presets() == [] and not folder.folder.exists()
    settings = RenderSettings(prompts={"0": "secret"}, width=640, seed=5, guidance_scale="0: (5), 30: (7)")
    saved = folder.save("Mine", preset_values(settings), description="for hills")
    assert folder.get("Mine") == saved and folder.presets() == [saved]
    assert "prompts" not in saved.settings and "seed" not in saved.settings
    applied, notes = apply_preset(RenderSettings(prompts={"0": "kept"}, seed=9), saved)
    assert (applied.prompts, applied.seed, applied.width, applied.guidance_scale, notes) == (
        {"0": "kept"}, 9, 640, settings.guidance_scale, [],
    )  # fmt: skip
    assert folder.rename("Mine", "Hills 2").settings == saved.settings
    assert [preset.name for preset in folder.presets()] == ["Hills 2"]
    folder.delete("Hills 2")
    assert folder.presets() == []
    for call in (lambda: folder.get("Mine"), lambda: folder.delete("Mine"), lambda: folder.rename("Mine", "x")):
        with pytest.raises(InputError, match="no such preset"):
            call()


def test_a_preset_with_content_keeps_everything(folder):
    settings = RenderSettings(prompts={"0": "日の出"}, seed=5, soundtrack="/a.mp3")
    preset = folder.save("All", preset_values(settings, with_content=True))
    assert apply_preset(RenderSettings(), folder.get("All"))[0] == settings and preset.settings["seed"] == 5


def test_names_that_differ_only_in_case_or_encoding_are_one(folder):
    folder.save("Caf\u00e9", {"width": 640})
    for same in ("Cafe\u0301", "CAF\u00c9"):
        assert folder.get(same).settings == {"width": 640}
        with pytest.raises(InputError, match="of this name"):
            folder.save(same, {"width": 320})
    folder.save("CAF\u00c9", {"width": 320}, overwrite=True)
    assert [preset.name for preset in folder.presets()] == ["Caf\u00e9"]
    assert folder.rename("caf\u00e9", "CAFE\u0301").name == "CAF\u00c9"
    assert [preset.name for preset in folder.presets()] == ["CAF\u00c9"]


BAD_NAMES = [
    "", " ", ".", "..", "../up", "a/b", "a\\b", "/etc/passwd", "C:", "C:\\x", "con", "CON.txt", "nul", "Com1",
    "COM\u00b9", "lpt9.json", "aux .x", "conin$", ".hidden", "trailing.", "trailing ", " leading", "nul\0",
    "new\nline", "tab\t",
    "a" * 81, "\U0001f388" * 60, "half\ud800", "\u202egnp.exe", "zero\u200bwidth", "what?", "a*b", '"q"', "a|b", "<x>",
    "Quality", "quality", "\ufeffbom",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_cannot_be(folder, name):
    folder.save("good", {"width": 640})
    before = sorted(folder.folder.parent.rglob("*"))
    for call in (
        lambda: folder.save(name, {"width": 640}), lambda: folder.rename("good", name), lambda: folder.get(name),
        lambda: folder.delete(name), lambda: folder.import_text('{"width": 640}', name),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()
    assert sorted(folder.folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["日の出", "a.b", "it's 100 % (new) [x] #1", "👩\u200d🎨", "\U0001f388" * 40, "console", "x" * 80]
)
def test_names_that_can_be(folder, name):
    folder.save(name, {"width": 640})
    assert [preset.name for preset in folder.presets()] == [name] and folder.notices == []


@given(strategies.text(max_size=90))
def test_no_name_leaves_the_folder(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("names")
    folder = PresetFolder(root / "presets")
    try:
        folder.save(name, {"width": 640})
    except InputError:
        assert list(root.iterdir()) == []
    else:
        assert [path.name for path in root.rglob("*.json")] == [f"{folder.presets()[0].name}.json"]
        assert sorted(path.name for path in root.iterdir()) == ["presets"]


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    folder.save("good", {"width": 640})
    secret = tmp_path / "secret.json"
    secret.write_text('{"width": 320}')
    (folder.folder / "evil.json").symlink_to(secret)
    assert [preset.name for preset in folder.presets()] == ["good"]
    with pytest.raises(InputError):
        folder.save("evil", {"width": 640}, overwrite=True)
    assert secret.read_text() == '{"width": 320}'


# Default


def test_default_follows_rename_and_ends_with_delete(folder):
    assert folder.default == ""
    folder.set_default("Quality")
    assert folder.default == "Quality"
    folder.save("Mine", {"width": 640})
    folder.set_default("MINE")
    assert folder.default == "Mine"
    folder.rename("Mine", "Other")
    assert PresetFolder(folder.folder).default == "Other"
    folder.delete("Other")
    assert folder.default == ""
    with pytest.raises(InputError, match="no such preset"):
        folder.set_default("Other")
    (folder.folder / "default.txt").write_bytes(b"\xff../../x\n")
    assert folder.default == "" and folder.presets() == []


# Files


def write(folder: PresetFolder, name: str, content: object) -> Path:
    folder.folder.mkdir(parents=True, exist_ok=True)
    path = folder.folder / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


V1 = {"format": "deforum-wan-preset", "version": 1}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b"null", b'{"width": NaN}', {"no": "setting"}, b"x" * 1_100_000,
     {**V1, "settings": []}, {**V1, "settings": {}}, {**V1, "version": "1"}, {**V1, "version": -1},
     {**V1, "description": 5, "settings": {"width": 640}}],
    ids=lambda content: ascii(content)[:30],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_with_a_word(folder, content):
    folder.save("good", {"width": 640})
    path = write(folder, "bad", content)
    kept = path.read_bytes()
    assert [preset.name for preset in folder.presets()] == ["good"]
    assert len(folder.notices) == 1 and "bad.json was damaged and set aside as bad.json.damaged-" in folder.notices[0]
    assert not path.exists()
    [aside] = folder.folder.glob("bad.json.damaged-*")
    assert aside.read_bytes() == kept
    folder.presets()
    assert len(folder.notices) == 1


def test_a_newer_preset_is_left_alone(folder):
    path = write(folder, "future", {**V1, "version": 2, "settings": {"width": 640}})
    assert folder.presets() == [] and path.exists()
    assert "future.json is left out" in folder.notices[0] and "newer version" in folder.notices[0]


def test_plain_settings_files_are_presets_too(folder):
    write(folder, "exported", settings_to_dict(RenderSettings(width=640, shift="3", extra={"cn_1_model": "0: (1)"})))
    write(folder, "deforum", {"W": 320, "cfg_scale_schedule": "0: (6)", "steps": 12, "sampler": "euler", "seq": 1})
    deforum, exported = folder.presets()
    assert deforum.settings == {
        "width": 320, "guidance_scale": "0: (6)", "num_inference_steps": 12, "solver": "euler",
    }  # fmt: skip
    assert apply_preset(RenderSettings(), exported)[0].shift == "3"
    assert apply_preset(RenderSettings(), deforum)[0].num_inference_steps == "12"
    assert folder.notices == []


def test_migrations_run_from_the_file_s_version(folder, monkeypatch):
    def two(raw: dict) -> dict:
        return {**raw, "settings": {**raw["settings"], "crf": 3}}

    write(folder, "old", {**V1, "settings": {"width": 640}})
    monkeypatch.setattr(presets, "VERSION", 2)
    monkeypatch.setitem(presets._MIGRATIONS, 1, two)
    assert folder.get("old").settings == {"width": 640, "crf": 3}
    folder.rename("old", "new")
    folder.save("new", folder.get("new").settings, overwrite=True)
    assert json.loads((folder.folder / "new.json").read_text())["version"] == 2


def test_unknown_fields_stay(folder):
    future = {**V1, "colour": "red", "settings": {"width": 640, "warp_drive": [1, {"a": None}]}}
    write(folder, "mine", future)
    preset = folder.get("mine")
    settings, notes = apply_preset(RenderSettings(), preset)
    assert settings == RenderSettings(width=640) and "warp_drive" in notes[0]
    folder.rename("mine", "ours")
    folder.save("ours", {"width": 320}, description="new", overwrite=True)
    stored = json.loads((folder.folder / "ours.json").read_text())
    assert stored == {
        **future, "description": "new", "settings": {"width": 320, "warp_drive": [1, {"a": None}]},
    }  # fmt: skip
    assert json.loads(folder.export_text("ours")) == stored


def test_export_and_import(folder, tmp_path):
    folder.save("Mine", {"width": 640}, description="日")
    text = folder.export_text("Mine")
    other = PresetFolder(tmp_path / "other")
    assert other.import_text(text.encode(), "Mine") == folder.get("Mine")
    with pytest.raises(InputError, match="of this name"):
        other.import_text(text, "mine")
    assert other.import_text('{"W": 320}', "mine", overwrite=True).settings == {"width": 320}
    assert other.import_text(settings_to_text(RenderSettings()), "whole").settings["width"] == 832


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"W": 13}', "width"), ('{"W": "wide"}', "width"), ("[]", "object"), ("{", "JSON"), ('{"a": 1}', "none of the"),
     (b"\xff", "UTF-8"), (json.dumps({**V1, "version": 7, "settings": {"width": 640}}), "newer"),
     (json.dumps({**V1, "settings": {"width": 640}, "odd": "\ud800"}), "can't hold"), (" " * 1_100_000, "too large"),
     ('{"format": "deforum-wan-preset", "version": 1, "settings": {"width": 1e400}}', "width|finite"),
     (json.dumps({**V1, "settings": {"width": 640}, "x": 0}).replace(": 0", ": " + "[" * 200 + "]" * 200), "nested")],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_what_cannot_be_imported_is_said_and_not_written(folder, text, words):
    with pytest.raises(InputError, match=words):
        folder.import_text(text, "new")
    assert not folder.folder.exists()


def test_saving_refuses_what_no_render_could_use(folder):
    with pytest.raises(SettingsError, match="width"):
        folder.save("bad", {"width": 641})
    with pytest.raises(SettingsError, match="can't hold"):
        folder.save("bad", {"width": 640, "x": {1, 2}})
    assert not folder.folder.exists()


def test_what_is_saved_can_be_read_again_however_much_it_is(folder):
    """Written with indents, it is larger than it came."""
    short = json.dumps({**V1, "settings": {"width": 640}, "x": list(range(10))}, indent=None)
    folder.import_text(short, "short")
    with pytest.raises(SettingsError, match="this much"):
        folder.import_text(json.dumps({**V1, "settings": {"width": 640}, "x": [0] * 200_000}), "long")
    assert [preset.name for preset in folder.presets()] == ["short"] and folder.notices == []


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder can't be made"):
        PresetFolder(tmp_path / "file" / "presets").save("a", {"width": 640})


def test_a_save_that_fails_leaves_the_old_preset(folder, monkeypatch):
    folder.save("Mine", {"width": 640})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        folder.save("Mine", {"width": 320}, overwrite=True)
    assert folder.get("Mine").settings == {"width": 640}
    assert [path.name for path in folder.folder.iterdir()] == ["Mine.json"]
