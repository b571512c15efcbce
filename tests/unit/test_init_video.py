"""A video to draw over: which of its frames a clip gets, what is said of it, and what is refused."""

import json
import subprocess
import threading
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from deforum_helpers.errors import InputError, RenderCancelled, SettingsError
from deforum_helpers.init_video import Guides, init_video
from deforum_helpers.job_files import JobFiles
from deforum_helpers.preflight import check_render
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings, settings_from_dict, settings_to_dict
from deforum_helpers.timeline import plan
from deforum_helpers.variants import VARIANTS
from deforum_helpers.video import source as source_module
from deforum_helpers.video.ffmpeg import FrameOutput, find_ffmpeg
from deforum_helpers.video.frames import read_png, write_png
from deforum_helpers.video.source import Reel, open_source, read_frames
from deforum_helpers.video_io import VideoOptions, encode_video
from deforum_helpers.web.planning import preview
from fake_worker import FakeRenderer
from test_render_wan import MODEL, _own_state_folder, with_changes  # noqa: F401 - a fixture

LEVELS = 3  # of grey between one frame of the video and the next


def grey(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), LEVELS * index + 9, np.uint8)


def index_of(frames: np.ndarray) -> list[int]:
    """Which frames of the video these are, by their grey."""
    return [round((float(frame.mean()) - 9) / LEVELS) for frame in frames]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """make(fps, frames) -> a video whose frame k is grey(k)."""
    folder = tmp_path_factory.mktemp("videos")

    def make(fps=16, frames=60, codec="libx264", size=(48, 64)):
        path = folder / f"{fps}-{frames}-{codec}-{size[0]}.{'mkv' if codec == 'libx265' else 'mp4'}"
        if not path.exists():
            encode_video((grey(k, *size) for k in range(frames)), path, VideoOptions(fps, codec, crf=4))
        return path

    return make


class Watched(FakeRenderer):
    """Keeps the frames that each clip is to be drawn over."""

    def __init__(self, fail=None):
        super().__init__(fail)
        self.guides = []

    def run(self, request, *more):
        self.guides.append(np.load(request.guide_file) if request.guide_file else None)
        return super().run(request, *more)


def rendered(path, out, model=MODEL, **changes):
    settings = with_changes(init_video=str(path), **{"prompts": {"0": "a"}, "skip_video_creation": True, **changes})
    worker = Watched()
    result = render_wan(settings, out, worker=worker, model=model)
    return worker, result


@pytest.mark.parametrize("rate", [16, 30, 24, 23.976, 12.5, 8, 60])
@pytest.mark.parametrize("fps", [16, 24])
def test_each_frame_of_a_clip_is_drawn_over_what_the_video_shows_then(videos, tmp_path, rate, fps):
    worker, _ = rendered(videos(rate, 80), tmp_path, fps=fps, max_frames=30)
    exact = Fraction(24000, 1001) if rate == 23.976 else Fraction(str(rate))
    covered = set()
    for request, guide in zip(worker.requests, worker.guides, strict=True):
        before = sum(part.count for part in request.stream)
        first = 4 * before - 4 if before else 0  # the frame before the new ones, or the stream's first
        frames = 4 * (request.latent_frames - request.prefix_latents) - 3 + 4 * bool(before)
        assert guide.shape == (frames, 16, 32, 3)
        wanted = [min(79, int((first + k) * exact / 16)) for k in range(len(guide))]
        assert index_of(guide) == wanted
        covered |= set(range(first, first + len(guide)))
        assert request.guide_strength == 0.5
    assert covered >= set(range(30 * 16 // fps))


def test_every_nth_frame_is_taken_as_in_deforum(videos, tmp_path):
    worker, _ = rendered(videos(30, 80), tmp_path, max_frames=17, extract_nth_frame=2, extract_from_frame=10)
    assert index_of(worker.guides[0]) == [10 + 2 * k for k in range(17)]


def test_past_its_end_the_last_picture_stands_still_and_that_is_said(videos, tmp_path):
    path = videos(16, 60)
    worker, result = rendered(path, tmp_path, max_frames=17, extract_from_frame=4, extract_to_frame=11)
    assert index_of(worker.guides[0]) == [4, 5, 6, 7, 8, 9, 10, *[11] * 10]
    assert any("ends before frame 8" in note for note in result.notes)
    assert any("frames 4 to 11 of 60 are drawn over (64 x 48, 16 fps)" in note for note in result.notes)
    worker, result = rendered(path, tmp_path, max_frames=8, extract_from_frame=4, extract_to_frame=11)
    assert not any("ends before" in note for note in result.notes)


def test_what_a_container_counts_too_many_is_held(videos):
    source = replace(open_source(videos(16, 60), "init_video"), frames=65)
    assert index_of(read_frames(source, [0, 58, 63, 63, 64, 900], 32, 16)) == [0, 58, 59, 59, 59, 59]


MADE = {
    "long gops": ("mp4", ["-c:v", "libx264", "-g", "250", "-bf", "3"]),
    "changing rate": (
        "mkv", ["-vf", "setpts='N*(1+N/300)/16/TB'", "-fps_mode", "vfr", "-c:v", "libx264", "-bf", "3"],
    ),
    "mjpeg": ("avi", ["-c:v", "mjpeg"]),
    "vp9": ("webm", ["-c:v", "libvpx-vp9", "-cpu-used", "8"]),
}  # fmt: skip


def made(folder, kind, frames):
    """A video of noise that moves, no two frames of it alike."""
    ending, arguments = MADE[kind]
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    raw = b"".join(np.roll(noise, (k % 64, k // 64), axis=(1, 0)).tobytes() for k in range(frames))
    path = folder / f"made.{ending}"
    subprocess.run(
        [find_ffmpeg().path, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "16",
         "-i", "pipe:0", *arguments, str(path)], input=raw, check=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("kind", MADE)
def test_read_stretch_by_stretch_frames_are_those_of_the_whole_video(tmp_path, kind):
    source = open_source(made(tmp_path, kind, 70), "init_video")
    whole = read_frames(source, range(source.frames), 32, 16)
    assert len({frame.tobytes() for frame in whole}) > 40
    stretches = {0: range(0, 30, 2), 2: [21, 24, 24, 27], 3: range(20, 41), 7: range(33, 99)}
    for skipped in (set(), {0, 2}):
        with closing(Reel(source, stretches, 32, 16)) as reel:
            for number in sorted(set(stretches) - skipped):
                wanted = np.minimum(stretches[number], source.frames - 1)
                assert np.array_equal(reel.read(number), whole[wanted]), number


def test_a_long_stretch_that_is_passed_over(tmp_path):
    source = open_source(made(tmp_path, "long gops", 330), "init_video")
    whole = read_frames(source, range(330), 32, 16)
    for first in (99, 100, 101, 200, 257, 326):
        assert np.array_equal(read_frames(source, range(first, 330), 32, 16), whole[first:])
    with closing(Reel(source, {0: [320]}, 32, 16)) as reel, pytest.raises(RenderCancelled):
        cancel = threading.Event()
        cancel.set()
        reel.read(0, cancel)


def test_a_job_decodes_its_video_once_and_leaves_no_decoder_behind(videos, tmp_path, monkeypatch):
    started = []

    class Counted(FrameOutput):
        def __init__(self, *more):
            super().__init__(*more)
            started.append(self)

    open_source(videos(16, 60), "init_video")
    monkeypatch.setattr(source_module, "FrameOutput", Counted)
    worker, _ = rendered(videos(16, 60), tmp_path, max_frames=50)
    assert len(worker.requests) > 2 and len(started) == 1
    assert started[0]._process.returncode is not None


def test_a_video_cut_short_behind_our_back_is_told(videos, tmp_path):
    path = tmp_path / "cut.mkv"
    subprocess.run([find_ffmpeg().path, "-v", "error", "-i", str(videos(16, 60)), str(path)], check=True)
    source = open_source(path, "init_video")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="shorter than it was"):
        read_frames(source, [55, 56], 32, 16)


def test_any_shape_is_scaled_to_cover_and_cropped_at_its_centre(tmp_path):
    wide = np.zeros((40, 200, 3), np.uint8)
    wide[:, 80:120] = 200
    encode_video([wide] * 4, tmp_path / "wide.mp4", VideoOptions(16, crf=4))
    (frame,) = read_frames(open_source(tmp_path / "wide.mp4", "init_video"), [2], 80, 80)
    assert frame.shape == (80, 80, 3) and frame[:, 4:76].min() > 150


def test_a_video_that_was_filmed_upright_is_shown_so(tmp_path):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :32] = 200
    encode_video([wide] * 4, tmp_path / "wide.mp4", VideoOptions(16, crf=4))
    turn = ["-display_rotation", "90", "-i", str(tmp_path / "wide.mp4"), "-c", "copy", str(tmp_path / "tall.mp4")]
    subprocess.run([find_ffmpeg().path, "-v", "error", *turn], check=True)
    source = open_source(tmp_path / "tall.mp4", "init_video")
    assert (source.width, source.height) == (32, 64)
    (frame,) = read_frames(source, [1], 32, 64)
    assert frame[34:].min() > 150 and frame[:30].max() < 50


def test_many_scattered_frames(videos):
    source = open_source(videos(30, 80), "init_video")
    wanted = [k // 2 for k in range(0, 160, 3)]
    assert index_of(read_frames(source, wanted, 32, 16)) == wanted


def test_strength_is_a_schedule_and_0_leaves_the_video_out(videos, tmp_path):
    worker, result = rendered(videos(), tmp_path, video_strength="0: (0.8), 8: (0.8), 20: (0)", max_frames=40,
                              prompts={"0": "a", "20": "b"})  # fmt: skip
    strengths = [request.guide_strength for request in worker.requests]
    assert strengths[0] == 0.8 and strengths[-1] == 0
    assert worker.guides[-1] is None and worker.requests[-1].guide_file == ""
    assert any(note.startswith("video_strength: a clip keeps the value") for note in result.notes)


def test_the_video_s_content_and_place_decide_the_fingerprint(videos, tmp_path):
    from deforum_helpers.clips import Job, clip_requests

    def prints(path, **changes):
        settings = with_changes(init_video=str(path), **changes)
        checked = check_render(settings, tmp_path, model=MODEL)
        job = Job(settings, plan(settings, MODEL.row, 100), MODEL, "weights", JobFiles(tmp_path, "x"),
                  checked.pictures, guides=Guides(checked.plan, settings, checked.source))  # fmt: skip
        return [request.fingerprint() for request in clip_requests(job)]

    path = videos(16, 60)
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(path.read_bytes())
    encode_video((grey(60 - k) for k in range(60)), other, VideoOptions(16, crf=4))
    first = prints(path)
    assert prints(copy) == first
    for changed in (
        prints(other),
        prints(path, extract_from_frame=1),
        prints(path, video_strength="0.4"),
        prints(path, extract_nth_frame=2),
    ):
        assert not set(changed) & set(first)


def test_a_job_stopped_and_resumed_is_drawn_over_the_same_frames(videos, tmp_path):
    from deforum_helpers.errors import WorkerDied

    settings = with_changes(init_video=str(videos()), skip_video_creation=True)
    whole, half, rest = Watched(), Watched({1: WorkerDied("1"), 2: WorkerDied("2")}), Watched()
    render_wan(settings, tmp_path / "whole", worker=whole, model=MODEL)
    with pytest.raises(WorkerDied):
        render_wan(settings, tmp_path, worker=half, model=MODEL, timestring="1")
    render_wan(settings, tmp_path, worker=rest, model=MODEL, timestring="1", resume=True)
    assert all(np.array_equal(a, b) for a, b in zip(whole.guides[1:], rest.guides, strict=True))
    assert not list(JobFiles(tmp_path / "batch", "1").work.glob("*.npy"))


I2V = VARIANTS["wan2.1-i2v-14B-480P"]


def test_an_image_model_starts_from_what_the_video_shows(videos, tmp_path):
    """And goes on from its own last frames: the video's frames stand in where a picture is missing, no more."""
    path, model = videos(16, 60), replace(MODEL, variant=I2V.name)
    changes = {"extract_from_frame": 5, "window_frames": 17, "strength": "0: (1), 30: (0), 31: (1)", "max_frames": 40}
    worker, result = rendered(path, tmp_path, model, **changes)
    clips = plan(with_changes(init_video=str(path), **{"prompts": {"0": "a"}, **changes}), I2V, 1).clips
    starts = {
        clip.start_frame: index_of(read_png(request.init_image)[None])[0]
        for clip, request in zip(clips, worker.requests, strict=True)
        if clip.video_picture
    }
    assert starts == {0: 5, 30: 35}
    assert {clip.start for clip in clips} == {"image"} and len(clips) > 2
    (note,) = [note for note in result.notes if "none is given" in note]
    assert note.endswith("so what the video shows at frame 0, 30 is one")


def test_a_given_picture_counts_before_the_video_s(videos, tmp_path):
    write_png(tmp_path / "a.png", grey(50))
    changes = {"init_image": str(tmp_path / "a.png"), "max_frames": 30, "strength": "0: (1), 20: (0), 21: (1)"}
    worker, result = rendered(videos(16, 60), tmp_path, model=replace(MODEL, variant=I2V.name), **changes)
    assert {request.init_image for request in worker.requests} == {str(tmp_path / "a.png")}
    assert not any("none is given" in note for note in result.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video_strength": "0: (0)"}, "needs a picture to start from; .*video_strength above 0 at frame 0"),
        (
            {"video_strength": "0: (0.5), 20: (0)", "strength": "0: (1), 20: (0), 21: (1)"},
            "can't start a shot from nothing, as the hard cut at frame 20 asks",
        ),
        ({"init_video": ""}, "needs a picture to start from; give one or choose"),
    ],
)
def test_where_the_video_is_left_out_an_image_model_lacks_a_picture(videos, changes, words):
    values = {"init_video": str(videos(16, 60)), "prompts": {"0": "a"}, "max_frames": 30, **changes}
    with pytest.raises(SettingsError, match=words) as caught:
        plan(with_changes(**values), I2V, 1)
    assert caught.value.where == "init_image"


def test_a_loop_can_not_follow_a_video(videos):
    from test_timeline import make

    with pytest.raises(SettingsError, match=r"loop: can't be a loop: .*follows a video"):
        make(VARIANTS["demo"], loop=True, max_frames=20, init_video=str(videos()))


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"init_video": "none.mp4"}, "init_video", "no such video"),
        ({"init_video": "text.mp4"}, "init_video", r"no video that can be read \(it is damaged, or no video at all\)"),
        ({"init_video": "sound.mp4"}, "init_video", "it holds no pictures"),
        ({"init_video": "."}, "init_video", "is no file"),
        ({"init_video": "list.m3u8"}, "init_video", "no video that can be read"),
        ({"init_video": "picture.gif"}, "init_video", "no more than one picture; init_image takes that"),
        ({"init_video": "cut.mp4"}, "init_video", "no video that can be read"),
        ({"extract_from_frame": 60}, "extract_from_frame", "ends before that; got 60; allowed: 0 to 59"),
        ({"extract_from_frame": 9, "extract_to_frame": 8}, "extract_to_frame", "before extract_from_frame"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_told_at_its_field(videos, tmp_path, changes, where, words):
    from PIL import Image

    whole = videos(16, 60)
    (tmp_path / "text.mp4").write_text("hello")
    sound = ["-f", "lavfi", "-i", "sine=d=0.1", str(tmp_path / "sound.mp4")]
    subprocess.run([find_ffmpeg().path, "-v", "error", *sound], check=True)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "picture.gif")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:900])
    values = {"init_video": str(whole), **changes}
    if "init_video" in changes:
        values["init_video"] = str(tmp_path / changes["init_video"])
    with pytest.raises(SettingsError, match=words) as caught:
        init_video(with_changes(**values))
    assert caught.value.where == where
    shown = preview({"prompts": {"0": "a"}, "W": 32, "H": 16, **values}, lambda settings: MODEL)
    assert [error["field"] for error in shown.errors] == [where]


def test_the_plan_shown_in_the_tab_tells_of_the_video(videos):
    shown = preview(
        {"prompts": {"0": "a"}, "W": 32, "H": 16, "init_video": str(videos(16, 60))}, lambda settings: MODEL
    )
    assert not shown.errors and any("of 60 are drawn over" in note for note in shown.notes)
    assert "video_strength" in shown.plan.schedules
    without = preview({"prompts": {"0": "a"}, "W": 32, "H": 16}, lambda settings: MODEL)
    assert "video_strength" not in without.plan.schedules


def test_an_address_is_never_fetched():
    with pytest.raises(SettingsError, match="nothing is fetched from the net"):
        RenderSettings(init_video="https://deforum.github.io/a1/V1.mp4")


DEFORUM = {
    "video_init_path": "https://deforum.github.io/a1/V1.mp4", "extract_nth_frame": 1, "extract_from_frame": 0,
    "extract_to_frame": -1, "overwrite_extracted_frames": True, "strength_schedule": "0: (0.4)", "strength": 0.8,
    "prompts": {"0": "a"}, "max_frames": 20,
}  # fmt: skip


def test_deforum_s_video_counts_in_its_own_mode_alone():
    made, notes = settings_from_dict({**DEFORUM, "animation_mode": "2D"})
    assert made.init_video == "" and made.strength == "0: (0.4)"
    assert any("switched off" in note and "video_init_path" in note for note in notes)
    made, notes = settings_from_dict({**DEFORUM, "animation_mode": "Video Input", "video_init_path": "v.mp4"})
    assert (made.init_video, made.extract_nth_frame, made.extract_to_frame) == ("v.mp4", 1, -1)
    assert (made.video_strength, made.strength) == ("0: (0.4)", "0: (1.0)")
    assert any("becomes video_strength" in note for note in notes)
    assert settings_from_dict(json.loads(json.dumps(settings_to_dict(made))))[0] == made
    with pytest.raises(SettingsError, match="nothing is fetched"):
        settings_from_dict({**DEFORUM, "animation_mode": "Video Input"})
    made, _ = settings_from_dict({"video_init_path": "v.mp4", "strength_schedule": "0: (0.4)"})
    assert (made.init_video, made.strength) == ("v.mp4", "0: (0.4)")


class Shown(FakeRenderer):
    """A model that makes just what it is drawn over."""

    def run(self, request, *more):
        done = super().run(request, *more)
        guide = np.load(request.guide_file)[request.drop_frames :]
        np.save(request.frames_file, guide[: done.frames] if not request.prefix_latents else guide[1 : done.frames + 1])
        return done


@pytest.mark.parametrize("changes", [{}, {"strength": "0: (1), 20: (0), 21: (1)"}])
def test_a_camera_films_the_video_without_a_jump_from_clip_to_clip(tmp_path, changes):
    """A zoom of 1.03 a frame over a video that stands still: what is at its edge moves outwards by just that."""
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 68:72] = 255
    encode_video([picture] * 41, tmp_path / "still.mp4", VideoOptions(16, crf=4))
    settings = with_changes(
        init_video=str(tmp_path / "still.mp4"), width=128, height=64, zoom="0: (1), 4: (1), 5: (1.03)", max_frames=41,
        prompts={"0": "a"}, window_frames=17, camera_strength="1", skip_video_creation=True, **changes,
    )  # fmt: skip
    result = render_wan(settings, tmp_path, worker=Shown(), model=MODEL)
    files = JobFiles(result.folder, result.timestring)
    rows = [read_png(files.picture(k))[32, :, 0].astype(float) for k in range(41)]
    places = np.array([(row * np.arange(128)).sum() / row.sum() for row in rows]) - 63.5
    starts = {0: 4, **({20: 20} if changes else {})}
    wanted = []
    for frame in range(41):
        cut = max(start for start in starts if start <= frame)
        wanted.append(6 * 1.03 ** max(frame - starts[cut], 0))
    assert len(plan(settings, MODEL.row, 1).clips) > 3
    assert np.abs(places - wanted).max() < 0.35, (places - wanted).round(2)
