#!/usr/bin/env python3
"""How far the camera of a finished video really moves, against its schedules: by optical flow, frame by frame.

    python bench/camera.py [--out FILE.json] [--sheet FILE.png]

Renders the demo with one schedule at a time and prints what was asked for and what was measured: shift in pixels,
magnification and turn per frame, the medians over all frames and over the frames inside clips.  The demo has never
seen a camera move in its training, and at some joins it draws its world as it knows it: the frames there tell how much.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from deforum_helpers.job_files import JobFiles
from deforum_helpers.planning.camera import Camera, camera_of, moved
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.frames import read_png
from deforum_helpers.video.optical_flow import both_flows
from deforum_helpers.wan_integration import new_worker

CASES = {
    "still": {},
    "zoom 1.02": {"zoom": "0: (1.02)"},
    "zoom 0.98": {"zoom": "0: (0.98)"},
    "translation_x 2": {"translation_x": "0: (2)"},
    "translation_y -1": {"translation_y": "0: (-1)"},
    "angle 1": {"angle": "0: (1)"},
    "3D translation_z 4": {"animation_mode": "3D", "translation_z": "0: (4)"},
    "3D rotation_3d_y 1": {"animation_mode": "3D", "rotation_3d_y": "0: (1)"},
}
PROMPT = "a red car stands still in the snowy mountains on a sunny day"
FRAMES, JOIN = 53, 3  # of the video; frames behind a join that count as it
_BORDER, _FAINT = 8, 4.0  # pixels at the edge and grey values per pixel below which nothing is measured


def motion_between(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """The picture's motion from one frame to the next: right, down, zoom, turn (degrees counter-clockwise).

    A similarity fitted to the flow where there is texture, by iterated reweighting: what moves otherwise is outvoted.
    """
    height, width = first.shape[:2]
    y, x = np.mgrid[_BORDER : height - _BORDER : 2, _BORDER : width - _BORDER : 2]
    flow = both_flows(first, second)[0][:, y, x].reshape(2, -1).astype(float)
    steep = np.hypot(*np.gradient(first.mean(axis=2)))[y, x].ravel()
    across, down = (x - (width - 1) / 2).ravel(), (y - (height - 1) / 2).ravel()
    none, one = np.zeros_like(across), np.ones_like(across)
    known = np.concatenate([np.stack([one, none, across, down]), np.stack([none, one, down, -across])], axis=1).T
    weight = np.where(steep > _FAINT, np.minimum(steep, 20), 0)
    fit = np.zeros(4)
    for _ in range(20):
        off = np.linalg.norm(flow - (known @ fit).reshape(2, -1), axis=0)
        now = np.tile(np.sqrt(weight / (0.2 + off)), 2)
        fit = np.linalg.lstsq(known * now[:, None], flow.ravel() * now, rcond=None)[0]
    grown = complex(1 + fit[2], fit[3])
    turn = math.degrees(math.atan2(grown.imag, grown.real))
    return {"right": float(fit[0]), "down": float(fit[1]), "zoom": abs(grown), "turn": turn}


def asked_for(camera: Camera | None, width: int, height: int) -> dict[str, float]:
    """The same numbers of a schedule that doesn't change."""
    if camera is None:
        return {"right": 0.0, "down": 0.0, "zoom": 1.0, "turn": 0.0}
    centre = np.array([[(width - 1) / 2, (height - 1) / 2]])
    places = moved(camera.step(1), np.concatenate([centre, centre + np.array([[1e-3, 0]])]))
    grown = (places[1] - places[0]) / 1e-3
    shift = places[0] - centre[0]
    return {"right": float(shift[0]), "down": float(shift[1]), "zoom": float(np.hypot(*grown)),
            "turn": -math.degrees(math.atan2(grown[1], grown[0]))}  # fmt: skip


def measured(frames: np.ndarray, joins: set[int]) -> dict[str, dict[str, float]]:
    """Medians of every motion, over all frames and without those behind a join.  joins: where clips start."""
    steps = [motion_between(a, b) for a, b in pairwise(frames)]
    near = {join - 1 + k for join in joins if join for k in range(JOIN)}
    inside = [step for index, step in enumerate(steps) if index not in near]
    return {name: {key: round(float(np.median([step[key] for step in chosen])), 4) for key in steps[0]}
            for name, chosen in (("all", steps), ("inside clips", inside))}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--sheet", type=Path, help="where a contact sheet goes")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "camera")
    parser.add_argument("--prompt", default=PROMPT)
    arguments = parser.parse_args()
    figures, rows = {}, []
    with new_worker() as worker:
        for name, schedules in CASES.items():
            settings = RenderSettings(
                prompts={"0": arguments.prompt}, width=128, height=80, fps=16, max_frames=FRAMES, seed=5,
                model="demo", **schedules,
            )  # fmt: skip
            result = render_wan(settings, arguments.work, worker=worker)
            files = JobFiles(result.folder, result.timestring)
            frames = np.stack([read_png(path) for path in files.pictures()])
            plan = json.loads(files.manifest.read_text(encoding="utf-8"))["plan"]
            asked = asked_for(camera_of(settings, settings.seed, []), settings.width, settings.height)
            found = measured(frames, {clip["start_frame"] for clip in plan["clips"]})
            figures[name] = {"asked": {key: round(value, 4) for key, value in asked.items()}, **found}
            rows.append(np.concatenate(list(frames[:: FRAMES // 8]), axis=1))
            print(name, *(f"\n    {what:13}{values}" for what, values in figures[name].items()), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet, optimize=True)


if __name__ == "__main__":
    main()
