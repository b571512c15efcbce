"""Prompt travel: what every latent hears, in every window, at exactly its time."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from deforum_helpers.cli_plan import plan_lines
from deforum_helpers.errors import ScheduleError, SettingsError
from deforum_helpers.output import write_subtitles
from deforum_helpers.planning.picture import timeline_svg
from deforum_helpers.planning.prompts import prompt_segments
from deforum_helpers.planning.travel import Transition, plan_travel
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import plan
from deforum_helpers.variants import DEMO, VARIANTS
from hypothesis import given
from hypothesis import strategies as st

TINY, T2V = VARIANTS[DEMO], VARIANTS["wan2.1-t2v-1.3B"]
THREE = {"0": "day", "24": "night", "60": "dawn"}


def settings(**values) -> RenderSettings:
    return RenderSettings(**{"prompts": THREE, "width": 128, "height": 80, "max_frames": 80, "fps": 16, **values})


def make(**values):
    return plan(settings(**values), TINY, 1)


def shares(clip) -> list[dict[str, float]]:
    """What each latent of a clip's window hears, by prompt."""
    if not clip.mixes:
        return [{clip.prompt: 1.0}] * clip.latent_frames
    names = [pair.prompt for pair in clip.prompts]
    return [{names[k]: w for k, w in zip(mix.prompts, mix.weights, strict=True)} for mix in clip.mixes]


def test_hard_is_what_it_was():
    assert make() == make(prompt_travel_frames="0", prompt_travel_schedule='0: ("hard")')
    assert all(not (clip.prompts or clip.mixes or clip.spans) for clip in make().clips)
    assert {0, 24, 60} <= {clip.start_frame for clip in make().clips}


def test_a_travelling_prompt_needs_no_clip_of_its_own():
    one = make(prompts={"0": "day"})
    assert [(c.start_frame, c.end_frame) for c in make(prompt_travel="blend").clips] == [
        (c.start_frame, c.end_frame) for c in one.clips
    ]


def test_only_keyframes_that_are_hard_bound_clips():
    made = make(prompt_travel="relay", prompt_travel_schedule='0: ("blend"), 60: ("hard")')
    starts = {clip.start_frame for clip in made.clips}
    assert 60 in starts and 24 not in starts
    assert {span.mode for clip in made.clips for span in clip.spans} == {"", "blend"}


def test_every_latent_hears_what_is_there_in_the_middle_of_its_frames():
    made = make(prompt_travel="blend")  # frames 24 to 40, each latent's middle 1.5 before its last frame
    (clip,) = [clip for clip in made.clips if clip.start_frame == 29]
    middles = (26.5, 30.5, 34.5, 38.5)
    assert [heard.get("night", 0.0) for heard in shares(clip)] == [0, *((middle - 24) / 16 for middle in middles)]


@given(
    mode=st.sampled_from(["blend", "relay"]),
    frames=st.one_of(st.just(0.0), st.floats(0.25, 60)),
    keys=st.sets(st.integers(1, 79), max_size=5),
    fps=st.sampled_from([8, 16, 25, 60]),
    continuity=st.sampled_from(["latents", "joint", "image", "cut"]),
    cut=st.one_of(st.none(), st.integers(1, 78)),
)
def test_weights_add_up_and_rise_through_a_transition(mode, frames, keys, fps, continuity, cut):
    strength = "0: (1)" if cut is None else f"0: (1), {cut - 1}: (1), {cut}: (0), {cut + 1}: (1)"
    values = {
        "prompts": {str(key): f"p{key}" for key in (0, *keys)}, "fps": fps, "strength": strength,
        "prompt_travel": mode, "prompt_travel_frames": f"{frames}", "continuity": continuity,
    }  # fmt: skip
    made = make(**values)
    assert made == make(**values)
    order = sorted((0, *keys))
    for clip in made.clips:
        heard = shares(clip)
        assert len(heard) == clip.latent_frames
        for now in heard:
            assert sum(now.values()) == pytest.approx(1, abs=1e-9) and all(0 < share <= 1 for share in now.values())
            numbers = [order.index(int(name[1:])) for name in now]
            assert numbers in ([numbers[0]], [numbers[0], numbers[0] + 1]), "one prompt gives way to the next"
        place = [sum(order.index(int(name[1:])) * share for name, share in now.items()) for now in heard]
        assert all(a <= b + 1e-6 for a, b in pairwise(place)), "never back"
        if cut is not None and clip.start_frame < cut:
            former = max(key for key in order if key < cut)
            assert all(int(name[1:]) <= former for now in heard for name in now), "nothing is heard before its cut"
        assert [span.start_frame for span in clip.heard[1:]] == [span.end_frame for span in clip.heard[:-1]]
        assert (clip.heard[0].start_frame, clip.heard[-1].end_frame) == (clip.start_frame, clip.end_frame)


@given(st.floats(0.01, 500), st.sampled_from(["blend", "relay"]))
def test_a_transition_begins_with_nothing_and_ends_with_all(length, mode):
    share = Transition(10.0, 10.0 + length, mode).share(np.array([9.0, 10.0, 10 + length / 2, 10.0 + length, 600.0]))
    assert share[0] == share[1] == 0 and share[3] == share[4] == 1
    assert share[2] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("mode", ["blend", "relay"])
def test_the_shorter_the_nearer_to_hard(mode):
    times = np.linspace(0, 80, 333)
    hard = (times > 24).astype(float)
    off = [np.abs(Transition(24, 24 + n, mode).share(times) - hard).mean() for n in (16, 4, 1, 0.01)]
    assert off == sorted(off, reverse=True) and off[-1] < 1e-3


def test_it_is_over_before_the_next_keyframe_or_cut():
    made = make(prompt_travel="blend", prompt_travel_frames="50")
    assert any("shortened" in note and "frame 24" in note for note in made.notes)
    ends = [span.end_frame for clip in made.clips for span in clip.spans if span.then == "night"]
    assert max(ends) == 60
    cut = make(prompt_travel="blend", strength="0: (1), 30: (1), 31: (0), 32: (1)")
    assert max(s.end_frame for c in cut.clips for s in c.spans if s.then == "night") == 31
    assert all(now == {"night": 1.0} for c in cut.clips if 31 <= c.start_frame < 50 for now in shares(c)[:3])


def test_none_said_is_all_there_is_room_for():
    made = make(prompt_travel="relay", prompt_travel_frames="0", max_frames=100)
    spans = [(s.start_frame, s.end_frame, s.then) for c in made.clips for s in c.heard if s.mode]
    assert spans[0][0] == 24 and spans[-1] == (spans[-1][0], 100, "dawn")
    assert not made.notes


def test_a_prompt_at_a_cut_is_there_at_once():
    made = make(prompt_travel="blend", strength="0: (1), 23: (1), 24: (0), 25: (1)")
    assert any("at once, at frame 24" in note for note in made.notes)
    assert next(clip for clip in made.clips if clip.start_frame == 24).prompts == ()


def test_lengths_are_read_at_each_keyframe():
    made = make(prompt_travel="blend", prompt_travel_frames="0: (8), 23: (8), 24: (4), 59: (4), 60: (12)")
    travel = plan_travel(
        settings(prompt_travel="blend", prompt_travel_frames="0: (8), 24: (4), 60: (12)"),
        prompt_segments(THREE, "", "", 80, 1)[0], np.zeros(80, bool), set(), 1, [],
    )  # fmt: skip
    assert [t.end - t.start for t in travel.transitions] == [0, 4, 12]
    assert {s.end_frame for c in made.clips for s in c.spans if s.then == "night"} == {28}


def test_a_ring_goes_from_its_last_prompt_to_its_first():
    (clip,) = make(loop=True, max_frames=64, prompts={"0": "day", "32": "night"}, prompt_travel="blend").clips
    heard = shares(clip)
    assert len(heard) == 16
    assert heard[0] == {"night": 1 - 1.5 / 16, "day": 1.5 / 16} and heard[4] == {"day": 1.0}
    assert heard[8] == {"day": 1 - 1.5 / 16, "night": 1.5 / 16} and heard[-1] == {"night": 1.0}
    assert clip.spans[0].said == "night → day"


@pytest.mark.parametrize("schedule", ["", '0: ("hard"), 1: ("blend")', '0: ("blend"), 24: ("hard")'])
def test_a_ring_has_no_place_for_a_hard_switch(schedule):
    with pytest.raises(SettingsError, match="3 prompts that switch hard"):
        make(loop=True, max_frames=64, prompt_travel_schedule=schedule)


def test_numbers_in_prompts_are_those_of_the_clip():
    made = make(prompts={"0": "day `t`", "24": "night `t`"}, prompt_travel="blend")
    for clip in made.clips:
        for pair in clip.prompts:
            word, number = pair.prompt.split()
            assert int(number) == (max(24, clip.start_frame) if word == "night" else clip.start_frame)


def test_an_unknown_way_is_refused_at_its_place():
    with pytest.raises(ScheduleError, match=r"prompt_travel_schedule.*keyframe 9.*got 'fade'; allowed: hard, blend"):
        make(prompt_travel_schedule='0: ("blend"), 9: ("fade")')
    with pytest.raises(SettingsError, match="prompt_travel"):
        settings(prompt_travel="fade")


def test_plan_picture_and_subtitles_say_what_is_heard_when(tmp_path):
    made = make(prompt_travel="blend")
    assert "17: day; 24: day → night" in "\n".join(plan_lines(made))
    svg = timeline_svg(made)
    assert svg.count("dw-travel") == 2 and "day → night\nblend" in svg
    write_subtitles(made, 80, tmp_path / "a.srt")
    text = (tmp_path / "a.srt").read_text(encoding="utf-8")
    assert "00:00:01,500 --> 00:00:02,500\nday → night" in text and text.count("-->") == 5


def test_a_schedule_that_a_clip_holds_says_so():
    made = make(loras="ink = 0: (0.2), 79: (0.9)", prompt_travel="blend")
    assert any(note.startswith("loras, ink: a clip keeps") for note in made.notes)
    guided = make(guidance_scale="0: (2), 79: (8)", prompt_travel="blend")
    assert not guided.notes, "guidance acts latent by latent"


@pytest.mark.parametrize("values", [{}, {"prompt_travel": "relay", "prompt_travel_frames": "0"}])
def test_long_videos_are_planned_soon(values):
    prompts = {str(k * 500): f"p{k}" for k in range(200)}
    long = replace(settings(**values), max_frames=100_000, prompts=prompts)
    started = time.process_time()
    made = plan(long, T2V, 1)
    assert made.clips[-1].end_frame == 100_000
    assert time.process_time() - started < 10


def test_nothing_is_heard_over_a_hard_keyframe():
    made = make(prompt_travel_schedule='0: ("blend"), 60: ("hard")')
    for clip in made.clips:
        names = {name for now in shares(clip) for name in now}
        assert names <= ({"day", "night"} if clip.start_frame < 60 else {"dawn"})
    (last,) = [clip for clip in made.clips if clip.end_frame == 60]
    assert last.latent_frames > last.prefix_latents + last.new_latents, "it has latents beyond the keyframe"
