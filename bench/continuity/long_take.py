#!/usr/bin/env python3
"""One take of five minutes on the demo checkpoint: whether drift adds up over hundreds of clips.

    python bench/continuity/long_take.py [--clips 400] [--methods NAME ...] [--out DIR] [--results FILE.json]

Renders that are there already are measured, not rendered again; a broken one goes on. Two quiet cores take about
eight minutes for 400 clips by `latents`, and a third more with kept colours. Writes long_take.png (drift and
sharpness over all clips), long_frames.png (the take at a glance) and, if asked, the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import numpy as np
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import settings_from_dict
from deforum_helpers.wan_integration import new_worker
from deforum_helpers.worker_client import ClipRenderer
from looks import look_figures
from methods import METHODS, settings_of
from plot import Chart, contact_sheet, draw_charts
from rendered import Rendered, read_render

MEASURED = ("drift_by_clip", "still_drift_by_clip", "contrast_by_clip", "sharpness_by_clip")
SPOKEN = {"last frame": "the last frame", "latents": "latents", "latents with colour": "latents, colour: keep"}
AT_A_GLANCE = 12  # frames of the take in one row


def render(method: str, clips: int, out: Path, worker: ClipRenderer) -> Rendered:
    wanted = {**settings_of(method, 0, 1, clips), "batch_name": f"{method}, {clips} clips"}
    settings, _ = settings_from_dict(wanted)
    return read_render(render_wan(settings, out, worker=worker, timestring="take", resume=True).folder, "take")


def smoothed(values: list[float], width: int) -> list[float]:
    """The mean of as many neighbouring clips, so that lines of 400 can be read.  The first clip is left out: it is what
    the others are measured against."""
    return [float(np.mean(values[k : k + width])) for k in range(1, len(values), width)]


def summary(found: dict[str, Any]) -> dict[str, list[float]]:
    """Four parts of the take, as means."""
    parts = {key: np.array_split(np.array(found[key][1:]), 4) for key in MEASURED}
    return {key: [round(float(part.mean()), 3) for part in four] for key, four in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(SPOKEN), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("outputs/long_take"))
    parser.add_argument("--results", type=Path, help="write the figures there as JSON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found, rows = {}, []
    with new_worker() as worker:
        for method in options.methods:
            one = render(method, options.clips, options.out, worker)
            name = SPOKEN.get(method, method)
            found[name] = look_figures(one)
            print(name, json.dumps(summary(found[name])), flush=True)
            chosen = np.linspace(0, len(one.frames) - 1, AT_A_GLANCE).astype(int)
            rows.append((f"{name}: {len(one.frames)} frames, {len(one.clips)} clips", one.frames[chosen]))
    width = max(1, options.clips // 100)
    lines = lambda key: {name: smoothed(one[key], width) for name, one in found.items()}  # noqa: E731
    across = f"clips, by {width}" if width > 1 else "clip"
    charts = [
        Chart("distance from the first clip's mean colour, L*a*b*", lines("drift_by_clip"), across),
        Chart("the same where nothing moves", lines("still_drift_by_clip"), across),
        Chart("sharpness against the first clip", lines("sharpness_by_clip"), across),
    ]
    draw_charts(charts, options.out / "long_take.png")
    contact_sheet(rows, options.out / "long_frames.png")
    if options.results:
        figures = {name: summary(one) for name, one in found.items()}
        options.results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
