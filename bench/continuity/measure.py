#!/usr/bin/env python3
"""How well the clips of finished renders flow into each other.

    python bench/continuity/measure.py FOLDER [FOLDER ...] [--out DIR]

FOLDER is the folder of a finished job (its PNGs and <timestring>_work).  Prints one line a render and writes
continuity.json, continuity.png (change, drift and sharpness over time) and seams.png (the frames around each join).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from looks import likeness_figures, look_figures
from motion import SEAM_LIMIT, measure_motion, motion_figures
from plot import Chart, contact_sheet, draw_charts
from rendered import Rendered, read_render


def figures(render: Rendered) -> dict[str, Any]:
    """Everything that is measured of one render, as JSON."""
    motion = measure_motion(render.frames)
    return {
        "frames": len(render.frames),
        "clips": [[clip.start, clip.end] for clip in render.clips],
        **motion_figures(render, motion),
        **look_figures(render),
        **likeness_figures(render),
        "seconds": render.seconds,
        "change": [float(value) for value in motion.change],
    }


def line(name: str, found: dict[str, Any]) -> str:
    counts = (
        f"repeated {found['repeated_frames']}, skipped {found['skipped_at_joins']}, "
        f"near duplicates {len(found['near_duplicates'])}"
    )
    if not found["joins"]:
        return f"{name}: no clip goes on from another; {counts}"
    seam = found["seam_jump"]
    return (
        f"{name}: seam {seam['mean']:.2f} (worst {seam['worst']:.2f}) x inside, over {SEAM_LIMIT}: "
        f"{found['joins_over_limit']} of {len(found['joins'])} joins, {found['inside_over_limit']:.0%} inside, "
        f"direction kept {found['direction_kept']}/{found['direction_to_keep']}, "
        f"colour drift {found['colour_drift']:.2f} (where nothing moves {found['still_drift']:.2f}), "
        f"sharpness {found['sharpness_kept']:.2f}, {counts}"
    )


def charts(results: dict[str, dict[str, Any]]) -> list[Chart]:
    """results: name -> figures; renders of one plan, so that their joins lie at the same frames."""
    marks = [clip[0] - 1 for clip in next(iter(results.values()))["clips"][1:]]
    relative = {name: [v / found["change_inside"] for v in found["change"]] for name, found in results.items()}
    over_clips = lambda key: {name: found[key] for name, found in results.items()}  # noqa: E731
    return [
        Chart("change from frame to frame, against the median inside clips", relative, "frame", marks, SEAM_LIMIT),
        Chart("distance from the first clip's mean colour, L*a*b*", over_clips("drift_by_clip"), "clip"),
        Chart("distance from the first clip's spread of colours, L*a*b*", over_clips("contrast_by_clip"), "clip"),
        Chart("sharpness against the first clip", over_clips("sharpness_by_clip"), "clip"),
    ]


def seam_rows(render: Rendered, most: int = 12, reach: int = 4) -> list[tuple[str, Any]]:
    """The last and the first frames on either side of each join."""
    chosen = [frame for frame in render.joins if reach <= frame <= len(render.frames) - reach][:most]
    return [
        (f"{render.name}: frames {k - reach} to {k - 1} | {k} to {k + reach - 1}", render.frames[k - reach : k + reach])
        for k in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path(), help="where the results go (default: here)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    renders = [read_render(folder) for folder in options.folders]
    results = {}
    for render in renders:
        results[render.name] = figures(render)
        print(line(render.name, results[render.name]))
    (options.out / "continuity.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw_charts(charts(results), options.out / "continuity.png")
    if rows := [row for render in renders for row in seam_rows(render)]:
        contact_sheet(rows, options.out / "seams.png")


if __name__ == "__main__":
    main()
