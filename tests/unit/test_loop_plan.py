"""A loop's plan: one ring of exactly as many frames as asked for, and what can't be one."""

from fractions import Fraction

import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.timeline import native_positions
from deforum_helpers.variants import VARIANTS
from test_timeline import TINY, make


def test_a_loop_is_one_ring_of_exactly_as_many_frames():
    made = make(TINY, max_frames=48, loop=True)
    (clip,) = made.clips
    assert (clip.latent_frames, clip.new_latents, clip.dropped_frames, clip.ring_latents) == (12, 16, 9, 3)
    assert (clip.new_frames, clip.start_frame, clip.end_frame) == (52, 0, 48)
    assert made.native_step == 1 and not made.notes
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
    assert as_it_was != any("so that the ring closes" in note for note in made.notes)


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
        (VARIANTS["wan2.1-vace-1.3B"], {}, "from text alone"),
    ],
)  # fmt: skip
def test_what_can_not_be_a_loop_is_refused(variant, values, words):
    with pytest.raises(SettingsError, match=f"loop: can't be a loop: .*{words}"):
        make(variant, loop=True, max_frames=20, **values)
