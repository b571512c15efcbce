"""Which clips' colours are held to which others': by shot, by prompt, and over jobs."""

from dataclasses import replace
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings, settings_from_dict
from fake_worker import FakeRenderer

MODEL = inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo")
SETTINGS = RenderSettings(
    prompts={"0": "a red ball"}, width=32, height=16, max_frames=41, seed=1, ffmpeg_preset="ultrafast", colour="keep",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("os.fsync", lambda handle: None)


def requested(settings: RenderSettings, tmp_path: Path):
    """The job's result, and of each clip (colour, the number of the clip whose file names its anchor)."""
    worker = FakeRenderer()
    result = render_wan(settings, tmp_path / "out", worker=worker, model=MODEL)
    files = JobFiles(result.folder, result.timestring)
    numbers = {str(files.latents(clip)): clip for clip in range(len(worker.requests))} | {"": None}
    return result, [(request.colour, numbers.get(request.colour_from, "former job")) for request in worker.requests]


@pytest.mark.parametrize("continuity", ["latents", "image", "frames"])
def test_each_clip_asks_the_one_before(tmp_path, continuity):
    _, asked = requested(replace(SETTINGS, continuity=continuity), tmp_path)
    assert asked == [("keep", None), *(("keep", clip) for clip in range(len(asked) - 1))] and len(asked) >= 3
    assert {colour for colour, _ in requested(replace(SETTINGS, colour="free"), tmp_path)[1]} == {""}


def test_a_new_prompt_frees_and_a_cut_begins_anew(tmp_path):
    prompts = {"0": "a red ball", "17": "a red ball at night", "29": "a red ball at night"}
    _, asked = requested(replace(SETTINGS, prompts=prompts), tmp_path)
    assert asked == [("keep", None), ("follow", 0), ("keep", 1)]
    _, asked = requested(replace(SETTINGS, prompts=prompts, strength="0: (1), 28: (1), 29: (0), 30: (1)"), tmp_path)
    assert asked == [("keep", None), ("follow", 0), ("keep", None)]


def test_a_job_that_goes_on_keeps_the_colours_of_the_one_before(tmp_path):
    first, _ = requested(SETTINGS, tmp_path)
    onward = replace(SETTINGS, continue_from=str(first.settings), max_frames=12)
    assert requested(onward, tmp_path)[1][0] == ("keep", "former job")
    assert requested(replace(onward, prompts={"0": "a boat"}), tmp_path)[1][0] == ("follow", "former job")
    assert requested(replace(onward, continuity="image"), tmp_path)[1][0] == ("keep", None)


@pytest.mark.parametrize(
    ("way", "colour", "noted"),
    [("None", "free", False), ("LAB", "keep", True), ("Match Frame 0 HSV", "keep", True), ("Image", "keep", True)],
)
def test_deforums_colour_coherence(way, colour, noted):
    settings, notes = settings_from_dict({"prompts": {"0": "a"}, "color_coherence": way})
    assert settings.colour == colour
    assert any("color_coherence" in note for note in notes) == noted
    assert settings_from_dict({"color_coherence": "LAB", "colour": "free"})[0].colour == "free"
