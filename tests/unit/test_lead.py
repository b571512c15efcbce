"""A video that begins where a finished job ends: planned, requested and joined as if that job had gone on."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.errors import SettingsError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.lead import lead_of, read_lead
from deforum_helpers.manifest import load_manifest
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings, load_settings
from deforum_helpers.timeline import native_positions, plan
from deforum_helpers.variants import VARIANTS
from deforum_helpers.video.frames import read_png
from fake_worker import FakeRenderer

MODEL = inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo")
FIRST = RenderSettings(
    prompts={"0": "a red ball", "16": "a blue ball"}, width=32, height=16, max_frames=22, seed=100, batch_name="first",
    ffmpeg_preset="ultrafast",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def render(tmp_path):
    def call(settings, worker=None):
        return render_wan(settings, tmp_path / "out", worker=worker or FakeRenderer(), model=MODEL)

    return call


def following(result, **changes) -> RenderSettings:
    values = {"prompts": {"0": "a boat"}, "batch_name": "next", "max_frames": 15, "seed": 7, **changes}
    return replace(FIRST, continue_from=str(result.settings), **values)


def reds(result) -> list[int]:
    """The place in its stream of every frame, as the fake worker paints it."""
    return [int(read_png(path)[0, 0, 0]) for path in JobFiles(result.folder, result.timestring).pictures()]


def test_it_goes_on_from_the_last_latents(render):
    first = render(FIRST)
    worker = FakeRenderer()
    second = render(following(first), worker)
    assert (reds(first), reds(second)) == (list(range(22)), list(range(22, 37)))
    request = worker.requests[0]
    assert request.prefix_latents > 0 and request.init_image == ""
    assert [part.file for part in request.stream] == [
        str(JobFiles(first.folder, first.timestring).latents(clip)) for clip in range(len(request.stream))
    ]
    assert load_settings(second.settings)[0].continue_from == str(first.settings)


def test_and_on_from_that_one(render):
    second = render(following(render(FIRST)))
    assert reds(render(following(second))) == list(range(37, 52))


@pytest.mark.parametrize("fps", [8.0, 12.0, 24.0, 60.0])
def test_no_moment_is_shown_twice_or_left_out_at_any_rate(render, fps):
    former = replace(FIRST, fps=fps)
    first = render(former)
    settings = following(first, fps=fps)
    decided = plan(settings, MODEL.row, 7, lead_of(settings))
    first_plan = plan(former, MODEL.row, 100)
    places = [place for clip in decided.clips for place in native_positions(decided, clip)]
    before = [place for clip in first_plan.clips for place in native_positions(first_plan, clip)]
    positions = [index + part for index, part in (*before, *places)]
    assert {b - a for a, b in pairwise(positions)} == {decided.native_step}
    assert decided.clips[0].native_start <= places[0][0]  # all that is shown is made here
    assert render(settings).frames == settings.max_frames


def test_a_cut_and_another_prompt_later_on_are_planned_as_ever(render):
    first = render(FIRST)
    settings = following(
        first, max_frames=40, prompts={"0": "a boat", "20": "a fox"}, strength="0: (1), 19: (1), 20: (0), 21: (1)"
    )
    decided = plan(settings, MODEL.row, 7, lead_of(settings))
    assert decided.lead_frames == 22
    assert [clip.shot for clip in decided.clips if clip.start == "noise"] == [1]
    cut = plan(replace(settings, strength="0: (0)"), MODEL.row, 7, lead_of(settings))
    assert (cut.lead_frames, cut.clips[0].start) == (0, "noise")
    assert any("hard cut" in note for note in cut.notes)


@pytest.mark.parametrize("changes", [{"continuity": "image"}, {"width": 48}])
def test_where_the_latents_dont_fit_the_last_picture_is_taken(render, changes):
    first = render(FIRST)
    worker = FakeRenderer()
    second = render(following(first, **changes), worker)
    request = worker.requests[0]
    last = JobFiles(first.folder, first.timestring).picture(21)
    assert (read_png(request.init_image) == read_png(last)).all()
    assert request.drop_frames == 1 and not request.stream
    assert reds(second)[:4] == [1, 2, 3, 4]  # the picture itself is the former job's last frame, not shown again
    assert second.frames == 15


def test_what_it_goes_on_from_decides_its_frames(render):
    first, other = render(FIRST), render(replace(FIRST, seed=101))

    def fingerprints(former) -> list[str]:
        worker = FakeRenderer()
        render(following(former), worker)
        return [request.fingerprint() for request in worker.requests]

    assert fingerprints(first) == fingerprints(first)
    assert set(fingerprints(first)).isdisjoint(fingerprints(other))


def test_what_cant_be_gone_on_from_is_refused_by_name(render, tmp_path):
    first = render(FIRST)
    settings = following(first)
    files = JobFiles(first.folder, first.timestring)

    def refused(given: RenderSettings, variant: str = "demo") -> str:
        with pytest.raises(SettingsError) as error:
            plan(given, VARIANTS[variant], 7, lead_of(given))
        assert error.value.where == "continue_from"
        return error.value.one_line()

    assert "no job beside" in refused(replace(settings, continue_from=str(tmp_path / "other.txt")))
    assert "not from both" in refused(replace(settings, init_image=str(files.picture(0))))
    wan = {"width": 832, "height": 480}
    assert "they are demo's" in refused(replace(settings, **wan), "wan2.1-t2v-1.3B")
    for path in files.pictures():
        path.unlink()
    assert "pictures were deleted" in refused(replace(settings, width=48))
    manifest = load_manifest(files.manifest)
    manifest.save(state="cancelled")
    assert "not finished" in refused(settings)
    files.manifest.write_text("{}", encoding="utf-8")
    assert "can't be read" in refused(settings)
    manifest.save(state="done", plan={"clips": []})
    assert "can't be used" in refused(settings)


def test_its_video_names_the_job_as_well(render):
    first = render(FIRST)
    assert read_lead(str(first.video)) == read_lead(str(first.settings))
    assert json.loads(JobFiles(first.folder, first.timestring).manifest.read_text())["plan"]["lead_frames"] == 0
