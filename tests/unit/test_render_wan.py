"""One job from settings to files, with a fake in the worker's place."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.clips import Job, ShotFrames, clip_requests, stream_before
from deforum_helpers.errors import (
    DeforumWanError,
    InputError,
    ModelError,
    OutOfDeviceMemory,
    OutputError,
    SettingsError,
    WorkerDied,
)
from deforum_helpers.job_files import JobFiles, only_one_process
from deforum_helpers.manifest import load_manifest
from deforum_helpers.preflight import weights_identity
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings, load_settings
from deforum_helpers.timeline import native_positions, plan
from deforum_helpers.video.ffmpeg import count_frames, read_video_metadata
from deforum_helpers.video.frames import read_png, read_png_metadata, save_frames
from fake_worker import FakeRenderer

MODEL = inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo")
SETTINGS = RenderSettings(
    prompts={"0": "a red ball", "16": "a blue ball --neg grey", "24": "a boat"}, width=32, height=16, max_frames=40,
    seed=100, batch_name="batch", ffmpeg_preset="ultrafast",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("os.fsync", lambda handle: None)  # for power cuts only, and slow


@pytest.fixture
def render(tmp_path):
    """render(worker, change=value ..., **options of render_wan)"""

    def call(worker=None, *, out=tmp_path / "out", timestring="20250101000000", changes=None, **options):
        settings = with_changes(**(changes or {}))
        return render_wan(
            settings, out, worker=worker or FakeRenderer(), model=MODEL, timestring=timestring, **options
        )

    return call


def with_changes(**changes):
    from dataclasses import replace

    return replace(SETTINGS, **changes)


def pixels(result) -> list[bytes]:
    files = JobFiles(result.folder, result.timestring)
    return [read_png(path).tobytes() for path in files.pictures()]


def clip_count() -> int:
    return len(plan(SETTINGS, MODEL.row, 100).clips)


def test_a_job_leaves_exactly_its_frames_and_all_its_files(render):
    result = render()
    files = JobFiles(result.folder, result.timestring)
    assert result.frames == len(files.pictures()) == 40
    assert count_frames(result.video) == 40
    assert sorted(p.name for p in result.folder.iterdir() if not p.name.endswith(".png")) == [
        "20250101000000.mp4", "20250101000000.srt", "20250101000000_settings.txt", "20250101000000_work",
    ]  # fmt: skip
    assert load_settings(result.settings)[0] == with_changes(model=MODEL.name)
    assert "a blue ball" in result.subtitles.read_text(encoding="utf-8")
    assert json.loads(read_video_metadata(result.video)["comment"])["seed"] == 100
    texts = read_png_metadata(files.picture(17))
    assert texts["parameters"].startswith("a blue ball\nNegative prompt: grey\nSteps: 14, Sampler: euler")
    assert not list(files.work.glob("*.npy"))
    assert load_manifest(files.manifest).state == "done"


def test_output_frames_are_the_stream_in_order_without_a_repeat(render):
    result = render()
    reds = [int(read_png(path)[0, 0, 0]) for path in JobFiles(result.folder, result.timestring).pictures()]
    assert reds == list(range(40))


@pytest.mark.parametrize(("frames", "fps"), [(1, 16), (2, 60), (5, 1), (3, 239.76), (33, 23.976)])
def test_any_length_at_any_rate_is_exact(render, frames, fps):
    result = render(changes={"max_frames": frames, "fps": fps, "prompts": {"0": "a", "max_f/2": "b"}})
    assert len(pixels(result)) == count_frames(result.video) == frames


def test_a_random_seed_is_recorded_so_that_the_settings_reproduce_the_frames(render, tmp_path):
    first = render(changes={"seed": -1})
    again = render_wan(load_settings(first.settings)[0], tmp_path / "again", worker=FakeRenderer(), model=MODEL)
    assert again.seed == first.seed
    assert pixels(again) == pixels(first)


def test_a_clip_is_tried_once_more_when_the_worker_dies_of_it(render):
    said = []
    result = render(FakeRenderer({1: WorkerDied("it died")}), say=said.append)
    assert result.frames == 40
    assert said == ["clip 2: it died; once more in a fresh worker"]


def test_a_second_death_ends_the_render_and_resume_does_the_rest_only(render):
    undisturbed = pixels(render(timestring="1"))
    worker = FakeRenderer({1: WorkerDied("it died"), 2: WorkerDied("again")})
    with pytest.raises(WorkerDied, match="again"):
        render(worker)
    again = FakeRenderer()
    result = render(again, resume=True)
    assert [request.prompt for request in again.requests] == [
        clip.prompt for clip in plan(SETTINGS, MODEL.row, 100).clips[1:]
    ]
    assert pixels(result) == undisturbed
    assert count_frames(result.video) == 40


@pytest.mark.parametrize("error", [OutOfDeviceMemory("out of memory"), ModelError("the weights are broken")])
def test_an_error_that_would_come_again_is_not_tried_again(render, tmp_path, error):
    worker = FakeRenderer({1: error})
    with pytest.raises(type(error)):
        render(worker)
    assert len(worker.requests) == 2
    manifest = load_manifest(JobFiles(tmp_path / "out" / "batch", "20250101000000").manifest)
    assert manifest.state == "failed"
    assert manifest.facts["error"] == str(error)
    assert not list((tmp_path / "out" / "batch").glob("*.mp4*"))


def test_a_stop_keeps_the_finished_frames_and_makes_their_video(render):
    cancel = threading.Event()
    undisturbed = pixels(render(timestring="1"))

    def stop_in_the_second_clip(progress):
        if progress.clip == 2 and progress.step:
            cancel.set()

    result = render(cancel=cancel, on_progress=stop_in_the_second_clip)
    assert result.cancelled
    assert 0 < result.frames < 40
    assert count_frames(result.video) == result.frames
    assert pixels(result) == undisturbed[: result.frames]
    whole = render(resume=True)
    assert not whole.cancelled
    assert pixels(whole) == undisturbed
    assert count_frames(whole.video) == 40


def test_a_stop_before_the_first_frame_leaves_no_video(render):
    cancel = threading.Event()
    cancel.set()
    result = render(cancel=cancel)
    assert (result.cancelled, result.frames, result.video) == (True, 0, None)
    assert not list(result.folder.glob("*.mp4*"))


def test_a_changed_setting_makes_exactly_the_clips_stale_that_it_reaches(render):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({clip_count() - 1: WorkerDied("1"), clip_count(): WorkerDied("2")}))
    prompts = {**SETTINGS.prompts, "24": "a ship"}
    worker = FakeRenderer()
    render(worker, changes={"prompts": prompts, "crf": 20}, resume=True)
    assert {request.prompt for request in worker.requests} == {"a ship"}
    undisturbed = render(timestring="1", changes={"prompts": prompts})
    resumed = JobFiles(undisturbed.folder, "20250101000000")
    assert [read_png(path).tobytes() for path in resumed.pictures()] == pixels(undisturbed)


def test_a_changed_clip_makes_all_that_continue_it_stale(render):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({clip_count() - 1: WorkerDied("1"), clip_count(): WorkerDied("2")}))
    worker, prompts = FakeRenderer(), {**SETTINGS.prompts, "0": "a hill"}
    result = render(worker, changes={"prompts": prompts}, resume=True)
    assert len(worker.requests) == clip_count()
    assert pixels(result) == pixels(render(timestring="1", changes={"prompts": prompts}))


def test_another_rate_shows_the_same_clip_at_other_times(render):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}))
    worker = FakeRenderer()
    result = render(worker, changes={"fps": 17.0}, resume=True)
    assert worker.requests[0].prompt == "a blue ball"  # the first clip's native frames are the same ones
    assert pixels(result) == pixels(render(timestring="1", changes={"fps": 17.0}))


def test_a_change_in_one_shot_leaves_the_others(render):
    cut = {"prompts": {"0": "a red ball", "16": "a boat"}, "strength": "0: (1), 16: (0)", "max_frames": 32}
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}), changes=cut)
    worker = FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")})
    with pytest.raises(WorkerDied):
        render(worker, changes={**cut, "prompts": {"0": "a hill", "16": "a boat"}}, resume=True)
    assert worker.requests[0].prompt == "a hill"
    fingerprint = worker.requests[1].fingerprint()
    worker = FakeRenderer()
    render(worker, changes=cut, resume=True)
    assert [request.prompt for request in worker.requests] == ["a red ball", "a boat"]
    assert worker.requests[1].fingerprint() == fingerprint


def test_a_damaged_clip_or_picture_is_made_again(render, tmp_path):
    undisturbed = pixels(render(timestring="1"))
    with pytest.raises(WorkerDied):
        render(FakeRenderer({2: WorkerDied("1"), 3: WorkerDied("2")}))
    files = JobFiles(tmp_path / "out" / "batch", "20250101000000")
    files.picture(3).write_bytes(b"")
    with files.frames(1).open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"xxxxx")
    worker = FakeRenderer()
    result = render(worker, resume=True)
    assert len(worker.requests) == clip_count() - 1
    assert pixels(result) == undisturbed


def test_a_finished_job_is_never_overwritten(render):
    first = render()
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("*.*")}
    second = render(changes={"seed": 5})
    assert second.timestring == "20250101000000-2"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_resuming_a_finished_job_renders_nothing(render):
    first, worker = render(), FakeRenderer()
    again = render(worker, resume=True)
    assert worker.requests == []
    assert (again.video, again.frames, again.seed) == (first.video, 40, 100)


def test_resume_without_a_timestring_finds_the_newest_unfinished_job_of_these_settings(render):
    died = {1: WorkerDied("1"), 2: WorkerDied("2")}
    for timestring, seed in (("1", 100), ("2", 100), ("3", 999)):
        with pytest.raises(WorkerDied):
            render(FakeRenderer(died), timestring=timestring, changes={"seed": seed})
    assert render(timestring=None, resume=True).timestring == "2"
    assert render(timestring=None, resume=True).timestring == "1"
    with pytest.raises(InputError, match="no unfinished job of these settings"):
        render(timestring=None, resume=True)


def test_resume_of_changed_settings_goes_by_their_file(render):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}), source="/a/settings.txt")
    with pytest.raises(InputError):
        render(timestring=None, resume=True, changes={"crf": 30}, source="/another.txt")
    result = render(timestring=None, resume=True, changes={"crf": 30}, source="/a/settings.txt")
    assert result.timestring == "20250101000000"


def test_a_resumed_job_with_a_random_seed_keeps_it(render):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}), changes={"seed": -1})
    worker = FakeRenderer()
    render(worker, changes={"seed": -1}, resume=True)
    assert len(worker.requests) == clip_count() - 1


def test_one_job_is_rendered_by_one_process(render, tmp_path):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}))
    files = JobFiles(tmp_path / "out" / "batch", "20250101000000")
    with only_one_process(files), pytest.raises(InputError, match="rendered by another process"):
        render(resume=True)


def test_leftovers_of_a_killed_process_are_removed_and_those_of_other_jobs_are_not(render, tmp_path):
    with pytest.raises(WorkerDied):
        render(FakeRenderer({1: WorkerDied("1"), 2: WorkerDied("2")}))
    folder = tmp_path / "out" / "batch"
    mine, other = folder / "20250101000000_000000003.png.77-1.part", folder / "20250101000000-2.mp4.77-1.part"
    mine.touch()
    other.touch()
    render(resume=True)
    assert other.exists()
    assert not mine.exists()


def test_gif_without_video_and_deleted_pictures(render):
    result = render(changes={"make_gif": True, "skip_video_creation": True, "make_srt": False, "delete_imgs": True})
    assert (result.video, result.subtitles) == (None, None)
    assert result.gif.read_bytes()[:3] == b"GIF"
    assert len(pixels(result)) == 40  # the only pictures there are
    result = render(changes={"delete_imgs": True}, timestring="2")
    assert pixels(result) == []
    assert count_frames(result.video) == 40


def test_progress_rises_to_one(render):
    seen = []
    render(on_progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions[-1] == 1
    assert seen[-1].phase == "done"
    assert max(progress.clip for progress in seen) == clip_count()
    assert {"sampling", "decoding", "writing"} <= {progress.phase for progress in seen}
    assert any(progress.eta_seconds for progress in seen)


def test_the_seeds_of_clips_differ_and_each_continues_the_stream(render):
    worker = FakeRenderer()
    render(worker)
    assert len({request.seed for request in worker.requests}) == clip_count()
    for request, clip in zip(worker.requests, plan(SETTINGS, MODEL.row, 100).clips, strict=True):
        assert sum(part.count for part in request.stream) == clip.stream_latents_before
        assert request.prefix_latents <= clip.stream_latents_before


def test_a_cut_back_stream_ends_where_the_new_clip_begins(tmp_path):
    settings = with_changes(prompts={"0": "a", "14": "b", "15": "c", "17": "d"}, max_frames=60)
    job = make_job(settings, tmp_path)
    requests = clip_requests(job)
    cut_back = 0
    for clip, request in zip(job.plan.clips, requests, strict=True):
        assert sum(part.count for part in stream_before(job, clip)) == clip.stream_latents_before
        FakeRenderer().run(request)
        frames = ShotFrames(job, clip)
        assert [int(frame[0, 0, 0]) for frame in frames] == list(range(len(frames)))
        seeds = [int(frame[0, 0, 1]) for frame in frames]
        assert seeds[clip.native_start :] == [clip.seed % 256] * clip.new_frames
        needed = max(index + (part > 0) for index, part in native_positions(job.plan, clip))
        assert needed < len(frames)
        former = job.plan.clips[clip.index - 1] if clip.index else None
        cut_back += bool(former and clip.native_start < former.native_start + former.new_frames)
    assert cut_back


def test_a_clip_that_starts_from_a_picture_gets_the_last_frame_shown(render):
    worker = FakeRenderer()
    result = render(worker, changes={"continuity": "image"})
    reds = [int(read_png(path)[0, 0, 0]) for path in JobFiles(result.folder, result.timestring).pictures()]
    clips = plan(with_changes(continuity="image"), MODEL.row, 100).clips
    assert worker.requests[0].init_image == ""
    for clip, request in zip(clips[1:], worker.requests[1:], strict=True):
        given = read_png(request.init_image)
        # The fake starts each window's red at 0 again, so that frame 0, the picture, is dropped and 1 follows.
        assert int(given[0, 0, 0]) == reds[clip.start_frame - 1]
        assert reds[clip.start_frame] == 1
        assert request.drop_frames == 1
        assert request.stream == ()


def test_the_given_picture_decides_by_its_content_not_its_name(tmp_path):
    pictures = []
    for name, value in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        from deforum_helpers.video.frames import write_png

        write_png(tmp_path / name, np.full((16, 32, 3), value, np.uint8))
        job = make_job(with_changes(init_image=str(tmp_path / name)), tmp_path / name.removesuffix(".png"))
        pictures.append([request.fingerprint() for request in clip_requests(job)])
    assert pictures[0] == pictures[1]
    assert not set(pictures[0]) & set(pictures[2])


def make_job(settings, folder):
    from deforum_helpers.preflight import checked_pictures

    files = JobFiles(folder, "1")
    files.work.mkdir(parents=True)
    pictures = checked_pictures(settings)
    return Job(settings, plan(settings, MODEL.row, 100), MODEL, weights_identity(MODEL), files, pictures)


BAD = {
    "soundtrack that is none": ({"soundtrack": "{text}"}, InputError, "no audio in this file"),
    "soundtrack that isn't there": ({"soundtrack": "/nowhere/a.mp3"}, InputError, "no such file"),
    "init image that is none": ({"init_image": "{text}"}, SettingsError, "init_image: this picture can't be read"),
    "init image that isn't there": ({"init_image": "/nowhere.png"}, SettingsError, "no such picture"),
    "division by zero": ({"guidance_scale": "0: (1/0)"}, InputError, "guidance_scale"),
    "endless expression": ({"guidance_scale": "0: (9**9**9**9)"}, InputError, "guidance_scale"),
    "malformed schedule": ({"guidance_scale": "0: (1"}, InputError, "guidance_scale"),
    "no prompts": ({"prompts": {}}, InputError, "prompt set is empty"),
    "more frames than the disk holds": ({"max_frames": 200_000, "width": 4096, "height": 4096}, InputError, "room"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_found_before_anything_is_written(render, tmp_path, name):
    changes, kind, words = BAD[name]
    text = tmp_path / "notes.txt"
    text.write_text("only text")
    changes = {key: str(text) if value == "{text}" else value for key, value in changes.items()}
    worker = FakeRenderer()
    with pytest.raises(kind, match=words) as caught:
        render(worker, changes=changes)
    assert "\n" not in str(caught.value)
    assert worker.requests == []
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    "changes", [{"fps": 0.0}, {"fps": float("nan")}, {"max_frames": 0}, {"width": 33}, {"solver": "magic"},
                {"batch_name": "../elsewhere"}, {"batch_name": ".hidden"}, {"batch_name": ""}],
)  # fmt: skip
def test_values_out_of_range_are_not_even_settings(changes):
    with pytest.raises(SettingsError, match=next(iter(changes))) as caught:
        with_changes(**changes)
    assert "\n" not in str(caught.value)


def test_an_output_folder_that_cannot_be_one(render, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write to the output folder"):
        render(out=tmp_path / "file" / "out")


def test_a_timestring_cannot_leave_the_folder(render):
    with pytest.raises(InputError, match="stay inside"):
        render(timestring="../../x")


def test_a_disk_that_fills_up_ends_the_render_in_words_and_it_can_go_on(render, monkeypatch):
    import errno

    from deforum_helpers.video import frames

    real, calls = frames.write_bytes, []

    def full(path, data, **options):
        calls.append(path)
        if len(calls) > 20:
            raise OutputError("can't write this file: the disk is full") from OSError(errno.ENOSPC, "full")
        real(path, data, **options)

    undisturbed = pixels(render(timestring="1"))
    monkeypatch.setattr(frames, "write_bytes", full)
    with pytest.raises(DeforumWanError, match="disk is full"):
        render()
    monkeypatch.undo()
    result = render(resume=True)
    assert pixels(result) == undisturbed


def test_frames_of_the_wrong_shape_are_refused(tmp_path):
    job = make_job(SETTINGS, tmp_path)
    save_frames(job.files.frames(0), np.zeros((3, 16, 32, 3), np.uint8))
    with pytest.raises(IndexError):
        ShotFrames(job, job.plan.clips[0])[10]
