"""A loop's plan: one ring of exactly as many frames as asked for, and what can't be one."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.clips import Job, clip_requests
from deforum_helpers.errors import SettingsError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import native_positions, plan
from deforum_helpers.variants import VARIANTS
from test_timeline import TINY, check_counts, make

MODEL = dataclasses.replace(
    inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo"), variant="wan2.1-vace-1.3B"
)
I2V, FLF2V, VACE = (VARIANTS[f"wan2.1-{name}"] for name in ("i2v-14B-480P", "flf2v-14B", "vace-1.3B"))


def test_a_loop_is_one_ring_of_exactly_as_many_frames():
    made = make(TINY, max_frames=48, loop=True)
    (clip,) = made.clips
    assert (clip.latent_frames, clip.new_latents, clip.dropped_frames, clip.ring_latents) == (12, 16, 9, 3)
    assert (clip.new_frames, clip.start_frame, clip.end_frame) == (52, 0, 48)
    assert made.native_step == 1 and made.notes == ["loop: one ring of 12 latents"]
    assert len(clip.guidance) == 12


@pytest.mark.parametrize(("frames", "fps"), [(49, 16), (48, 20), (120, 60), (7, 16), (200, 23.976)])
def test_a_loop_closes_exactly_at_any_rate(frames, fps):
    made = make(TINY, max_frames=frames, fps=fps, loop=True)
    (clip,) = made.clips
    assert made.native_step * frames == 4 * clip.latent_frames, "the frame after the last one is the first one"
    positions = native_positions(made, clip)
    assert len(positions) == frames
    assert all(index + (fraction > 0) < clip.new_frames for index, fraction in positions)
    as_it_was = made.native_step == Fraction("16") / Fraction(str(fps))
    assert as_it_was != any("so that the loop closes" in note for note in made.notes)


def test_guidance_of_a_ring_is_taken_in_the_middle_of_its_latents():
    (clip,) = make(TINY, max_frames=24, loop=True, guidance_scale="0: (t)").clips
    assert clip.guidance == (1, 5, 9, 13, 17, 21)


@pytest.mark.parametrize(
    ("variant", "values", "words"),
    [
        (TINY, {"prompts": {"0": "a", "9": "b"}}, "2 prompts"),
        (TINY, {"strength": "0:(1), 9:(0), 10:(1)"}, "hard cut"),
        (TINY, {"continuity": "cut"}, "hard cut"),
        (TINY, {"continuity": "image"}, "continuity is image"),
        (TINY, {"init_image": "a.png"}, "starts from is given"),
        (TINY, {"zoom": "0: (1.02)"}, "camera"),
        (TINY, {"continue_from": "a.txt"}, "starts from is given"),
        (I2V, {"init_image": "a.png"}, "I2V-14B 480P takes no last frame"),
        (VACE, {"continue_from": "a.txt"}, "starts from is given"),
        (VACE, {"zoom": "0: (1.02)"}, "camera"),
        (VACE, {"init_video": "a.mp4"}, "follows a video"),
        (VACE, {"max_frames": 1}, "one frame"),
    ],
)  # fmt: skip
def test_what_can_not_be_a_loop_is_refused(variant, values, words):
    with pytest.raises(SettingsError, match=f"loop: can't be a loop: .*{words}"):
        make(variant, loop=True, **{"max_frames": 20, **values})


def last_of_window(clip) -> int:
    """The native frame of its shot that a clip's window ends with."""
    if clip.stream_latents_before:
        return 4 * (clip.stream_latents_before - clip.prefix_latents + clip.latent_frames - 1)
    return clip.native_start - clip.dropped_frames + clip.num_frames - 1


LOOPS = [
    (FLF2V, {"init_image": "a.png"}), (VACE, {"init_image": "a.png"}), (VACE, {}),
    (VACE, {"continuity": "latents"}), (VACE, {"continuity": "image"}), (VACE, {"continuity": "cut"}),
    (VACE, {"prompts": {"0": "a", "30": "b", "55": "c"}}),
    (VACE, {"strength": "0: (1), 39: (1), 40: (0), 41: (1)", "prompts": {"0": "a", "40": "b"}}),
    (FLF2V, {"init_image": "a.png", "init_images": '{"30": "b.png"}', "prompts": {"0": "a", "41": "b"}}),
    (VACE, {"window_frames": 33, "overlap_frames": 4, "continuity": "latents"}),
]  # fmt: skip


@pytest.mark.parametrize(("variant", "values"), LOOPS)
@pytest.mark.parametrize(("frames", "fps"), [(80, 16), (83, 16), (240, 60), (200, 23.976), (161, 8), (100, 16)])
def test_the_last_clip_ends_in_the_first_frame_and_exactly_there(variant, values, frames, fps):
    made = make(variant, max_frames=frames, fps=fps, loop=True, **values)
    *others, last = made.clips
    assert last.to_first_frame and not any(clip.to_first_frame for clip in others)
    assert last.end_picture == values.get("init_image", "")
    assert last_of_window(last) == (frames - made.shot_start(last)) * made.native_step, "frame 0 lies behind the last"
    assert last.num_frames <= (values.get("window_frames") or variant.window_frames)
    assert last.end_picture or others, "what it ends in is made before it"
    assert sum(clip.end_frame - clip.start_frame for clip in made.clips) == frames
    check_counts(dataclasses.replace(made, clips=tuple(as_from_nothing(clip) for clip in made.clips)), variant)
    as_it_was = made.native_step == Fraction(16) / Fraction(str(fps))
    (note,) = [note for note in made.notes if note.startswith("loop:")]
    assert "goes on to frame 0" in note and as_it_was != ("so that the loop closes" in note)
    assert abs(made.native_step * Fraction(str(fps)) / 16 - 1) < 0.1


def as_from_nothing(clip):
    """check_counts knows shots that start from nothing; a given picture counts as that."""
    return dataclasses.replace(clip, start="noise") if clip.picture else clip


def test_a_short_loop_of_text_is_halved():
    made = make(VACE, max_frames=80, loop=True)
    assert [(clip.start_frame, clip.end_frame) for clip in made.clips] == [(0, 41), (41, 80)]
    assert made.native_step == 1
    made = make(VACE, max_frames=80, loop=True, init_image="a.png")
    assert len(made.clips) == 1 and made.clips[0].num_frames == 81


@pytest.mark.parametrize("frames", [2, 3, 5, 11, 16])
@pytest.mark.parametrize("values", [{}, {"init_image": "a.png"}])
def test_very_short_loops_have_a_window_that_is_long_enough(frames, values):
    made = make(VACE, max_frames=frames, loop=True, **values)
    assert made.clips[-1].num_frames >= VACE.min_frames
    assert last_of_window(made.clips[-1]) == frames * made.native_step


def test_another_first_frame_makes_the_last_clip_stale(tmp_path):
    """Also where a cut lies between them, so that it goes on from nothing."""

    def prints(first: str) -> list[str]:
        settings = RenderSettings(
            prompts={"0": first, "20": "b"}, width=64, height=48, max_frames=40, loop=True, continuity="cut"
        )
        job = Job(settings, plan(settings, VACE, 1), MODEL, "weights", JobFiles(tmp_path, "x"))
        requests = clip_requests(job)
        assert [Path(request.end_image).name for request in requests] == ["", "clip_001.end.png"]
        return [request.fingerprint() for request in requests]

    one, again, other = prints("a"), prints("a"), prints("c")
    assert one == again and not set(one) & set(other)
