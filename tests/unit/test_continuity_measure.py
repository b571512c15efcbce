"""The measure of bench/continuity on pictures whose joins, colours and repeats are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "continuity"
sys.path.insert(0, str(BENCH))

import looks
import measure
import motion
from deforum_helpers.video.frames import write_png
from rendered import Clip, Rendered, read_render


def square_at(x: float) -> np.ndarray:
    """A yellow square on a striped ground, [40, 64, 3]."""
    rows, columns = np.mgrid[:40, :64].astype(np.float32)
    ground = 90 + 20 * np.sin(columns[..., None] / 9 + np.arange(3)) + 10 * np.cos(rows[..., None] / 7)
    inside = np.clip(8 - np.maximum(abs(columns - x), abs(rows - 20)), 0, 1)[..., None]
    return (ground * (1 - inside) + np.float32((240, 220, 60)) * inside).astype(np.uint8)


def take(xs, prompts=("a", "a"), shots=(0, 0)) -> Rendered:
    """Two clips of equal length."""
    frames, half = np.stack([square_at(x) for x in xs]), len(xs) // 2
    clips = (Clip(0, half, shots[0], prompts[0]), Clip(half, len(xs), shots[1], prompts[1]))
    return Rendered("take", frames, clips, {})


def measured(render: Rendered) -> dict:
    return motion.motion_figures(render, motion.measure_motion(render.frames))


STEADY = [14 + 2 * k for k in range(16)]


def test_a_steady_take_has_no_seam():
    found = measured(take(STEADY))
    assert found["seam_jump"]["worst"] == pytest.approx(1, abs=0.15)
    assert found["seam_flow_jump"]["worst"] == pytest.approx(1, abs=0.25)
    assert (found["direction_kept"], found["direction_to_keep"]) == (1, 1)
    assert (found["repeated_frames"], found["skipped_at_joins"]) == (0, 0)


def test_a_jump_at_the_join_is_seen():
    found = measured(take([*STEADY[:8], *(x + 6 for x in STEADY[8:])]))
    assert found["seam_jump"]["worst"] > 1.8
    assert (found["joins_over_limit"], found["inside_over_limit"]) == (1, 0)
    assert found["skipped_at_joins"] == 1


def test_a_repeated_frame_is_counted():
    found = measured(take([*STEADY[:8], STEADY[7], *STEADY[8:15]]))
    assert found["repeated_frames"] == 1


def test_a_jump_inside_a_clip_is_counted_apart_from_the_joins():
    found = measured(take([*STEADY[:4], *(x + 6 for x in STEADY[4:])]))
    assert (found["joins_over_limit"], found["inside_over_limit"]) == (0, pytest.approx(1 / 14))


def test_motion_that_turns_is_not_kept_unless_the_prompt_turns():
    there_and_back = [*STEADY[:8], *reversed(STEADY[:8])]
    assert measured(take(there_and_back))["direction_kept"] == 0
    assert measured(take(there_and_back, prompts=("a", "b")))["direction_to_keep"] == 0


def test_what_stops_moving_keeps_no_direction():
    found = measured(take([*STEADY[:8], *[STEADY[7] + 0.01] * 8]))
    assert (found["direction_kept"], found["direction_to_keep"]) == (0, 1)


def test_a_cut_is_no_join():
    found = measured(take([*STEADY[:8], *(x + 20 for x in STEADY[8:])], shots=(0, 1)))
    assert found["joins"] == [] and found["seam_jump"] == {}


def test_lab_of_known_colours():
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
    wanted = [[100, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86]]  # CIE, D65
    assert np.abs(looks.to_lab(colours)[0] - wanted).max() < 0.3


def test_colour_drift_is_the_distance_from_the_shots_first_clip():
    steady = take(STEADY)
    assert looks.look_figures(steady)["colour_drift"] < 1.5
    darker = Rendered("d", steady.frames.copy(), steady.clips, {})
    darker.frames[8:] = (darker.frames[8:] * 0.8).astype(np.uint8)
    found = looks.look_figures(darker)
    assert found["drift_by_clip"][0] == 0 and found["colour_drift"] > 5
    cut = Rendered("c", darker.frames, (darker.clips[0], Clip(8, 16, 1, "a")), {})
    assert looks.look_figures(cut)["colour_drift"] == 0, "another shot has its own colours"


def test_a_blurred_clip_loses_sharpness():
    steady = take(STEADY)
    blurred = steady.frames.astype(np.float32)
    for _ in range(3):
        blurred = (blurred + np.roll(blurred, 1, 2) + np.roll(blurred, -1, 2)) / 3
    frames = np.concatenate([steady.frames[:8], blurred[8:].astype(np.uint8)])
    assert looks.look_figures(Rendered("b", frames, steady.clips, {}))["sharpness_kept"] < 0.9
    assert looks.look_figures(steady)["sharpness_kept"] == pytest.approx(1, abs=0.1)


def test_clips_that_begin_alike_are_found():
    again = take([*STEADY[:8], *STEADY[:8]])
    assert looks.likeness_figures(again)["near_duplicates"] == [[0, 1]]
    assert looks.likeness_figures(take(STEADY))["near_duplicates"] == []


def test_a_render_is_read_back_and_measured(tmp_path):
    steady = take(STEADY)
    for index, frame in enumerate(steady.frames):
        write_png(tmp_path / f"7_{index:09d}.png", frame)
    clips = [{"start_frame": c.start, "end_frame": c.end, "shot": c.shot, "prompt": c.prompt} for c in steady.clips]
    record = {"state": "done", "plan": {"clips": clips, "max_frames": 16}, "clips": [{"seconds": {"sample": 2.0}}] * 2}
    (tmp_path / "7_work").mkdir()
    (tmp_path / "7_work" / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    render = read_render(tmp_path)
    assert (render.joins, render.cuts, render.seconds) == ([8], [], {"sample": 4.0})
    assert np.array_equal(render.frames, steady.frames)
    json.dumps(measure.figures(render), allow_nan=False)
    assert "direction kept 1/1" in measure.line("x", measure.figures(render))


def test_an_unfinished_render_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_render(tmp_path)
    (tmp_path / "7_work").mkdir()
    (tmp_path / "7_work" / "manifest.json").write_text('{"state": "running"}', encoding="utf-8")
    with pytest.raises(ValueError, match="not done"):
        read_render(tmp_path)
