"""RenderSettings: what is refused and how it is worded, files in and out, Deforum's files, overrides."""

import dataclasses
import json
import math
import pickle
import string

import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.settings import (
    FIELDS,
    RenderSettings,
    apply_overrides,
    load_settings,
    settings_from_dict,
    settings_to_dict,
    settings_to_text,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 500, "multiple of 16; got 500; allowed: 16 to 4096, a multiple of 16; the nearest: 496 or 512"),
        ("width", 8, "out of range"), ("width", 4112, "out of range"), ("height", 0, "out of range"),
        ("width", "832", "must be a number"), ("width", 832.5, "whole number"), ("width", True, "must be a number"),
        ("width", None, "must be a number"), ("width", 10**400, "out of range"), ("width", math.inf, "must be finite"),
        ("fps", 0, "allowed: above 0, up to 240"), ("fps", -1, "out of range"), ("fps", math.nan, "must be finite"),
        ("fps", math.inf, "must be finite"), ("fps", 241, "out of range"), ("fps", "16", "must be a number"),
        ("max_frames", 0, "allowed: 1 to 1000000"), ("max_frames", 1_000_001, "out of range"),
        ("max_frames", -5, "out of range"), ("seed", -2, "allowed: -1 to 4294967295"), ("seed", 2**32, "out of range"),
        ("seed_iter_n", 0, "out of range"), ("crf", 52, "out of range"), ("window_frames", 80, "the nearest: 77 or 81"),
        ("solver", "heun", "allowed:.*unipc, dpm.., euler"), ("solver", "Euler", 'did you mean "euler"'),
        ("motion", "fast", "allowed: model, output"), ("continuity", "", "unknown choice"),
        ("codec", 3, "must be text"),
        ("make_gif", 1, "must be true or false"), ("make_gif", "false", "must be true or false"),
        ("init_image", "https://example.org/a.png", "nothing is fetched from the net"),
        ("soundtrack", 5, "must be text"),
        ("soundtrack", "ftp://example.org/a.mp3", "must be a file"), ("model", "s3://bucket/wan", "must be a file"),
        ("batch_name", "a/b", "not usable"), ("batch_name", "..", "not usable"), ("batch_name", "", "not usable"),
        ("device", "tpu", "allowed: auto, cpu, cuda, cuda:N, mps"), ("dtype", "int8", "unknown choice"),
        ("positive_prompt", "a\0b", "null"), ("positive_prompt", "\ud800", "surrogate"),
        ("positive_prompt", "x" * 20_001, "long"),
        ("guidance_scale", math.nan, "must be finite"), ("guidance_scale", [5], "must be text"),
        ("strength", True, "must be text"),
        ("prompts", ["a"], "must be an object"), ("prompts", {"0": 5}, 'the prompt at "0" must be text'),
        ("prompts", {"0": None}, "must be text"), ("prompts", {True: "a"}, "a key must be"),
        ("prompts", {1.5: "a"}, "a key must"),
        ("prompts", {0: "a", "0": "b"}, "given twice"), ("prompts", '{"0": "a", "0": "b"}', "given twice"),
        ("prompts", '{"0": "a"', "not valid JSON"), ("prompts", {"0": "x" * 20_001}, "longer than"),
        ("prompts", {frame: "a" for frame in range(10_001)}, "too many prompts; got 10001; allowed: up to 10000"),
        ("init_image", "~no-such-user/a.png", "home folder"),
        ("extra", {"W": 5}, "has a meaning"), ("extra", {"use_init": True}, "has a meaning"),
        ("extra", {"a": math.nan}, "JSON can't"), ("extra", {"a": object()}, "JSON can't"),
        ("extra", 5, "must be a mapping"),
    ],
)  # fmt: skip
def test_a_bad_value_names_field_got_and_allowed(field, value, words):
    with pytest.raises(SettingsError, match=words) as caught:
        RenderSettings(**{field: value})
    assert caught.value.where.split(",")[0] == field
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_values_take_their_own_type():
    made = RenderSettings(
        width=832.0, fps=24, guidance_scale=5, shift=3.5, prompts='{"0": "a"}', extra={"a": (1, 2)}, seed_schedule=7
    )
    assert made.width == 832 and isinstance(made.width, int)
    assert made.fps == 24.0 and isinstance(made.fps, float)
    assert (made.guidance_scale, made.shift, made.seed_schedule) == ("5", "3.5", "7")
    assert made.prompts == {"0": "a"} and made.extra == {"a": [1, 2]}
    assert RenderSettings(prompts={0: "a", 24: "b"}).prompts == {"0": "a", "24": "b"}


def test_settings_are_frozen_and_keep_their_own_copies():
    prompts = {"0": "a"}
    made = RenderSettings(prompts=prompts)
    prompts["0"] = "b"
    assert made.prompts == {"0": "a"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.width = 16
    assert pickle.loads(pickle.dumps(made)) == made
    assert RenderSettings().prompts is not RenderSettings().prompts


def test_the_table_describes_every_field():
    assert list(FIELDS) == [field.name for field in dataclasses.fields(RenderSettings)]
    default = RenderSettings()
    names = []
    for name, about in FIELDS.items():
        assert about.name == name and about.default == getattr(default, name) == about.check(about.default)
        assert about.hint.endswith(".") and about.group and len(about.hint) < 130
        names += [name, *(alias for alias in about.deforum if alias != name)]
    assert len(names) == len(set(names)), "two fields go by one name"


def test_a_deforum_file_loads(tmp_path):
    file = tmp_path / "deforum.txt"
    raw = {
        "W": 512, "H": 320, "seed": -1, "sampler": "DPM++ 2M Karras", "steps": 25, "seed_behavior": "ladder",
        "seed_iter_N": 2, "use_init": False, "init_image": "https://example.org/I.png", "strength": 0.8,
        "strength_schedule": "0: (0.65)", "cfg_scale_schedule": "0: (7)", "enable_steps_scheduling": False,
        "steps_schedule": "0: (30)", "prompts": {"0": "a", "max_f/2": "b --neg c"}, "positive_prompts": "p",
        "negative_prompts": "n", "max_frames": 120, "fps": 15, "zoom": "0: (1.02)", "translation_z": "0: (10)",
        "animation_mode": "3D", "parseq_manifest": None, "frame_interpolation_engine": "FILM", "make_gif": True,
        "add_soundtrack": "None", "soundtrack_path": "https://example.org/A.mp3", "skip_video_creation": True,
        "delete_imgs": True, "cn_1_enabled": False, "sd_model_name": "x.safetensors", "batch_name": "B_{timestring}",
        "seed_schedule": '0:(s), 1:(-1), "max_f-2":(-1), "max_f-1":(s)', "hybrid": {"deep": [1, 2.5, None]},
    }  # fmt: skip
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(raw, indent=4).encode())
    made, notes = load_settings(file)
    assert (made.width, made.height, made.fps, made.max_frames) == (512, 320, 15.0, 120)
    assert (made.solver, made.num_inference_steps, made.guidance_scale) == ("dpm++", "25", "0: (7)")
    assert (made.strength, made.seed_behavior, made.seed_iter_n) == ("0: (0.65)", "ladder", 2)
    assert (made.init_image, made.soundtrack) == ("", "")
    assert made.skip_video_creation and made.delete_imgs and made.make_gif
    assert made.prompts == raw["prompts"] and (made.positive_prompt, made.negative_prompt) == ("p", "n")
    assert (made.animation_mode, made.zoom, made.translation_z) == ("3D", "0: (1.02)", "0: (10)")
    kept = {"strength", "parseq_manifest", "frame_interpolation_engine", "cn_1_enabled", "sd_model_name", "hybrid"}
    assert set(made.extra) == kept and made.extra["hybrid"] == {"deep": [1, 2.5, None]}
    said = "\n".join(notes)
    for words in (
        "soundtrack_path",
        "becomes the solver dpm++",
        "sd_model_name",
        "retimed to fps",
    ):
        assert words in said
    assert settings_from_dict(json.loads(settings_to_text(made)))[0] == made


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"enable_steps_scheduling": True, "steps": 25, "steps_schedule": "0: (9)"}, {"num_inference_steps": "0: (9)"}),
        ({"steps_schedule": "0: (9)"}, {"num_inference_steps": "0: (9)"}),
        ({"steps": 25, "steps_schedule": "0: (9)"}, {"num_inference_steps": "25"}),
        ({"num_inference_steps": 7, "steps": 25}, {"num_inference_steps": "7"}),
        ({"use_init": True, "init_image": "a.png"}, {"init_image": "a.png"}),
        ({"init_image": "a.png"}, {"init_image": "a.png"}),
        ({"use_init": False, "init_image": "a.png"}, {"init_image": ""}), ({"init_image": None}, {"init_image": ""}),
        ({"add_soundtrack": "File", "soundtrack_path": "a.mp3"}, {"soundtrack": "a.mp3"}),
        ({"add_soundtrack": True, "soundtrack_path": "a.mp3"}, {"soundtrack": "a.mp3"}),
        ({"add_soundtrack": "Init Video", "soundtrack_path": "a.mp3"}, {"soundtrack": ""}),
        ({"animation_prompts": '{"0": "a"}'}, {"prompts": {"0": "a"}}),
        ({"prompts": '{"0": "a"}'}, {"prompts": {"0": "a"}}),
        ({"animation_prompts_positive": "p"}, {"positive_prompt": "p"}),
        ({"animation_prompts_negative": "n"}, {"negative_prompt": "n"}),
        ({"strength": 0.5}, {"strength": "0.5"}), ({"strength": "0: (0.4)"}, {"strength": "0: (0.4)"}),
        ({"sampler": "LMS"}, {"solver": ""}), ({"sampler": 3}, {"solver": ""}),
        ({"sampler": "ddim"}, {"solver": "euler"}),
        ({"sampler": "UniPC"}, {"solver": "unipc"}), ({"width": 64, "W": 128}, {"width": 64}),
        ({"fps": "24"}, {"fps": 24.0}),
        ({"enable_sampler_scheduling": True, "sampler_schedule": '0: ("euler")'}, {"solver_schedule": '0: ("euler")'}),
        ({"enable_sampler_scheduling": False, "sampler_schedule": '0: ("euler")'}, {"solver_schedule": ""}),
        ({"extra": {"noise": 1}, "cadence": 2}, {"extra": {"noise": 1, "cadence": 2}}),
        ({"animation_mode": "3D", "translation_z": "0: (2)", "fov_schedule": "0: (40)"},
         {"animation_mode": "3D", "translation_z": "0: (2)", "fov": "0: (40)"}),
        ({"animation_mode": "Interpolation", "zoom": "0: (2)"}, {"animation_mode": "2D", "zoom": "0: (1)"}),
        ({"ffmpeg_crf": "20"}, {"crf": 20}),
    ],
)  # fmt: skip
def test_names_and_switches(raw, expected):
    made, _ = settings_from_dict(raw)
    assert {name: getattr(made, name) for name in expected} == expected
    assert settings_from_dict(settings_to_dict(made))[0] == made


def test_the_own_name_wins_and_the_other_is_noted():
    made, notes = settings_from_dict({"W": 128, "width": 64})
    assert made.width == 64
    assert any("another name: W" in note for note in notes)


def test_an_export_is_in_deforum_s_style():
    text = settings_to_text(RenderSettings(fps=15, num_inference_steps="25", init_image="a.png"))
    for line in ('"W": 832,', '"fps": 15,', '"steps": 25,', '"use_init": true,', '"add_soundtrack": "None",'):
        assert f"\n    {line}\n" in text
    assert text.startswith('{\n    "prompts": {}') and text.endswith("}\n")


def test_our_own_export_needs_no_notes():
    assert settings_from_dict(settings_to_dict(RenderSettings(prompts={"0": "a"})))[1] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{\n  "W": 512,\n  "H": 512,,\n}', "line 3, column 12: not valid JSON"),
        (b"", "line 1, column 1: not valid JSON"),
        (b"[1, 2]", "must be one JSON object"), (b'{"fps": NaN}', "NaN is not a number"),
        (b'"W"', "must be one JSON object"),
        (b'{"zoom": -Infinity}', "Infinity is not a number"), (b'{"prompts": "\xff"}', "not UTF-8"),
        (b'{"seed": 1e400}', "finite"),
        ("{}".encode("utf-16"), "not UTF-8"), (b"[" * 200_000, "not valid JSON"),
        (b'{"a":' * 200_000, "not valid JSON"),
        (b'{"W": 500}', "width: must be a multiple of 16; got 500.*the nearest: 496 or 512"),
        (b'{"W": [1]}', "width: must be a number"),
        (b'{"prompts": "{\\n \\"0\\": }"}', "prompts, line 2, column 7"),
        (b'{"solver": "heun"}', "solver: unknown choice"),
        (b'{"W": "wide"}', "width: must be a number"), (b'{"make_gif": "maybe"}', "make_gif: must be true or false"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON|out of range"),
        (b" " * (8 * 1024 * 1024 + 1), "larger than"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_clear_line(tmp_path, content, words):
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_missing_file_or_a_folder(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(SettingsError, match="can't be read") as caught:
            load_settings(path)
        assert str(path) in str(caught.value)


def test_a_key_given_twice_in_a_file_is_noted(tmp_path):
    file = tmp_path / "twice.txt"
    file.write_text('{"W": 64, "W": 128, "prompts": {"0": "a", "0": "b"}, "animation_prompts": null}')
    made, notes = load_settings(file)
    assert made.width == 128 and made.prompts == {"0": "b"}
    assert sum("given twice" in note for note in notes) == 2


@pytest.mark.parametrize(
    ("key", "text", "field", "expected"),
    [
        ("W", "1280", "width", 1280), ("width", " 1280 ", "width", 1280), ("fps", "23.976", "fps", 23.976),
        ("max_frames", "1e3", "max_frames", 1000), ("make_gif", "yes", "make_gif", True),
        ("make_gif", "0", "make_gif", False),
        ("steps", "20", "num_inference_steps", "20"),
        ("cfg_scale_schedule", "0: (7), 5: (8)", "guidance_scale", "0: (7), 5: (8)"),
        ("sampler", "Euler a", "solver", "euler"), ("solver", "unipc", "solver", "unipc"),
        ("strength", "0.5", "strength", "0.5"),
        ("prompts", '{"0": "a", "9": "b"}', "prompts", {"0": "a", "9": "b"}),
        ("prompts", "a red ball", "prompts", {"0": "a red ball"}),
        ("soundtrack_path", "a b.mp3", "soundtrack", "a b.mp3"), ("seed_iter_N", "3", "seed_iter_n", 3),
        ("seed", "-1", "seed", -1),
        ("positive_prompts", " x ", "positive_prompt", " x "), ("width", 640, "width", 640),
        ("prompts", {0: "c"}, "prompts", {"0": "c"}),
    ],
)  # fmt: skip
def test_overrides(key, text, field, expected):
    start = RenderSettings(prompts={"0": "z"}, extra={"cadence": 1}, seed=3, make_gif=False)
    changed = apply_overrides(start, {key: text})
    assert getattr(changed, field) == expected
    assert dataclasses.replace(changed, **{field: getattr(start, field)}) == start


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("widht", "5", "widht: unknown setting; did you mean width"),
        ("zoomy", "1", "unknown setting; did you mean zoom"),
        ("extra", "{}", "unknown setting"),
        ("width", "wide", "width: must be a number"), ("fps", "nan", "must be finite"),
        ("sampler", "LMS", "solver: unknown choice"),
        ("make_gif", "perhaps", "must be true or false"), ("prompts", "{oops", "not valid JSON"),
        ("W", "1" * 500, "finite|range"),
    ],
)  # fmt: skip
def test_bad_overrides(key, text, words):
    with pytest.raises(SettingsError, match=words):
        apply_overrides(RenderSettings(), {key: text})


_words = st.text(max_size=20).filter(lambda text: "\0" not in text)
_schedules = st.one_of(
    st.just(""), st.sampled_from(["5", "0: (5)", "14", "014", "0: (s), 30: (t)", "1.0", "7 "]), _words
)
_numbers = {
    name: st.integers(int(about.minimum), int(about.maximum))
    for name, about in FIELDS.items()
    if about.kind == "int" and about.multiple == 1
}
_by_kind = {
    "bool": st.booleans(),
    "schedule": _schedules,
    "path": _words.filter(lambda text: "://" not in text and not text.startswith("~")),
    "text": _words,
}
_given = {
    **_numbers,
    **{n: _by_kind[a.kind] for n, a in FIELDS.items() if a.kind in _by_kind and not a.pattern},
    **{n: st.sampled_from(a.choices) for n, a in FIELDS.items() if a.choices},
    "width": st.integers(1, 256).map(lambda n: 16 * n),
    "window_frames": st.integers(0, 256).map(lambda n: n and 4 * n + 1),
    "fps": st.floats(0, 240, exclude_min=True),
    "batch_name": st.text(string.ascii_letters + " {}_", min_size=1, max_size=9),
    "prompts": st.dictionaries(_words.map(str.strip), _words, max_size=4), "device": st.sampled_from(["auto",
    "cuda:1"]),
    "extra": st.dictionaries(
        st.sampled_from(["cadence", "noise_schedule", "strength", "cn_1_model", "", "Ω"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _words,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3), max_leaves=5,
        ), max_size=4,
    ),
}  # fmt: skip


@settings(max_examples=150)
@given(st.fixed_dictionaries({}, optional=_given))
def test_our_own_files_round_trip_exactly(values):
    made = RenderSettings(**values)
    back, _ = settings_from_dict(json.loads(settings_to_text(made)))
    assert back == made
    assert settings_to_text(back) == settings_to_text(made)
    assert type(back.fps) is float and type(back.seed) is int
