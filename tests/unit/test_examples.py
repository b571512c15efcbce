"""Every settings file in examples/ loads, plans and survives being written again."""

from pathlib import Path

import pytest
from deforum_helpers.planning.seeds import resolve_seed
from deforum_helpers.settings import load_settings, settings_from_dict, settings_to_dict
from deforum_helpers.timeline import plan
from deforum_helpers.variants import DEMO, VARIANTS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.txt"))


def planned(file):
    made, _ = load_settings(file)
    return plan(made, VARIANTS[DEMO], resolve_seed(made.seed))


def test_they_are_there():
    assert {"demo", "expressions", "smooth_60fps", "seed_schedule", "from_deforum"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_loads_and_plans(file):
    made, _ = load_settings(file)
    assert settings_from_dict(settings_to_dict(made))[0] == made
    assert (made.width, made.height) == (128, 80), "the bundled demo's size"
    result = planned(file)
    assert result.clips[-1].end_frame == made.max_frames
    assert made.seed >= 0, "an example should give the same video each time"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_that_it_names_lie_beside_it(file):
    made, _ = load_settings(file)
    assert all((file.parent / path).is_file() for name, path in made.files() if name != "model")


def test_the_keyframe_images_are_shown_at_their_frames():
    clips = planned(EXAMPLES / "keyframe_images.txt").clips
    starts = {clip.start_frame: clip.picture for clip in clips if clip.picture}
    assert starts == {0: "pictures/desert.png", 23: "pictures/mountains.png"}, "max_f is the last frame's number"


def test_the_demo_shows_what_it_should():
    made, notes = load_settings(EXAMPLES / "demo.txt")
    result = planned(EXAMPLES / "demo.txt")
    assert notes == result.notes == []
    assert len(made.prompts) >= 4 and len(result.clips) >= 3 and 96 <= made.max_frames <= 128
    cuts = [clip.start_frame for clip in result.clips if clip.shot and clip.native_start == 0]
    assert len(cuts) == 1 and str(cuts[0]) in made.prompts, "one hard cut, at a keyframe"
    assert all(clip.num_frames == 17 for clip in result.clips) and len(result.clips) <= 9


def test_the_60_fps_example_generates_few_frames():
    result = planned(EXAMPLES / "smooth_60fps.txt")
    assert result.max_frames == 360 and sum(clip.new_frames for clip in result.clips) <= 101
    assert any(clip.overlap_latents for clip in result.clips)


def test_the_deforum_file_moves_the_camera_and_keeps_what_means_nothing_here():
    made, notes = load_settings(EXAMPLES / "from_deforum.txt")
    assert made.zoom.startswith("0: (1.002") and made.animation_mode == "2D"
    assert made.colour == "keep" and any("color_coherence" in note for note in notes)
    assert made.extra["diffusion_cadence"] == 2 and any("diffusion_cadence" in note for note in notes)
    assert all(clip.moves for clip in planned(EXAMPLES / "from_deforum.txt").clips)
