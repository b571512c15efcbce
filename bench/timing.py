"""Two ways to do the same work, timed turn about, so that whatever else the machine does strikes both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One thing to measure.  theirs: None where diffusers has nothing of the kind.  note: size and what is in it.

    operations: of one run, 0 = not counted.
    """

    name: str
    ours: Run
    theirs: Run | None
    note: str = ""
    operations: float = 0.0


@dataclass
class Clocks:
    """What one side took, a number a turn; bytes are the most in use on a CUDA device."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """Medians of wall and processor seconds after a turn that warms up; ratio is theirs / ours."""
    sides = [(case.ours, Clocks())] + ([(case.theirs, Clocks())] if case.theirs else [])
    for turn in range(repeats + 1):
        for run, clocks in sides:
            _once(run, clocks, device, counts=turn > 0)
    ours = sides[0][1]
    row: dict[str, Any] = {"note": case.note, "ours_seconds": statistics.median(ours.wall)}
    row["ours_cpu_seconds"] = statistics.median(ours.cpu)
    if len(sides) == 2:
        theirs = sides[1][1]
        row["diffusers_seconds"], row["diffusers_cpu_seconds"] = map(statistics.median, (theirs.wall, theirs.cpu))
        row["ratio"] = row["diffusers_seconds"] / row["ours_seconds"]
        row["cpu_ratio"] = row["diffusers_cpu_seconds"] / max(row["ours_cpu_seconds"], 1e-9)
    if case.operations:
        row["tflops"] = case.operations / row["ours_seconds"] / 1e12
    if device.type == "cuda":
        row["ours_peak_gib"] = ours.peak / 2**30
        if len(sides) == 2:
            row["diffusers_peak_gib"] = sides[1][1].peak / 2**30
    return row


def _once(run: Run, clocks: Clocks, device: torch.device, *, counts: bool) -> None:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started, used = time.perf_counter(), time.process_time()
    run()
    if cuda:
        torch.cuda.synchronize(device)
    if counts:
        clocks.wall.append(time.perf_counter() - started)
        clocks.cpu.append(time.process_time() - used)
        clocks.peak = max(clocks.peak, torch.cuda.max_memory_allocated(device) if cuda else 0)
