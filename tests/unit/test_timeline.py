"""The plan: exact frame counts whatever the rate, the keyframes and the window; and what each clip is told."""

import dataclasses
import json
import math
import time
from fractions import Fraction
from itertools import pairwise

import pytest
from deforum_helpers.errors import ScheduleError, SettingsError
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import native_positions, plan, plan_to_dict
from deforum_helpers.variants import DEMO, VARIANTS
from hypothesis import given, settings
from hypothesis import strategies as st

T2V, I2V = VARIANTS["wan2.1-t2v-1.3B"], VARIANTS["wan2.1-i2v-14B-480P"]
TINY = VARIANTS[DEMO]


def make(variant=T2V, seed=100, **values):
    values.setdefault("prompts", {"0": "a"})
    return plan(RenderSettings(width=128, height=80, **values), variant, seed)


def check_counts(made, variant):
    """Everything that has to hold for any plan, worked out anew from the frames it gives."""
    clips = made.clips
    assert [clip.index for clip in clips] == list(range(len(clips)))
    assert clips[0].start_frame == 0 and clips[-1].end_frame == made.max_frames
    assert all(clip.start_frame < clip.end_frame for clip in clips)
    assert all(former.end_frame == clip.start_frame for former, clip in pairwise(clips))
    stream, shot, shot_start, latents = 0, -1, 0, 0
    for former, clip in pairwise([None, *clips]):
        if clip.shot != shot:
            assert clip.shot == shot + 1 and clip.prefix_latents == clip.stream_latents_before == clip.native_start == 0
            assert clip.start == "noise" or clip.dropped_frames == 0
            stream, shot, shot_start, latents = 0, clip.shot, clip.start_frame, 0
        check_window(clip, variant)
        check_start(clip, former, stream, latents)
        stream, latents = clip.native_start + clip.new_frames, clip.stream_latents_before + clip.new_latents
        positions = native_positions(made, clip)
        assert len(positions) == clip.end_frame - clip.start_frame
        for frame, (index, fraction) in zip(range(clip.start_frame, clip.end_frame), positions, strict=True):
            assert index + fraction == (frame - shot_start) * made.native_step and 0 <= fraction < 1
            assert index + (fraction > 0) < stream, "a frame shown isn't made yet"
    assert all(len(values) == made.max_frames for values in made.schedules.values())


def check_window(clip, variant):
    assert clip.num_frames == 4 * (clip.latent_frames - 1) + 1 == (clip.num_frames - 1) // 4 * 4 + 1
    assert clip.latent_frames >= clip.prefix_latents + clip.new_latents + clip.tail_latents
    assert clip.num_frames >= variant.min_frames
    assert clip.new_latents >= 1 and clip.tail_latents >= 0
    assert len(clip.guidance) == clip.latent_frames


def check_start(clip, former, stream, latents):
    """Against the shot's stream as it stands: `stream` native frames made, `latents` latents."""
    assert 0 <= clip.native_start <= stream
    if clip.dropped_frames:
        assert clip.start in ("image", "frames") and clip.prefix_latents == clip.stream_latents_before == 0
        assert clip.dropped_frames % 4 == 1 and (clip.start == "frames" or clip.dropped_frames == 1)
        assert clip.native_start >= clip.dropped_frames
        assert clip.new_frames == 4 * clip.new_latents - 3 - clip.dropped_frames
    else:
        before = clip.stream_latents_before
        assert clip.prefix_latents <= before <= latents
        assert clip.native_start == (1 + 4 * (before - 1) if before else 0)
        assert clip.new_frames == 4 * clip.new_latents - (0 if before else 3)
        assert (clip.start == "latents") == (before > 0) == (clip.prefix_latents > 0)
    assert 0 <= clip.carried_frames <= 3
    if clip.carried_frames:
        assert clip.stream_latents_before == latents
    assert clip.overlap_latents == (former.tail_latents if former and clip.start == "latents" else 0)
    assert clip.overlap_latents <= clip.new_latents
    if clip.overlap_latents:
        assert clip.stream_latents_before == latents, "the tail goes on from the stream's end"


FPS = st.one_of(
    st.sampled_from([1, 7.5, 8, 12, 15, 16, 23.976, 24, 25, 29.97, 30, 48, 60, 120, 240]),
    st.floats(0.05, 240).map(lambda fps: round(fps, 3)),
    st.floats(0.1, 3).map(lambda fps: round(fps, 2)),
)
VARIANT = st.builds(
    lambda window, least, context, native: dataclasses.replace(
        TINY, window_frames=window, min_frames=min(least, window), context_latents=context, native_fps=native
    ),
    st.integers(1, 24).map(lambda n: 4 * n + 1), st.sampled_from([1, 5, 9, 17]), st.integers(0, 8),
    st.sampled_from([16.0, 24.0, 12.5]),
)  # fmt: skip
SETTINGS = st.fixed_dictionaries(
    {
        "max_frames": st.one_of(st.integers(1, 12), st.integers(1, 260)), "fps": FPS,
        "prompts": st.dictionaries(st.integers(-3, 300), st.sampled_from(["a", "b --neg c"]), min_size=1, max_size=7),
    },
    optional={
        "motion": st.sampled_from(["model", "output"]),
        "continuity": st.sampled_from(["latents", "frames", "image", "cut"]),
        "context_frames": st.integers(0, 60), "overlap_frames": st.integers(0, 24),
        "window_frames": st.integers(0, 25).map(lambda n: n and 4 * n + 1),
        "strength": st.sampled_from(
            ["0: (0)", "0:(1), 20:(0), 21:(1)", "0: (sin(t / 5))", "0:(0), 40:(1)", "0:(where(t % 9 == 0, 0, 1))"]
        ),
        "guidance_scale": st.just("0: (5 + sin(t))"), "init_image": st.just("a.png"),
        "zoom": st.sampled_from(["0: (1.02)", "0: (where(t % 40 < 20, 1, 1.1))"]),
        "translation_x": st.just("0: (2)"),
    },
)  # fmt: skip


@settings(max_examples=400)
@given(SETTINGS, VARIANT)
def test_any_plan_counts_exactly(values, variant):
    made = make(variant, **values)
    check_counts(made, variant)
    window = max(values.get("window_frames") or variant.window_frames, variant.min_frames, 5)
    assert all(clip.num_frames <= window for clip in made.clips)
    starts = {clip.start_frame for clip in made.clips}
    keys = sorted(key for key in values["prompts"] if 0 <= key < values["max_frames"])
    assert starts >= set(keys[1:])
    strength = made.schedules["strength"]
    for former, clip in pairwise(made.clips):
        is_cut = strength[clip.start_frame] <= 0 or values.get("continuity") == "cut"
        assert (clip.shot != former.shot) == is_cut
    for frame in range(1, made.max_frames):
        if strength[frame] <= 0 < strength[frame - 1]:
            assert frame in starts


@settings(max_examples=150)
@given(SETTINGS)
def test_the_same_settings_give_the_same_plan(values):
    first = make(TINY, **values)
    assert first == make(TINY, **values)
    assert json.loads(json.dumps(plan_to_dict(first), allow_nan=False)) == plan_to_dict(first)


def test_two_seconds_at_60_fps_are_one_clip_of_33_frames():
    (clip,) = make(fps=60, max_frames=120).clips
    assert (clip.num_frames, clip.new_frames, clip.start_frame, clip.end_frame) == (33, 33, 0, 120)
    made = make(fps=60, max_frames=120)
    assert native_positions(made, clip)[:5] == [
        (0, 0),
        (0, Fraction(4, 15)),
        (0, Fraction(8, 15)),
        (0, Fraction(4, 5)),
        (1, Fraction(1, 15)),
    ]
    assert native_positions(made, clip)[-1] == (31, Fraction(11, 15))
    assert make(fps=60, max_frames=120, motion="output").clips[-1].native_start == 69


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17, 33, 80, 81])
def test_a_window_holds_81_frames(frames):
    (clip,) = make(max_frames=frames).clips
    assert clip.new_latents == math.ceil((frames - 1) / 4) + 1
    assert clip.num_frames == max(17, 4 * (clip.new_latents - 1) + 1)


def test_a_segment_past_the_window_joins_on_latents():
    clips = make(max_frames=300).clips
    assert [clip.carried_frames for clip in clips] == [0] * len(clips)
    assert len(clips) == 5
    assert all(clip.start_frame == clip.native_start for clip in clips)
    assert sum(clip.new_frames for clip in clips) == 301
    assert max(clip.num_frames for clip in clips) - min(clip.num_frames for clip in clips[:-1]) <= 4


def test_few_frames_over_the_window_are_shared_evenly():
    clips = make(max_frames=85).clips
    assert [clip.end_frame - clip.start_frame for clip in clips] == [53, 32]
    assert [clip.num_frames for clip in clips] == [53, 49]


def test_frames_made_ahead_are_carried_over():
    first, second = make(max_frames=60, prompts={"0": "a", "30": "b"}).clips
    assert (first.new_latents, first.new_frames) == (9, 33)
    assert (second.carried_frames, second.native_start, second.stream_latents_before) == (3, 33, 9)
    assert (second.prefix_latents, second.new_latents) == (5, 7)


def test_more_than_half_carried_cuts_the_stream_back():
    first, second, third = make(max_frames=60, prompts={"0": "a", "30": "b", "34": "c"}).clips
    assert (second.carried_frames, second.stream_latents_before, second.native_start) == (0, 8, 29)
    assert second.new_latents == 2 and second.new_frames == 8
    assert (third.carried_frames, third.native_start) == (3, 37)
    assert first.new_latents == 9


def test_a_segment_of_one_frame_is_a_clip_of_its_own():
    made = make(max_frames=20, prompts={"0": "a", "9": "b", "10": "c", "11": "d"})
    assert [(clip.start_frame, clip.end_frame, clip.prompt) for clip in made.clips] == [
        (0, 9, "a"), (9, 10, "b"), (10, 11, "c"), (11, 20, "d"),
    ]  # fmt: skip
    assert [clip.stream_latents_before for clip in made.clips] == [0, 3, 3, 4]
    check_counts(made, T2V)


def test_strength_0_cuts_at_keyframes_and_between_them():
    made = make(max_frames=60, prompts={"0": "a", "20": "b", "40": "c"}, strength="0:(1), 39:(1), 40:(0), 41:(1)")
    assert [clip.shot for clip in made.clips] == [0, 0, 1]
    assert [clip.start for clip in made.clips] == ["noise", "latents", "noise"]
    assert made.clips[2].native_start == 0 and made.shot_start(made.clips[2]) == 40
    assert [clip.strength for clip in made.clips] == [1, 1, 0]
    made = make(max_frames=60, strength="0:(1), 29:(1), 30:(0), 31:(1)")
    assert [(clip.start_frame, clip.shot) for clip in made.clips] == [(0, 0), (30, 1)]
    assert any("hard cut at frame 30" in note for note in made.notes)


def test_no_strength_at_all_makes_every_clip_a_shot():
    made = make(max_frames=160, strength="0")
    assert [(clip.shot, clip.end_frame - clip.start_frame) for clip in made.clips] == [(0, 81), (1, 79)]
    assert make(max_frames=160, continuity="cut").clips[1].start == "noise"
    made = make(max_frames=170, strength="0")
    assert [clip.end_frame for clip in made.clips] == [57, 114, 170], "shared evenly"


def test_an_image_start_repeats_the_last_frame_shown_and_drops_it():
    made = make(TINY, max_frames=40, continuity="image", prompts={"0": "a", "10": "b"})
    first, second, *_ = made.clips
    assert (first.start, first.new_latents, first.new_frames) == ("noise", 4, 13)
    assert (second.start, second.native_start, second.dropped_frames) == ("image", 10, 1)
    assert (second.new_latents, second.new_frames, second.stream_latents_before) == (5, 16, 0)


def test_guidance_of_an_image_start_follows_its_own_native_frames():
    second = make(TINY, max_frames=33, continuity="image", prompts={"0": "a", "17": "b"}, guidance_scale="0:(t)").clips[
        1
    ]
    assert second.native_start == 17
    assert second.guidance == (17, 18, 22, 26, 30), "frame 16 is given, but the clip shows none before 17"


def test_image_starts_share_a_segment_evenly():
    made = make(TINY, max_frames=34, continuity="image")
    assert [clip.num_frames for clip in made.clips] == [17, 17, 17]
    assert [clip.end_frame for clip in made.clips] == [13, 25, 34]


def test_so_few_frames_a_second_that_a_window_only_just_reaches_the_next():
    variant = dataclasses.replace(TINY, window_frames=33, min_frames=17, context_latents=1)
    made = make(variant, fps=0.64, max_frames=7)
    assert made.native_step == 25 and not made.notes
    check_counts(made, variant)


def test_an_image_start_between_two_native_frames():
    made = make(TINY, max_frames=40, fps=60, continuity="image", prompts={"0": "a", "9": "b"})
    second = made.clips[1]
    assert native_positions(made, second)[0] == (2, Fraction(2, 5))
    assert second.native_start == 3, "goes on from native frame 2, the last one at or before its first position"


def test_a_given_picture_is_the_first_frame():
    clip = make(TINY, init_image="a.png", max_frames=17).clips[0]
    assert (clip.start, clip.dropped_frames, clip.native_start, clip.new_frames) == ("image", 0, 0, 17)
    clips = make(TINY, init_image="a.png", max_frames=40, strength="0:(1), 20:(0), 21:(1)").clips
    assert [clip.start for clip in clips if clip.native_start == 0] == ["image", "noise"]


def test_strength_of_what_can_not_be_let_go_of_is_noted():
    values = {"max_frames": 120, "init_image": "a.png", "strength": "0.5"}
    assert any("strength: " in note and "as 1" in note for note in make(I2V, **values).notes)
    assert not any("as 1" in note for note in make(TINY, continuity="image", **values).notes)
    assert not any("as 1" in note for note in make(I2V, **{**values, "strength": "1"}).notes)


def test_a_model_for_pictures_only():
    made = make(I2V, init_image="a.png", max_frames=120, strength="0:(1), 100:(0), 101:(1)")
    assert {clip.start for clip in made.clips} == {"image"}
    assert any("can't start from nothing" in note for note in made.notes)
    check_counts(made, I2V)


@pytest.mark.parametrize(
    ("variant", "values", "words"),
    [
        (I2V, {}, "init_image: Wan 2.1 I2V-14B 480P needs a picture"),
        (T2V, {"init_image": "a.png"}, "takes no picture"),
        (T2V, {"continuity": "image"}, "continuity: Wan 2.1 T2V-1.3B takes no picture"),
        (VARIANTS["wan2.2-ti2v-5B"], {}, "height: .*needs a multiple of 32; got 80; the nearest: 64 or 96"),
    ],
)  # fmt: skip
def test_what_the_model_can_not_do_is_refused(variant, values, words):
    with pytest.raises(SettingsError, match=words):
        make(variant, **values)


def test_a_tail_is_made_for_the_next_clip_to_fade_from():
    clips = make(max_frames=200, overlap_frames=8, prompts={"0": "a", "100": "b"}).clips
    assert [clip.tail_latents for clip in clips] == [2] * (len(clips) - 1) + [0]
    assert [clip.overlap_latents for clip in clips] == [0] + [2] * (len(clips) - 1)
    assert sum(clip.end_frame - clip.start_frame for clip in clips) == 200
    (full,) = make(max_frames=81, overlap_frames=8).clips
    assert full.tail_latents == 0
    full, _ = make(max_frames=101, overlap_frames=8, prompts={"0": "a", "81": "b"}).clips
    assert (full.tail_latents, full.num_frames) == (0, 81), "there is no room, and the video's clips come first"
    cut = make(max_frames=60, overlap_frames=8, prompts={"0": "a", "30": "b"}, strength="0:(1), 30:(0)").clips
    assert [clip.tail_latents for clip in cut] == [0, 0]


def test_a_joint_clip_holds_several_windows():
    made = make(TINY, max_frames=149, continuity="joint")
    assert [clip.latent_frames for clip in made.clips] == [14, 14, 14], "the model's 5, and 3 times 3 more"
    assert {(clip.window_latents, clip.window_overlap) for clip in made.clips} == {(5, 2)}
    assert make(TINY, max_frames=17, continuity="joint").clips[0].window_latents == 0, "one window is enough"
    longer = make(TINY, max_frames=149, continuity="joint", joint_windows=64)
    assert [clip.latent_frames for clip in longer.clips] == [38]
    check_counts(longer, TINY)


def test_what_can_not_be_had_is_noted():
    said = lambda **values: " ".join(make(TINY, **values).notes)  # noqa: E731
    assert "window_frames: raised to 17" in said(window_frames=9)
    assert "trained on 17" in said(window_frames=33)
    assert "context_frames: reduced to 16" in said(context_frames=100)
    assert "overlap_frames: reduced to 4" in said(overlap_frames=40)
    assert "overlap_frames: without effect" in said(overlap_frames=4, continuity="cut")
    assert "prefix_noise: without effect" in said(prefix_noise=1.0)
    assert "slower than life" in said(fps=0.5)
    assert "no keyframe at frame 0" in said(prompts={"4": "a"})
    assert said() == said(fps=60) == ""


def test_noise_over_the_former_clip_is_for_models_of_one_timestep():
    noted = lambda *model, **values: "prefix_noise" in " ".join(make(*model, prefix_noise=0.3, **values).notes)  # noqa: E731
    assert not noted() and not noted(continuity="joint") and not noted(continuity="frames")
    assert noted(continuity="cut") and noted(VARIANTS["wan2.1-vace-1.3B"]) and noted(TINY)


@pytest.mark.parametrize(
    ("behavior", "offsets"),
    [("iter", [0, 1, 2, 3]), ("fixed", [0, 0, 0, 0]), ("ladder", [0, 2, 1, 3]), ("alternate", [0, 1, 0, 1])],
)
def test_seeds_go_on_from_clip_to_clip(behavior, offsets):
    made = make(max_frames=80, prompts={"0": "a", "20": "b", "40": "c", "60": "d"}, seed_behavior=behavior)
    assert [clip.seed - 100 for clip in made.clips] == offsets
    assert made.schedules["seed"][19:21] == [100 + offsets[0], 100 + offsets[1]]
    assert (behavior == "alternate") == any("same seed" in note for note in made.notes)


def test_a_seed_kept_for_several_clips_of_a_shot_is_noted():
    prompts = {"0": "a", "20": "b", "40": "c"}
    assert any(
        "clips 0 and 1 of one shot" in note for note in make(max_frames=60, prompts=prompts, seed_iter_n=2).notes
    )
    assert not make(max_frames=60, prompts=prompts, seed_iter_n=2, continuity="cut").notes


def test_the_seed_schedule_counts_at_each_clip_s_start():
    made = make(max_frames=60, prompts={"0": "a", "20": "b", "40": "c"}, seed_behavior="schedule",
                seed_schedule="0:(s), 20:(s + 50), 40:(-1)")  # fmt: skip
    assert [clip.seed for clip in made.clips[:2]] == [100, 150]
    assert (
        made.clips[2].seed
        == make(max_frames=60, prompts={"0": "a", "20": "b", "40": "c"}, seed_behavior="random").clips[2].seed
    )
    assert made.schedules["seed"][30] == 150 and made.schedules["seed"][59] == -1


def test_schedules_reach_the_clips():
    made = make(
        TINY, max_frames=40, prompts={"0": "a (x:`t`)", "20": "b"}, positive_prompt="p",
        guidance_scale="0:(t)", num_inference_steps="0:(10), 39:(49)", shift="0:(2), 20:(6)",
        strength="0:(1), 20:(0.5)", solver_schedule='0:("euler"), 20:("DPM++ 2M")',
    )  # fmt: skip
    at = {clip.start_frame: clip for clip in made.clips}
    second, third = at[20], at[33]
    assert (second.guidance_scale, second.num_inference_steps, second.shift, second.strength) == (20, 30, 6, 0.5)
    assert (at[0].solver, second.solver, third.solver) == ("euler", "dpm++", "dpm++")
    assert [clip.prompt for clip in made.clips if clip.start_frame < 20] == ["p a (x:0)", "p a (x:17)"]
    assert made.schedules["guidance_scale"][:3] == [0, 1, 2] and made.schedules["num_inference_steps"][39] == 49
    assert at[0].guidance == (0, 2, 6, 10, 14)
    assert second.guidance[0] == 20 and second.guidance[-1] <= second.end_frame - 1
    assert set(made.schedules) == {"guidance_scale", "strength", "shift", "num_inference_steps", "seed"}


def test_what_is_left_empty_is_the_model_s_own():
    clip = make(T2V).clips[0]
    defaults = T2V.defaults
    assert (clip.guidance_scale, clip.num_inference_steps, clip.shift, clip.solver) == (5, 50, 5, "unipc")
    assert clip.negative_prompt == defaults.negative_prompt and clip.strength == 1
    clip = make(T2V, prompts={"0": "a --neg fog"}).clips[0]
    assert clip.negative_prompt == f"fog, {defaults.negative_prompt}"
    clip = make(T2V, prompts={"0": "a --neg fog"}, negative_prompt="rain").clips[0]
    assert clip.negative_prompt == "fog, rain"
    assert make(TINY).clips[0].solver == "euler" and make(TINY, solver="unipc").clips[0].solver == "unipc"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompts": {}}, "prompts: the prompt set is empty"),
        ({"guidance_scale": "0: (1/0)"}, "guidance_scale, keyframe 0.*divides by zero"),
        ({"guidance_scale": "101"}, "guidance_scale.*allowed: 0 to 100"),
        ({"num_inference_steps": "0"}, "num_inference_steps.*allowed: 1 to 1000"),
        ({"shift": "0: (-1)"}, "shift.*allowed: 0.01 to 100"),
        ({"solver_schedule": '0: ("LMS")'}, "unknown solver; got 'LMS'; allowed: unipc"),
        ({"seed_behavior": "schedule", "seed_schedule": "0: (-5)"}, "seed_schedule.*out of range"),
        ({"strength": "0: (foo)"}, "strength.*unknown name"),
        ({"guidance_scale": "9**9**9**9"}, "too large"),
        ({"prompts": {"0": "a `1/0`"}}, "prompts, keyframe 0, column 4.*divides by zero"),
    ],
)  # fmt: skip
def test_bad_schedules_are_refused(values, words):
    with pytest.raises(ScheduleError, match=words):
        make(**values)


def test_strength_beyond_its_range_is_brought_back():
    made = make(max_frames=20, strength="0: (0.9 + t / 10)")
    assert max(made.schedules["strength"]) == 1 and "brought back" in made.notes[0]


def test_a_million_frames_are_planned_quickly():
    started = time.process_time()
    made = make(
        max_frames=1_000_000, prompts={"0": "a", "5000": "b"}, guidance_scale="0: (5 + sin(t / 30))", fps=23.976
    )
    assert time.process_time() - started < 8
    assert made.clips[-1].end_frame == 1_000_000 and len(made.schedules["seed"]) == 1_000_000


def test_the_plan_as_json():
    made = make(fps=60, max_frames=120, prompts={"0": "a --neg b"})
    written = plan_to_dict(made)
    assert (written["fps"], written["max_frames"], written["motion_fps"]) == (60, 120, 16)
    (clip,) = written["clips"]
    assert clip["num_frames"] == 33 and clip["prompt"] == "a" and clip["negative_prompt"].startswith("b")
    assert {"index", "start_frame", "end_frame", "guidance_scale", "seed"} <= set(clip)
    assert len(written["schedules"]["guidance_scale"]) == 120


def test_a_model_that_needs_a_picture_refuses_to_go_on_from_latents():
    settings = RenderSettings(
        prompts={"0": "x"}, width=832, height=480, init_image="start.png", continuity="latents"
    )
    with pytest.raises(SettingsError, match="starts every clip from a picture"):
        plan(settings, VARIANTS["wan2.1-i2v-14B-480P"], 1)
