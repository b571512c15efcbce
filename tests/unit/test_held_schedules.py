"""Schedules that act from clip to clip: the plan says at which frames they take effect."""

from test_timeline import TINY, make


def test_a_schedule_that_acts_clip_by_clip_says_where_it_takes_effect():
    held = make(TINY, max_frames=40, shift="0: (3), 39: (5)", num_inference_steps="0: (14), 39: (14.9)")
    starts = ", ".join(str(clip.start_frame) for clip in held.clips)
    assert len(held.clips) > 1 and held.notes == [
        f"shift: a clip keeps the value of its first frame, so it takes effect at frame {starts}"
    ]
    exact = make(TINY, max_frames=32, prompts={"0": "a", "16": "b"}, shift="0: (where(t < 16, 3, 5))")
    assert not exact.notes


def test_a_solver_schedule_says_where_it_takes_effect():
    held = make(TINY, max_frames=40, solver_schedule='0: ("euler"), 10: ("unipc")')
    first = next(clip.start_frame for clip in held.clips if clip.start_frame >= 10)
    assert [clip.solver for clip in held.clips] == ["euler" if c.start_frame < 10 else "unipc" for c in held.clips]
    assert held.notes == [
        f"solver_schedule: a clip keeps the value of its first frame, so it takes effect at frame 0, {first}"
    ]
    assert not make(TINY, max_frames=40, solver_schedule='0: ("euler"), 10: ("Euler")').notes
    prompts = {"0": "a", "16": "b"}
    assert not make(TINY, max_frames=32, prompts=prompts, solver_schedule='0: ("euler"), 16: ("unipc")').notes
