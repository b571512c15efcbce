"""Deforum's camera: what a schedule does to the picture, and where the plan puts it."""

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from deforum_helpers.camera_frames import given_frames, guide_frames, moved_frames
from deforum_helpers.errors import SettingsError
from deforum_helpers.planning.camera import LEAST_IN_VIEW, camera_of, moved
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import plan, plan_to_dict
from deforum_helpers.variants import DEMO, VARIANTS
from deforum_helpers.video.warp import warp

T2V, I2V, VACE = (VARIANTS[f"wan2.1-{name}"] for name in ("t2v-1.3B", "i2v-14B-480P", "vace-1.3B"))
TINY = VARIANTS[DEMO]


def make(**values):
    return RenderSettings(prompts={"0": "a"}, width=128, height=80, **{"max_frames": 40, **values})


def camera(**values):
    return camera_of(make(**values), 1, [])


def planned(variant=TINY, **values):
    return plan(make(**values), variant, 100)


def to(motion, x, y):
    return tuple(moved(motion, np.array([[float(x), float(y)]]))[0])


@pytest.mark.parametrize(
    ("values", "place", "expected"),
    [
        ({"translation_x": "2"}, (10, 10), (12, 10)), ({"translation_y": "3"}, (10, 10), (10, 13)),
        ({"zoom": "1.02"}, (63.5 + 50, 39.5), (63.5 + 51, 39.5)),
        ({"zoom": "2", "transform_center_x": "0", "transform_center_y": "0"}, (-0.5, -0.5), (-0.5, -0.5)),
        ({"angle": "90"}, (63.5 + 10, 39.5), (63.5, 39.5 - 10)),
        ({"zoom": "2", "translation_x": "5"}, (63.5, 39.5), (63.5 + 10, 39.5)),  # shifted first
    ],
)  # fmt: skip
def test_2d_moves_the_picture_as_deforum_does(values, place, expected):
    assert to(camera(**values).step(5), *place) == pytest.approx(expected)


FOCAL = 40 / math.tan(math.radians(35))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"translation_x": "2"}, (-FOCAL * 2 / 200, 0)),  # the camera goes right: the picture goes left
        ({"translation_y": "2"}, (0, FOCAL * 2 / 200)), ({"rotation_3d_y": "1"}, (-FOCAL * math.tan(math.pi / 180), 0)),
        ({"rotation_3d_x": "1"}, (0, FOCAL * math.tan(math.pi / 180))), ({"translation_z": "20"}, (0, 0)),
        ({"rotation_3d_z": "30"}, (0, 0)),
    ],
)  # fmt: skip
def test_3d_moves_a_camera_before_a_wall(values, expected):
    step = camera(animation_mode="3D", **values).step(5)
    assert np.subtract(to(step, 63.5, 39.5), (63.5, 39.5)) == pytest.approx(expected, abs=1e-9)


def test_3d_forward_comes_nearer_and_a_roll_turns():
    nearer = camera(animation_mode="3D", translation_z="20").step(5)
    assert to(nearer, 73.5, 39.5) == pytest.approx((63.5 + 10 / 0.9, 39.5))
    turned = camera(animation_mode="3D", rotation_3d_z="90").step(5)
    assert to(turned, 73.5, 39.5) == pytest.approx((63.5, 29.5))


def test_a_path_is_the_product_of_its_steps_and_goes_through_fractions():
    seen = camera(zoom="0: (1), 30: (1.1)", angle="2", translation_x="1.5")
    straight = np.eye(3)
    for frame in range(4, 9):
        straight = seen.step(frame) @ straight
    assert seen.path(Fraction(3), [Fraction(8)])[0] == pytest.approx(straight)
    half, whole = seen.path(Fraction(7, 2), [Fraction(9, 2), Fraction(8)])
    assert seen.path(Fraction(9, 2), [Fraction(8)])[0] @ half == pytest.approx(whole)
    assert seen.path(Fraction(5, 3), [Fraction(5, 3)])[0] == pytest.approx(np.eye(3))


def test_a_camera_that_rests_changes_nothing():
    assert camera() is None and camera(animation_mode="3D") is None
    assert camera(zoom="0: (1.0)", angle="0: (sin(0))") is None
    still = planned()
    assert still.camera is None and "zoom" not in still.schedules and not any(clip.moves for clip in still.clips)
    assert {clip.start for clip in still.clips} == {"noise", "latents"}


def test_what_the_other_mode_has_is_left_out_and_said():
    made = planned(translation_z="0: (2)")
    assert made.camera is None
    assert "animation_mode: 2D leaves out translation_z" in made.notes


def test_a_pause_shorter_than_a_clip_is_no_pause():
    seen = camera(translation_x="0: (where(t == 20, 0, 1))")
    assert seen.moving.all()
    seen = camera(translation_x="0: (where(t < 20, 0, 1))")
    assert not seen.moves(0, 20) and seen.moves(20, 21)


def test_clips_begin_where_the_camera_begins_to_move():
    made = planned(max_frames=60, translation_x="0: (where(t < 21, 0, 1))")
    assert {clip.start_frame: (clip.start, clip.moves) for clip in made.clips}[21] == ("frames", True)
    assert all(clip.moves == (clip.start_frame >= 21) for clip in made.clips)


def test_from_its_first_move_on_a_shot_goes_on_from_frames():
    made = planned(max_frames=90, zoom="0: (where(t < 40, 1.01, 1))")
    assert made.clips[0].start == "noise"
    assert {clip.start for clip in made.clips[1:]} == {"frames"}
    assert made.clips[-1].moves is False
    for former, clip in pairwise(made.clips):
        assert clip.dropped_frames == 5 and clip.native_start <= former.native_start + former.new_frames
        assert clip.new_frames == 4 * clip.new_latents - 3 - 5


def test_the_window_holds_what_is_given_and_what_is_new():
    for variant, context in ((T2V, 17), (VACE, 17), (TINY, 5)):
        made = planned(variant, max_frames=200, translation_x="0.2")
        for clip in made.clips[1:]:
            assert (clip.start, clip.dropped_frames) == ("frames", context)
            assert clip.num_frames <= variant.window_frames


def test_an_image_to_video_model_goes_on_from_the_moved_picture():
    made = planned(I2V, init_image="a.png", max_frames=200, translation_x="0.2")
    assert {(clip.start, clip.dropped_frames, clip.moves) for clip in made.clips[1:]} == {("image", 1, True)}


def test_a_fast_camera_shortens_the_clips():
    slow, fast = (planned(T2V, max_frames=160, zoom=f"0: ({zoom})") for zoom in (1.002, 1.05))
    assert len(fast.clips) > 2 * len(slow.clips)
    for clip in fast.clips:
        path = fast.camera.path(Fraction(clip.start_frame), [Fraction(clip.end_frame - 1)])[0]
        assert not fast.camera.leaves(path)
    assert 0 < LEAST_IN_VIEW < 1


def test_where_every_clip_is_a_cut_the_camera_rests():
    made = planned(zoom="1.02", continuity="cut")
    assert made.camera is None
    assert any("camera stands still" in note for note in made.notes)


def test_the_plan_says_what_moves():
    made = planned(zoom="0: (1.01)")
    written = plan_to_dict(made)
    assert written["schedules"]["zoom"] == [1.01] * 40 and "camera" not in written
    assert made == planned(zoom="0: (1.01)")


def test_frames_move_from_the_clips_start_and_the_next_sees_them_at_rest():
    """A bright column, at rest before the camera, is drawn from where it was; what is given on stands still."""
    made = planned(translation_x="2", max_frames=30)
    first, second = made.clips[:2]
    world = np.zeros((first.new_frames, 80, 128, 3), np.uint8)
    world[:, :, 40] = 255
    seen = list(moved_frames(made, first, world, make()))
    assert [int(frame[40, :, 0].argmax()) for frame in seen] == [40 + 2 * index for index in range(len(seen))]
    given = given_frames(made, second, seen, make())
    assert {int(frame[40, :, 0].argmax()) for frame in given} == {40 + 2 * (second.native_start - 1)}
    assert len(given) == second.dropped_frames
    after = next(iter(moved_frames(made, second, given[-1:], make())))
    assert int(after[40, :, 0].argmax()) == 40 + 2 * second.native_start


def test_a_guide_fills_the_window():
    given, new = np.zeros((5, 4, 4, 3), np.uint8), np.ones((8, 4, 4, 3), np.uint8)
    guide = guide_frames(given, new, 17)
    assert guide.shape[0] == 17 and guide[:5].max() == 0 and guide[5:].min() == 1
    assert len(guide_frames(None, new, 9)) == 9


# Pictures


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:48, :64]
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 7 - y / 6), np.sin(y / 5)]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


def test_a_picture_that_rests_stays_bit_by_bit(picture):
    assert np.array_equal(warp(picture, np.eye(3)), picture)


def test_whole_pixels_are_moved_exactly_and_the_edge_is_filled(picture):
    motion = np.array([[1, 0, 5], [0, 1, -3], [0, 0, 1.0]])
    assert np.array_equal(warp(picture, motion)[:-3, 5:], picture[3:, :-5])
    assert np.array_equal(warp(picture, motion)[:-3, :5], np.repeat(picture[3:, :1], 5, axis=1))
    assert np.array_equal(warp(picture, motion, "wrap")[:-3, :5], picture[3:, -5:])
    assert np.array_equal(warp(picture, motion, "reflect")[:-3, :5], picture[3:, 4::-1])


def test_there_and_back_gives_nearly_the_picture(picture):
    motion = camera(zoom="1.07", angle="3", translation_x="1.4").step(1)
    back = warp(warp(picture, motion), np.linalg.inv(motion))
    error = np.abs(back.astype(int) - picture)[12:-12, 12:-12]
    assert error.mean() < 0.6, "bilinear leaves about 1.2"


def test_settings_reach_the_camera():
    fields = {field.name for field in dataclasses.fields(RenderSettings)}
    assert {"zoom", "angle", "fov", "border", "camera_strength"} <= fields


@pytest.mark.parametrize(
    ("values", "frame"),
    [
        ({"zoom": "1.02"}, 71),
        ({"translation_x": "1"}, 97),
        ({"zoom": "1.02", "strength": "0: (1), 60: (0), 61: (1)"}, 0),
    ],
)
def test_the_plan_says_where_the_camera_loses_an_init_video(values, frame):
    """Its way adds up over the clips of a shot: at 1.02 a frame the video is four times as large after 70 frames."""
    said = [note for note in planned(max_frames=120, init_video="v.mp4", **values).notes if "in view" in note]
    assert len(said) == bool(frame)
    assert not frame or frame <= int(said[0].split()[-1]) < frame + 16
    assert not any("in view" in note for note in planned(max_frames=120, **values).notes)


def test_a_camera_that_goes_too_far_over_an_init_video_is_told():
    with pytest.raises(SettingsError, match=r"init_video: the camera magnifies it .* times by frame .*; allowed: up"):
        planned(max_frames=400, init_video="v.mp4", zoom="1.3")
    assert planned(max_frames=400, zoom="1.3").clips
