"""Prompt sets: keys, --neg, global prompts, backticks, and what is mended."""

import pytest
from deforum_helpers.errors import ScheduleError
from deforum_helpers.planning.prompts import prompt_segments


def read(prompts, positive="", negative="", max_frames=100, seed=9):
    segments, notes = prompt_segments(prompts, positive, negative, max_frames, seed)
    texts = [(s.start_frame, *s.texts(s.start_frame, seed, max_frames)) for s in segments]
    return texts, notes


def test_keys_are_frames_or_expressions_of_the_last_frame():
    prompts = {"0": "a", "max_f-20": "d", "max_f/2": "c", " 10 ": "b", "max_f // 4 + 1": "e"}
    assert [(frame, text) for frame, text, _ in read(prompts)[0]] == [
        (0, "a"),
        (10, "b"),
        (25, "e"),
        (49, "c"),
        (79, "d"),
    ]


def test_negatives_and_global_prompts():
    texts, notes = read({"0": "a cat --neg  blurry", "50": "a dog"}, "a photo of", "watermark")
    assert texts == [(0, "a photo of a cat", "blurry, watermark"), (50, "a photo of a dog", "watermark")]
    assert notes == []


def test_a_second_neg_goes_on_with_the_negative():
    assert read({"0": "a --neg b --neg c --negative"})[0] == [(0, "a", "b c --negative")]


def test_weights_stay_and_backticks_become_numbers():
    texts, _ = read({"0": "(a fox:1.2) and (`t`:`1/4`) --neg (`max_f`:`where(t < 5, 1, 2)`)", "10": "x`t*2`y"})
    assert texts[0] == (0, "(a fox:1.2) and (0:0.25)", "(99:1)")
    assert texts[1] == (10, "x20y", "")


def test_backticks_are_computed_for_the_frame_asked_for():
    segments, _ = prompt_segments({"0": "`0.5 + sin(t / 10)` `s`"}, "`t`", "`t / 3`", 100, 9)
    assert segments[0].changes
    assert segments[0].texts(0, 9, 100) == ("0 0.5 9", "0")
    assert segments[0].texts(7, 9, 100) == ("7 1.144218 9", "2.333333")


def test_an_expression_in_backticks_that_fails_names_the_keyframe_and_column():
    with pytest.raises(ScheduleError, match="unknown name") as caught:
        read({"0": "a", "20": "b (c:`foo`) --neg d"})
    assert (caught.value.field, caught.value.keyframe, caught.value.column) == ("prompts", "20", 7)
    with pytest.raises(ScheduleError, match="unknown name") as caught:
        read({"0": "a --neg b `bar`"})
    assert caught.value.column == 12
    with pytest.raises(ScheduleError, match="divides by zero at frame 20"):
        read({"20": "`1/(t-20)`"} | {"0": "a"})


@pytest.mark.parametrize(
    ("prompts", "starts", "note"),
    [
        ({"5": "a", "9": "b"}, [0, 9], "prompts: no keyframe at frame 0"),
        ({"0": "a", "100": "b"}, [0], "without effect: 100"), ({"0": "a", "max_f+1": "b"}, [0], "max_f"),
        ({"0": "a", "max_f-120": "b"}, [0], "without effect"), ({"200": "a"}, [0], "holds throughout"),
        ({"0": "a", "max_f-99": "b"}, [0], "given twice"), ({"0": "a `b", "3": "b"}, [0, 3], "single backtick"),
    ],
)  # fmt: skip
def test_mended_and_noted(prompts, starts, note):
    texts, notes = read(prompts)
    assert [frame for frame, _, _ in texts] == starts
    assert any(note in line for line in notes), notes


def test_the_later_of_two_prompts_for_one_frame_counts():
    assert read({"0": "a", "max_f-99": "b"})[0] == [(0, "b", "")]


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ({}, "the prompt set is empty"), ({"0": " "}, "every prompt is empty"),
        ({"0": "--neg x"}, "every prompt is empty"),
        ({"abc": "a"}, "unknown name"), ({"t": "a"}, "has no meaning here"), ({"": "a"}, "missing"),
        ({"max_f/0": "a"}, "divides by zero"), ({"0": "a", "__import__('os')": "b"}, "no meaning"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused(prompts, reason):
    with pytest.raises(ScheduleError, match=reason) as caught:
        read(prompts)
    assert caught.value.field == "prompts"


def test_a_global_prompt_alone_is_enough():
    assert read({"0": "", "50": "--neg b"}, "a cat --neg c")[0] == [(0, "a cat", "c"), (50, "a cat", "c, b")]


def test_a_lone_backtick_stays_in_the_text():
    assert read({"0": "`1+1` dogs, it`s"})[0] == [(0, "2 dogs, it`s", "")]
