"""Deforum's schedule grammar, with what it crashed on or dropped in silence mended and noted."""

import re
import time

import numpy as np
import pytest
from deforum_helpers.errors import ScheduleError
from deforum_helpers.schedules import number_schedule, text_schedule
from hypothesis import given, settings
from hypothesis import strategies as st


def series(text, max_frames=10, seed=5, **more):
    return number_schedule(text, "guidance_scale", max_frames, seed, **{"default": 4.0, **more})


def values(text, max_frames=10, **more):
    return series(text, max_frames, **more).values.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [4, 4, 4, 4, 4]), ("   ", [4, 4, 4, 4, 4]), ("5", [5] * 5), ("0: (5)", [5] * 5), ("0:5", [5] * 5),
        ("0:(0), 4:(8)", [0, 2, 4, 6, 8]), ("0:(0),2:(8)", [0, 4, 8, 8, 8]), ("4:(8), 0:(0)", [0, 2, 4, 6, 8]),
        ("0:(t)", [0, 1, 2, 3, 4]), ("t", [0, 1, 2, 3, 4]), ("0:(s)", [5] * 5), ("0:(max_f)", [4] * 5),
        ("0:(where(t<2,1,2))", [1, 1, 2, 2, 2]), ("0:(max(t, 2)), 3:(min(t, 1, 7))", [2, 2, 2, 1, 1]),
        ("0: (where(t % 2 == 0, max(1, 2, 3), 0)), 4: (9)", [3, 0, 3, 0, 9]),
        ('"0":(1), "max_f/2":(3)', [1, 2, 3, 3, 3]), ("0:(1), max_f//2:(3)", [1, 2, 3, 3, 3]),
        ("0:(1), 'max_f-2':(3)", [1, 2, 3, 3, 3]), ("0:(1), (max_f-2):(3)", [1, 2, 3, 3, 3]),
        ("0:(1), max(1, max_f/2):(3)", [1, 2, 3, 3, 3]), ("\n0:(-1),\n 4 : ( +3 )\n", [-1, 0, 1, 2, 3]),
        ("0:((0)), 4:(1e1)", [0, 2.5, 5, 7.5, 10]), ("00:(1), 004:(5)", [1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_grammar(text, expected):
    assert values(text, 5) == pytest.approx(expected)


def test_a_number_leads_to_the_value_of_the_expression_after_it():
    assert values("0:(0), 4:(t * 2), 6:(0)", 8) == pytest.approx([0, 2, 4, 6, 8, 10, 0, 0])


def test_an_expression_is_not_blended_into_what_follows():
    assert values("0:(t), 3:(10), 5:(20)", 7) == pytest.approx([0, 1, 2, 10, 15, 20, 20])
    assert values("0:(2*3), 3:(10)", 5) == pytest.approx([6, 6, 6, 10, 10])


def test_a_bare_number_or_an_empty_text_needs_no_note():
    assert series("5").notes == series("").notes == series("0:(3)").notes == ()


@pytest.mark.parametrize(
    ("text", "expected", "note"),
    [
        ("2:(5), 4:(9)", [5, 5, 5, 7, 9], "no keyframe at frame 0"),
        ("2:(t*3)", [6, 6, 6, 9, 12], "no keyframe at frame 0"),
        ("0:(1),", [1] * 5, "comma"), (",0:(1),,2:(1)", [1] * 5, "2 comma"), ("5,", [5] * 5, "comma"),
        ("0:(1), 99:(50)", [1] * 5, "0 to 4, so without effect: 99"),
        ("0:(1), max_f+3:(50)", [1] * 5, r"max_f\+3 \(frame 7\)"), ("0:(1), max_f-20:(50)", [1] * 5, r"frame -16"),
        ("0:(1), 0:(2)", [2] * 5, "frame 0 is given twice"),
        ("0:(1), max_f-4:(2)", [2] * 5, r"given twice \(0 and max_f-4\)"),
        ("70:(3)", [3] * 5, "holds throughout"), ("70:(t), 90:(0)", [70] * 5, "holds throughout"),
        ("0-9:(3), 90:(1)", [3] * 5, "holds throughout"), ("0-9:(t)", [0, 1, 2, 3, 4], "holds throughout"),
    ],
)  # fmt: skip
def test_mended_and_noted(text, expected, note):
    result = series(text, 5)
    assert result.values.tolist() == pytest.approx(expected)
    assert any(re.search(note, line) for line in result.notes), result.notes
    assert all(line.startswith("guidance_scale: ") for line in result.notes)


@pytest.mark.parametrize(
    ("text", "reason", "keyframe", "column"),
    [
        ("0:(1), 30:(sin(t)", "a parenthesis is not closed", "", 11), ("0:(1)), 3:(1)", "without an opening", "", 6),
        ("0:(1) 30:(2)", "put a comma between", "0", 9), ("0:(1), 5:(foo)", "unknown name", "5", 11),
        ("0:(1), 5:(1/(t-7))", "divides by zero at frame 7", "5", 11), ("0:(1), bar:(2)", "unknown name", "bar", 8),
        ("0:(1), t:(2)", "t .* has no meaning here", "t", 8), ("0:(1), 7", "an entry without a key", "", 7),
        ("0:()", "missing", "0", 3), ("0:", "missing", "0", 3), (":(1)", "missing", "", 1),
        ("0:(1), 5:(__import__('os'))", "no meaning", "5", 22), ("0:('a)", "a quote is not closed", "", 4),
        (",,,", "holds no keyframe", "", 0), ("0:(1), 5:(9 9)", "can't be read", "5", 0),
        ("5:(nan)", "unknown name", "5", 4),
        ("0:(1), 1/0:(3)", "divides by zero", "1/0", 8), ("0:(1); 4:(3)", "comma|no meaning", "0", 0),
        ("0:(1e999)", "too large", "0", 4), ("0:(x" + "x" * 300_000 + ")", "too long", "", 0),
        ("0:(" + "1+" * 2000 + "1)", "too long", "0", 3), ("(" * 150_000, "not closed", "", 0),
    ],
)  # fmt: skip
def test_an_error_names_field_keyframe_column_and_reason(text, reason, keyframe, column):
    started = time.process_time()
    with pytest.raises(ScheduleError, match=reason) as caught:
        series(text)
    assert time.process_time() - started < 0.5
    assert caught.value.field == "guidance_scale"
    assert caught.value.keyframe == keyframe
    if column:
        assert caught.value.column == column
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_out_of_range_is_refused_or_brought_back():
    with pytest.raises(ScheduleError, match=r"value at frame 3 is out of range; got 12.0; allowed: 0 to 10") as caught:
        series("0:(1), 2:(t * 4)", least=0, most=10)
    assert caught.value.keyframe == "2"
    clamped = series("0:(1 + t)", 4, least=0, most=2.5, clamp=True)
    assert clamped.values.tolist() == [1, 2, 2.5, 2.5]
    assert "3 at frame 2 brought back into 0 to 2.5" in clamped.notes[0]


def test_numbers_too_far_apart_to_blend_are_refused():
    with pytest.raises(ScheduleError, match="out of range"):
        series("0:(-1e308), 9:(1e308)", least=-1e300, most=1e300, clamp=False)
    with pytest.raises(ScheduleError, match="out of range"):
        series("0:(-1e308), 9:(1e308)")


def test_words_are_held_until_the_next():
    words, notes = text_schedule("0: (\"euler\"), 'max_f/2': ('Euler a'), 8: dpm++", "sampler_schedule", 11, 0)
    assert [(frame, word) for frame, word, _ in words] == [(0, "euler"), (5, "Euler a"), (8, "dpm++")]
    assert notes == ()
    words, notes = text_schedule('4: ("a, b: (c)")', "sampler_schedule", 11, 0)
    assert [(frame, word) for frame, word, _ in words] == [(0, "a, b: (c)")]
    assert "no keyframe at frame 0" in notes[0]
    with pytest.raises(ScheduleError, match="value is missing"):
        text_schedule('0: ("")', "sampler_schedule", 11, 0)


def test_a_million_frames_and_many_keyframes_are_quick():
    started = time.process_time()
    series("0: (sin(t / 30)), 500000: (where(t < 600000, 1, 2))", 1_000_000)
    many = ", ".join(f"{frame}: ({frame % 7})" for frame in range(0, 100_000, 10))
    result = series(many, 100_000)
    assert time.process_time() - started < 3
    assert result.at(30) == 2 and result.at(35) == 3.5


_keys = st.lists(st.integers(0, 39), min_size=1, max_size=8, unique=True)


@settings(max_examples=150)
@given(_keys, st.data())
def test_numbers_are_hit_at_their_keys_and_lie_between_elsewhere(keys, data):
    heights = data.draw(st.lists(st.integers(-50, 50), min_size=len(keys), max_size=len(keys)))
    got = values(", ".join(f"{key}: ({height})" for key, height in zip(keys, heights, strict=True)), 40)
    order = np.argsort(keys)
    expected = np.interp(np.arange(40), np.array(keys)[order], np.array(heights)[order])
    assert got == pytest.approx(expected.tolist())


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("01:(),t\"' maxf_/-+s"), max_size=30))
def test_any_text_gives_finite_values_or_a_schedule_error(text):
    try:
        result = series(text)
    except ScheduleError:
        return
    assert np.isfinite(result.values).all() and result.values.shape == (10,)
