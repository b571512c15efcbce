#!/usr/bin/env python3
"""The same weights, the same machine, the same process: this project and diffusers, turn about.

    python bench/against_diffusers.py                      # what suits this machine; about 4 minutes on two cores
    python bench/against_diffusers.py --sets 14B-720p      # on a GPU: one of the sets below
    python bench/against_diffusers.py --device cpu --sets demo --repeats 9

Sets: demo (the bundled checkpoint), slice (the 1.3B's real widths with two of its blocks, random weights), and on a
GPU 1.3B-480p, 1.3B-720p, 14B-480p, 14B-720p (random weights, made on the device, 81 frames).
Prints medians and ratios, where the time of a forward pass goes, and its share of what a matrix product reaches here.
Writes all of it as JSON with machine, versions and load; `python tools/write_docs.py --write` puts it in docs/speed.md.
Run it on a quiet machine: other programs' threads slow both sides, but not evenly.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has them
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "parity")]

import torch
from breakdown import breakdown
from deforum_helpers.variants import VARIANTS
from deforum_helpers.wan.machine import Machine, choose_machine
from demo_cases import demo_cases
from flops import matmul_ceiling
from model_cases import Bench, Size
from timing import Case, measure
from twins import random_twins

_1_3B, _14B = VARIANTS["wan2.1-t2v-1.3B"], VARIANTS["wan2.1-t2v-14B"]
# Real width, a window of 9 frames at 416x240: as many blocks and tokens as a CPU can repeat.
_SLICE = (dataclasses.replace(_1_3B, num_layers=2), Size((3, 30, 52), (2, 12, 16)))
_ON_GPU = {
    "1.3B-480p": (_1_3B, Size.video(832, 480, 81, clip_steps=4)),
    "1.3B-720p": (_1_3B, Size.video(1280, 720, 81)),
    "14B-480p": (_14B, Size.video(832, 480, 81)),
    "14B-720p": (_14B, Size.video(1280, 720, 81)),
}
SETS = ("demo", "slice", *_ON_GPU)


def cases_of(name: str, machine: Machine) -> list[Case]:
    """The cases of a set; what they hold is freed with them."""
    if name == "demo":
        return demo_cases(machine)
    variant, size = _SLICE if name == "slice" else _ON_GPU[name]
    label = "1.3B slice" if name == "slice" else name
    return Bench(label, variant, machine, random_twins(variant, machine), size).cases()


def run_set(name: str, machine: Machine, repeats: int, ceiling: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure a set, case by case."""
    for case in cases_of(name, machine):
        row = measure(case, repeats, machine.device)
        if "tflops" in row:
            row["share_of_matmul"] = row["tflops"] * 1e12 / ceiling
        if case.name.endswith("dit forward"):
            row["breakdown"] = breakdown(case.ours, machine.device)
        yield case.name, row
    gc.collect()
    if machine.device.type == "cuda":
        torch.cuda.empty_cache()


def facts(machine: Machine, repeats: int, ceiling: float) -> dict[str, Any]:
    """What the figures hold for."""
    import diffusers
    import transformers

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    return {
        "machine": f"{machine.name}; {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "precision": str(machine.dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        "repeats": repeats,
        "load_before": round(load, 2),
        "matmul_tflops": round(ceiling / 1e12, 3),
    }  # fmt: skip


def line(name: str, row: dict[str, Any]) -> str:
    """A case as a line of the printed table."""
    out = f"{name:24s} {row['ours_seconds'] * 1e3:10.1f}ms"
    if "ratio" in row:
        out += f" {row['diffusers_seconds'] * 1e3:10.1f}ms {row['ratio']:6.2f}x {row['cpu_ratio']:6.2f}x"
    if "tflops" in row:
        out += f"  {row['tflops']:.3f} TFLOP/s, {row['share_of_matmul']:.0%} of a matrix product"
    if "ours_peak_gib" in row:
        out += f"  peak {row['ours_peak_gib']:.1f} / {row['diffusers_peak_gib']:.1f} GiB"
    if shares := row.get("breakdown"):
        out += "\n    " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    return out


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sets", default="", help=f"of {', '.join(SETS)}, with commas between")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 = torch's own choice")
    parser.add_argument("--out", type=Path, help="default: bench/results/cpu.json or cuda.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = choose_machine(options.device, options.dtype)
    cuda = machine.device.type == "cuda"
    names = options.sets.split(",") if options.sets else [*_ON_GPU] if cuda else ["demo", "slice"]
    if unknown := [name for name in names if name not in SETS]:
        parser.error(f"no set {', '.join(unknown)}; there are {', '.join(SETS)}")
    ceiling = matmul_ceiling(machine.device, machine.dtype)
    result = {**facts(machine, options.repeats, ceiling), "cases": {}}
    say(f"{result['machine']}, {result['precision']}, {result['versions']}, load {result['load_before']}")
    say(f"{'case':24s} {'ours':>12s} {'diffusers':>12s} {'ratio':>7s} {'cpu':>7s}")
    out = options.out or ROOT / "bench" / "results" / ("cuda.json" if cuda else "cpu.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for name in names:
            for case, row in run_set(name, machine, options.repeats, ceiling):
                result["cases"][case] = row
                say(line(case, row))
                out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")  # a later set may not fit


if __name__ == "__main__":
    main()
