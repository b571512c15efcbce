#!/usr/bin/env python3
"""How long a user waits before anything moves: a worker's start, the first job, the second job, a prompt seen before.

    python bench/startup.py     # the demo, on this machine; half a minute

Writes bench/results/startup.json.  Every start is a new process with an empty prompt cache of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from deforum_helpers.protocol import ClipDone, ClipRequest, Loading, Step
from deforum_helpers.wan_integration import new_worker

BARS = {
    "worker ready": "6 s",
    "first job, until sampling begins": "",
    "second job, until sampling begins": "0.5 s",
    "a prompt seen before, until sampling begins": "0.5 s, no text encoder",
    "a warm clip of 14 steps, all but sampling and decoding": "",
}


def clip(folder: Path, name: str, prompt: str, steps: int = 14) -> ClipRequest:
    return ClipRequest(
        id=name, model=str(ROOT / "models" / "demo"), prompt=prompt, negative_prompt="", width=128, height=80,
        latent_frames=5, new_latents=5, prefix_latents=0, num_inference_steps=steps, solver="euler", shift=3.0,
        guidance=(4.0,) * 5, seed=1, strength=1.0, latents_file=str(folder / f"{name}.safetensors"),
        frames_file=str(folder / f"{name}.npy"), device="cpu",
    )  # fmt: skip


def timed_clip(worker: Any, request: ClipRequest) -> tuple[float, list[str], ClipDone, float]:
    """Seconds before sampling began, the parts that were loaded, the clip, and seconds in all.

    Sampling began a step's time, as the later ones take it, before the first step was done.
    """
    started, steps, loaded = time.perf_counter(), [], []

    def hear(event: object) -> None:
        if isinstance(event, Step):
            steps.append((time.perf_counter() - started, event.seconds))
        if isinstance(event, Loading) and event.seconds:
            loaded.append(event.part)

    done = worker.run(request, hear)
    return (
        steps[0][0] - statistics.median(seconds for _, seconds in steps[1:]),
        loaded,
        done,
        (time.perf_counter() - started),
    )


def start_once(folder: Path) -> dict[str, float]:
    """One worker's life."""
    os.environ["DEFORUM_WAN_CACHE"] = str(folder / "cache")
    worker = new_worker()
    try:
        started = time.perf_counter()
        worker.start()
        ready = time.perf_counter() - started
        first, _, _, _ = timed_clip(worker, clip(folder, "a", "a red balloon over the sea"))
        second, loaded, done, whole = timed_clip(worker, clip(folder, "b", "a blue car in the desert"))
        assert not loaded, loaded
        again, _, _, _ = timed_clip(worker, clip(folder, "c", "a red balloon over the sea"))
        host = whole - done.seconds["sample"] - done.seconds["decode"]
    finally:
        worker.close()
    return dict(zip(BARS, (ready, first, second, again, host), strict=True))


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "startup.json")
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(start_once(Path(folder)))
    cases = {name: {"seconds": statistics.median(run[name] for run in runs), "bar": bar} for name, bar in BARS.items()}
    for name, row in cases.items():
        say(f"{name:54s} {row['seconds']:6.2f} s   {row['bar']}")
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "precision": "float32",
        "versions": {"python": platform.python_version()}, "repeats": options.repeats, "load_before": round(load, 2),
        "cases": cases,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
