#!/usr/bin/env python3
"""Every way to go on from clip to clip, on the demo checkpoint: renders, measures, draws a table.

    python bench/continuity/compare.py [--out DIR] [--methods NAME ...] [--seeds 1 2 3] [--results FILE.json]
        [--model FOLDER [--plain]]

FOLDER holds another model than the bundled demo; with --plain it is the demo's plain variant, see plain_demo.py.
Renders that are there already are measured, not rendered again.  All methods at three seeds take about 10 minutes on
two quiet cores.  Writes DIR/<method>.json, pictures of all seeds, and the table as Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import numpy as np
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import settings_from_dict
from deforum_helpers.variants import DEMO
from deforum_helpers.wan_integration import new_worker
from deforum_helpers.worker_client import ClipRenderer
from measure import charts, figures, line, seam_rows
from methods import BASELINE, JOINT, MAX_FRAMES, METHODS, TAKES, settings_of, takes_prompts
from plain_demo import new_plain_worker
from plot import contact_sheet, draw_charts
from rendered import Clip, Rendered, read_render


def render(method: str, number: int, seed: int, out: Path, worker: ClipRenderer, model: str = DEMO) -> Rendered:
    """One take, rendered unless its folder holds it; number: which take."""
    wanted = {**settings_of(method, number % len(TAKES), seed), "model": model}
    timestring = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    wanted["batch_name"] = f"{method} {seed}"
    settings, _ = settings_from_dict(wanted)
    before, unmade = processor_seconds(worker), not (out / wanted["batch_name"]).exists()
    folder = render_wan(settings, out, worker=worker, timestring=timestring, resume=True).folder
    rendered, spent = read_render(folder, timestring), folder / "processor_seconds.txt"
    if unmade:
        spent.write_text(str(processor_seconds(worker) - before), encoding="utf-8")
    if spent.exists():
        rendered.seconds["processor"] = float(spent.read_text(encoding="utf-8"))
    if METHODS[method]["continuity"] == JOINT:  # measured where the other methods join
        prompts = takes_prompts(number % len(TAKES))
        ends = [*list(prompts)[1:], MAX_FRAMES]
        clips = [Clip(start, end, 0, prompts[start]) for start, end in zip(prompts, ends, strict=True)]
        rendered = replace(rendered, clips=tuple(clips))
    return rendered


def processor_seconds(worker: ClipRenderer) -> float:
    """What the worker's process has used of the processors: another program beside it doesn't lengthen that.  Linux."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def warm_up(out: Path, worker: ClipRenderer, model: str = DEMO) -> None:
    """Have the model loaded, so that no method is charged for it."""
    wanted = {**settings_of("latents", 0, 1), "max_frames": 5, "batch_name": "warm up", "model": model}
    settings, _ = settings_from_dict(wanted)
    render_wan(settings, out, worker=worker)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One method over all seeds.  Where every clip is cut from the one before there is no join to speak of."""
    mean = lambda *values: float(np.mean(values))  # noqa: E731
    sums = {
        "repeated": sum(row["repeated_frames"] for row in rows),
        "skipped": sum(row["skipped_at_joins"] for row in rows),
        "near_duplicates": sum(len(row["near_duplicates"]) for row in rows),
        "seconds": mean(*(row["seconds"]["processor"] for row in rows if "processor" in row["seconds"])),
    }
    if not all(row["joins"] for row in rows):
        return sums
    return {
        "seam_jump": mean(*(row["seam_jump"]["mean"] for row in rows)),
        "worst_seam": max(row["seam_jump"]["worst"] for row in rows),
        "joins_over_limit": [sum(row["joins_over_limit"] for row in rows), sum(len(row["joins"]) for row in rows)],
        "inside_over_limit": mean(*(row["inside_over_limit"] for row in rows)),
        "flow_jump": mean(*(row["seam_flow_jump"]["mean"] for row in rows)),
        "direction": [sum(row["direction_kept"] for row in rows), sum(row["direction_to_keep"] for row in rows)],
        "colour_drift": mean(*(row["colour_drift"] for row in rows)),
        "still_drift": mean(*(row["still_drift"] for row in rows)),
        "contrast_drift": mean(*(row["contrast_drift"] for row in rows)),
        "sharpness": mean(*(row["sharpness_kept"] for row in rows)),
        **sums,
    }


COLUMNS = (
    "method", "seam", "worst", "over 1.25: joins", "inside", "flow at seam", "direction kept", "colour drift",
    "of baseline", "contrast drift", "where nothing moves", "sharpness", "repeated, skipped", "near duplicates",
    "processor, s",
)  # fmt: skip


def table(found: dict[str, dict[str, Any]]) -> str:
    """The summaries as a Markdown table."""
    base = found.get(BASELINE, {}).get("colour_drift")
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for name, row in found.items():
        number = lambda key, row=row: f"{row[key]:.2f}" if key in row else "-"  # noqa: E731
        share = f"{row['colour_drift'] / base:.2f}" if base and "colour_drift" in row else "-"
        of = lambda key, row=row: "{}/{}".format(*row[key]) if key in row else "-"  # noqa: E731
        inside = f"{row['inside_over_limit']:.0%}" if "inside_over_limit" in row else "-"
        cells = (
            name, number("seam_jump"), number("worst_seam"), of("joins_over_limit"), inside, number("flow_jump"),
            of("direction"), number("colour_drift"), share, number("contrast_drift"), number("still_drift"),
            number("sharpness"), f"{row['repeated']}, {row['skipped']}", str(row["near_duplicates"]),
            f"{row['seconds']:.1f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def overview(renders: dict[str, Rendered]) -> list[tuple[str, Any]]:
    """One row a method: a frame of the middle of every clip."""
    rows = []
    for name, render in renders.items():
        middles = [(clip.start + clip.end) // 2 for clip in render.clips]
        rows.append((f"{name}: the middle of every clip", render.frames[middles]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/continuity"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--results", type=Path, help="write the summary there as JSON")
    parser.add_argument("--model", default=DEMO, help="folder of another model's weights")
    parser.add_argument("--plain", action="store_true", help="they are the demo's plain variant")
    options = parser.parse_args()
    if options.plain:
        options.methods = [name for name in options.methods if METHODS[name]["continuity"] != "image"]
    options.out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in options.methods}
    with new_plain_worker() if options.plain else new_worker() as worker:
        warm_up(options.out, worker, options.model)
        for number, seed in enumerate(options.seeds):
            renders = {}
            for name in options.methods:
                renders[name] = render(name, number, seed, options.out, worker, options.model)
                measured[name].append(figures(renders[name]))
                print(line(f"seed {seed}, {name}", measured[name][-1]), flush=True)
            # A cut's change is ten times a join's: beside it the joins would be a flat line.
            by_name = {name: measured[name][-1] for name in options.methods if name != "cuts"}
            draw_charts(charts(by_name), options.out / f"measured_{seed}.png")
            contact_sheet(overview(renders), options.out / f"takes_{seed}.png")
            for name in options.methods:
                if rows := seam_rows(renders[name], most=6):
                    contact_sheet(rows, options.out / f"seams_{name.replace(' ', '_')}_{seed}.png")
    (options.out / "figures.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    found = {name: summary(rows) for name, rows in measured.items()}
    print("\n" + table(found))
    (options.out / "table.md").write_text(table(found), encoding="utf-8")
    if options.results:
        options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
