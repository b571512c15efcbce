"""Pictures at given frames: where they stand in the plan, in the requests and in the settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.clips import Job, clip_requests
from deforum_helpers.errors import ScheduleError, SettingsError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.preflight import checked_pictures
from deforum_helpers.settings import RenderSettings, settings_from_dict, settings_to_dict
from deforum_helpers.timeline import plan
from deforum_helpers.variants import DEMO, VARIANTS
from deforum_helpers.video.frames import write_png

T2V, I2V, FLF2V, VACE = (VARIANTS[f"wan2.1-{name}"] for name in ("t2v-1.3B", "i2v-14B-480P", "flf2v-14B", "vace-1.3B"))
TINY = VARIANTS[DEMO]
MODEL = inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo")


def make(images, **values):
    values = {"prompts": {"0": "a"}, "width": 128, "height": 80, "max_frames": 60, **values}
    return settings_from_dict({**values, "init_images": images})[0]


def planned(images, variant=TINY, **values):
    return plan(make(images, **values), variant, 100)


def test_a_shot_starts_from_each_picture():
    made = planned({"0": "a.png", "20": "b.png", "max_f-9": "c.png"})
    starts = {clip.start_frame: clip.picture for clip in made.clips if clip.picture}
    assert starts == {0: "a.png", 20: "b.png", 50: "c.png"}
    assert all((clip.start == "image") == bool(clip.picture) for clip in made.clips)
    assert len({clip.shot for clip in made.clips}) == 3
    assert not any(clip.end_picture for clip in made.clips), "the demo takes no last frame"


def test_init_image_is_the_picture_of_frame_0():
    made = planned({"20": "b.png"}, init_image="a.png")
    assert {clip.start_frame: clip.picture for clip in made.clips if clip.picture} == {0: "a.png", 20: "b.png"}
    both = planned({"0": "b.png"}, init_image="a.png")
    assert both.clips[0].picture == "b.png" and any("more than one picture" in note for note in both.notes)


@pytest.mark.parametrize("variant", [FLF2V, VACE])
@pytest.mark.parametrize("second", [30, 33, 95, 200])
def test_where_the_model_takes_a_last_frame_it_flows_into_the_picture(variant, second):
    made = planned({"0": "a.png", str(second): "b.png"}, variant, max_frames=240)
    before = next(clip for clip in made.clips if clip.end_frame == second)
    assert before.end_picture == "b.png"
    assert before.num_frames <= variant.window_frames
    last = before.native_start - before.dropped_frames + before.num_frames - 1
    asked = second if before.shot == 0 else None
    assert asked <= last <= asked + 3 or before.num_frames == variant.min_frames, "the window's last frame is there"
    assert [clip.end_picture for clip in made.clips if clip is not before] == [""] * (len(made.clips) - 1)


@pytest.mark.parametrize(
    ("variant", "more", "words"),
    [
        (TINY, {}, "(tiny, bundled) is given no last frame, so the video cuts to the picture, at frame 20, 50"),
        (VARIANTS["wan2.2-ti2v-5B"], {"width": 832, "height": 480}, "the video cuts to the picture, at frame 20, 50"),
        (VACE, {"zoom": "1.01"}, "init_images: where the camera moves the video cuts to the picture, at frame 20, 50"),
        (VACE, {}, ""),
    ],
)
def test_where_the_video_cuts_to_a_picture_the_plan_says_so(variant, more, words):
    notes = planned({"0": "a.png", "20": "b.png", "max_f-9": "c.png"}, variant, **more).notes
    said = [note for note in notes if "cuts to the picture" in note]
    assert len(said) == bool(words) and "".join(said).endswith(words)


def test_a_moving_camera_ends_in_no_picture():
    made = planned({"0": "a.png", "30": "b.png"}, VACE, zoom="1.01")
    assert not any(clip.end_picture for clip in made.clips)


def test_a_model_that_takes_no_picture_says_so_at_the_field():
    with pytest.raises(SettingsError, match="takes no picture") as caught:
        planned({"0": "a.png"}, T2V)
    assert caught.value.where == "init_images"
    with pytest.raises(SettingsError, match="needs a picture to start from"):
        planned({"20": "a.png"}, I2V)
    with pytest.raises(ScheduleError, match="init_images"):
        planned({"twenty": "a.png"})


def test_a_picture_outside_the_video_is_noted():
    made = planned({"0": "a.png", "900": "b.png"})
    assert any("900 lies outside" in note for note in made.notes)
    assert {clip.picture for clip in made.clips} == {"a.png", ""}


def test_an_image_model_takes_the_last_picture_for_its_cuts():
    made = planned({"0": "a.png", "20": "b.png"}, I2V, strength="0: (1), 40: (0), 41: (1)")
    assert [(clip.start_frame, clip.picture) for clip in made.clips if clip.picture] == [
        (0, "a.png"), (20, "b.png"), (40, "b.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"0": "https://example.org/a.png"}', "nothing is fetched"), ('{"0": 5}', "must be text"),
        ("[]", "must be files by frame"), ('{"0": "a\\u0000"}', "null character"), ("a.png", "must be files by frame"),
        ('{"0": a.png}', "not valid JSON"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_pictures_is_refused(given, words):
    with pytest.raises(SettingsError, match=words) as caught:
        RenderSettings(init_images=given)
    assert caught.value.where.startswith("init_images")


def test_settings_keep_them_and_deforum_s_switch_counts():
    made = make({"0": "a.png", "max_f/2": "b.png"})
    written = settings_to_dict(made)
    assert written["use_looper"] is True
    assert settings_from_dict(json.loads(json.dumps(written)))[0] == made
    off, notes = settings_from_dict({"use_looper": False, "init_images": '{"0": "https://example.org/I.png"}'})
    assert off.init_images == "" and any("switched off" in note for note in notes)
    assert [path for name, path in made.files() if name == "init_images"] == ["a.png", "b.png"]


def test_requests_name_the_files_and_their_content_decides(tmp_path):
    fingerprints = []
    for folder, value in (("one", 1), ("two", 1), ("three", 2)):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "a.png", np.full((16, 32, 3), 9, np.uint8))
        write_png(tmp_path / folder / "b.png", np.full((16, 32, 3), value, np.uint8))
        settings = make({"0": str(tmp_path / folder / "a.png"), "20": str(tmp_path / folder / "b.png")})
        decided = plan(settings, VACE, 1)
        job = Job(settings, decided, replace(MODEL, variant="wan2.1-vace-1.3B"), "weights",
                  JobFiles(tmp_path / folder, "x"), checked_pictures(settings))  # fmt: skip
        requests = clip_requests(job)
        assert requests[0].init_image.endswith("a.png") and requests[0].end_image.endswith("b.png")
        fingerprints.append(requests[0].fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_picture_that_isnt_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no such picture") as caught:
        checked_pictures(make({"0": str(tmp_path / "none.png")}))
    assert caught.value.where == "init_images"


def test_a_picture_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_png(tmp_path / "a.png", np.zeros((16, 32, 3), np.uint8))
    settings = make({"0": "~/a.png"})
    pictures = checked_pictures(settings)
    job = Job(settings, plan(settings, TINY, 1), MODEL, "weights", JobFiles(tmp_path, "x"), pictures)
    assert clip_requests(job)[0].init_image == str(tmp_path / "a.png")


def test_from_another_machine_only_pictures_of_known_folders_may_be_named(tmp_path, monkeypatch):
    from deforum_helpers.web import host, paths

    monkeypatch.setattr(host, "readable_folders", lambda: [tmp_path])
    (error,) = paths.foreign_paths(make({"0": str(tmp_path / "a.png"), "9": "/etc/passwd"}))
    assert error.where == "init_images" and error.got == "/etc/passwd"
