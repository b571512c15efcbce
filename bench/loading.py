#!/usr/bin/env python3
"""Loading a backbone: the same random weights in our process and in diffusers', each a process of its own.

    python bench/loading.py [--variant NAME] [--blocks N] [--shards N] [--repeats N] [--out FILE.json]

Writes a checkpoint of a variant's real shapes in bfloat16 to a temporary folder, once under the official names and once
under diffusers', in shards, and measures the load, the load with the first step (one forward pass of 128 tokens), and
all from the program's start with its imports: seconds; and how far host memory grew at the most, both what was
allocated (RssAnon) and all of it with the mapped files (VmRSS), whose pages the system takes back when it needs them.
The files are in the page cache.

On a CPU the model itself is host memory.  "handed on" is what loading to a GPU takes of the host: every tensor is read
and converted as ever, and let go of where it would have been copied to the device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "parity"), str(ROOT / "bench")]

import diffusers_twin
import torch
from deforum_helpers.model_files import inspect_model
from deforum_helpers.variants import VARIANTS, Variant
from deforum_helpers.wan.dit import WanFlowMatchingModel
from deforum_helpers.wan.loading import dit_config, dit_dtype, load_dit
from deforum_helpers.wan.machine import Machine, choose_machine
from deforum_helpers.wan.weights import load_state
from safetensors.torch import save_file

STEM = "diffusion_pytorch_model"
SIDES = ("ours", "ours, handed on", "diffusers")


def write_checkpoints(variant: Variant, folder: Path, shards: int) -> int:
    """The same tensors as <folder>/official and <folder>/diffusers.  Returns the largest shard's bytes."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in WanFlowMatchingModel(dit_config(variant)).state_dict().items()}
    generator, names, largest = torch.Generator().manual_seed(0), list(shapes), 0
    for kind in ("official", "diffusers"):
        (folder / kind).mkdir()
    index: dict[str, dict[str, str]] = {"official": {}, "diffusers": {}}
    for k in range(shards):
        part = names[k * len(names) // shards : (k + 1) * len(names) // shards]
        state = {
            name: (torch.randn(shapes[name], generator=generator) / max(shapes[name][-1], 1) ** 0.5).bfloat16()
            for name in part
        }
        file = f"{STEM}-{k + 1:05d}-of-{shards:05d}.safetensors"
        both = {"official": state, "diffusers": diffusers_twin.renamed(state, diffusers_twin.MAPPING["dit"])}
        for kind, tensors in both.items():
            save_file(tensors, folder / kind / file, metadata={"format": "pt"})
            index[kind] |= dict.fromkeys(tensors, file)
        largest = max(largest, (folder / "official" / file).stat().st_size)
    for kind, names_to_files in index.items():
        text = json.dumps({"metadata": {"total_size": 0}, "weight_map": names_to_files})
        (folder / kind / f"{STEM}.safetensors.index.json").write_text(text, encoding="utf-8")
    config = {
        "_class_name": "WanTransformer3DModel", "num_attention_heads": variant.num_heads,
        "attention_head_dim": variant.head_dim, "in_channels": variant.in_dim, "out_channels": variant.out_dim,
        "text_dim": variant.text_dim, "freq_dim": variant.freq_dim, "ffn_dim": variant.ffn_dim,
        "num_layers": variant.num_layers,
    }  # fmt: skip
    (folder / "diffusers" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return largest


class MemoryWatch:
    """How far this process's memory grew while it ran, in bytes; 0 where the system doesn't tell."""

    LINES = ("RssAnon", "VmRSS")

    def __init__(self) -> None:
        self._before, self._over = memory(), threading.Event()
        self._most = dict(self._before)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """By the line of /proc/self/status."""
        self._over.set()
        self._thread.join()
        return {name: self._most[name] - self._before[name] for name in self.LINES}

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            now = memory()
            self._most = {name: max(now[name], most) for name, most in self._most.items()}


def memory() -> dict[str, int]:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = dict(line.split(":", 1) for line in lines)
    return {name: int(told[name].split()[0]) * 1024 if name in told else 0 for name in MemoryWatch.LINES}


def one_side(side: str, folder: Path, variant: Variant, born: float) -> dict[str, float]:
    """Load and do one step; runs in a process of its own.  born: when that began, as time.time()."""
    if side == "diffusers":
        import diffusers  # noqa: F401 - its import is not its loading
        from diffusers import WanTransformer3DModel
    machine = choose_machine("auto", "bfloat16")
    with torch.device("meta"):  # torch imports much with its first use
        torch.nn.Linear(1, 1)
    busy, watch, started = time.process_time(), MemoryWatch(), time.perf_counter()
    model: Any = None
    if side == "diffusers":
        model = WanTransformer3DModel.from_pretrained(folder / "diffusers", torch_dtype=torch.bfloat16)
        model = model.to(machine.device).eval()
    else:
        # With fewer blocks it is no known variant, and nothing else is wrong with it.
        part = replace(inspect_model(folder / "official").parts["dit"], problems=())
        if side == "ours":
            model = load_dit(part, variant, machine)
        else:
            deque(load_state(part, torch.device("cpu"), dit_dtype(machine.dtype)), maxlen=0)
    result = {"load": time.perf_counter() - started}
    if model is not None:
        _first_step(side, model, variant, machine)
        result["first_step"] = time.perf_counter() - started
        result["processor"] = time.process_time() - busy
        result["from_start"] = time.time() - born
    grown = watch.stop()
    return {**result, "allocated": grown["RssAnon"], "with_files": grown["VmRSS"]}


@torch.inference_mode()
def _first_step(side: str, model: Any, variant: Variant, machine: Machine) -> None:
    dtype = torch.float32 if side == "ours" else torch.bfloat16
    latents = torch.zeros(1, variant.in_dim, 2, 16, 16, device=machine.device, dtype=dtype)
    context = torch.zeros(1, variant.text_len, variant.text_dim, device=machine.device, dtype=torch.bfloat16)
    t = torch.full((1,), 500.0, device=machine.device)
    if side == "ours":
        model(latents, t, model.condition(context))
    else:
        with torch.autocast(machine.device.type, torch.bfloat16):  # it keeps some layers in float32
            model(latents, t, context, return_dict=False)
    if machine.device.type == "cuda":
        torch.cuda.synchronize()


def measure(folder: Path, variant: Variant, repeats: int) -> dict[str, dict[str, float]]:
    """Turn about, a fresh process each; medians."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    for turn in range(repeats + 1):
        for side, results in runs.items():
            words = ["--side", side, str(folder), json.dumps(asdict(variant)), str(time.time())]
            done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=env)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            if turn:  # the first turn fills the page cache
                results.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        side: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for side, results in runs.items()
    }


def _load() -> float:
    """How many programs want the processor, -1 where the system doesn't tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        raw = json.loads(sys.argv[4])
        variant = replace(VARIANTS[raw["name"]], num_layers=raw["num_layers"])
        print(json.dumps(one_side(sys.argv[2], Path(sys.argv[3]), variant, float(sys.argv[5]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, row in VARIANTS.items() if not row.experts]
    parser.add_argument("--variant", default="wan2.1-t2v-1.3B", choices=names)
    parser.add_argument("--blocks", type=int, default=0, help="0 = all of them")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "loading.json")
    options = parser.parse_args()
    row = VARIANTS[options.variant]
    variant = replace(row, num_layers=options.blocks or row.num_layers)
    load = _load()
    with tempfile.TemporaryDirectory(prefix="deforum_wan_bench_") as name:
        largest = write_checkpoints(variant, Path(name), options.shards)
        size = sum(path.stat().st_size for path in (Path(name) / "official").glob("*.safetensors"))
        sides = measure(Path(name), variant, options.repeats)
    import diffusers

    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; {choose_machine('auto', 'bfloat16').name}",
        "precision": "bfloat16", "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "load_before": round(load, 2), "load_after": round(_load(), 2),
        "variant": variant.name, "blocks": variant.num_layers, "bytes": size,
        "largest_shard": largest, "sides": sides,
    }  # fmt: skip
    print(f"{variant.name}, {variant.num_layers} blocks, {size / 1e9:.2f} GB, largest shard {largest / 1e9:.2f} GB")
    print(f"{'':16s} {'load':>8s} {'first step':>11s} {'from start':>11s} {'allocated':>10s} {'with files':>11s}")
    for side, row in sides.items():
        step = f"{row['first_step']:10.2f}s {row['from_start']:10.2f}s" if "first_step" in row else " " * 23
        print(f"{side:16s} {row['load']:7.2f}s {step} {row['allocated'] / 1e9:8.2f}GB "
              f"{row['with_files'] / 1e9:9.2f}GB")  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
