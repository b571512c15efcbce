#!/usr/bin/env python3
"""Loading a backbone: the same random weights in our process and in diffusers', each a process of its own.

    python bench/loading.py [--variant NAME] [--blocks N] [--shards N] [--repeats N] [--out FILE.json]

Writes a checkpoint of a variant's real shapes in bfloat16 to a temporary folder, once under the official names and once
under diffusers', in shards, and measures from the first import-free moment to the first step (load, then one forward
pass of 128 tokens): seconds, host memory allocated at the most (RssAnon), and all of it with the mapped files (VmHWM).
The files are in the page cache.  On a GPU ours loads to the device, so what is allocated on the host shows what loading
itself takes.
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
from deforum_helpers.wan.loading import dit_config, load_dit
from deforum_helpers.wan.machine import Machine, choose_machine
from safetensors.torch import save_file

STEM = "diffusion_pytorch_model"


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
    """Most host memory allocated while it runs, in bytes; 0 where the system doesn't tell."""

    def __init__(self) -> None:
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.most

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, memory_line("RssAnon"))


def memory_line(name: str) -> int:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:")), 0)


def one_side(side: str, folder: Path, variant: Variant) -> dict[str, float]:
    """Load and do one step; runs in a process of its own."""
    if side == "diffusers":
        import diffusers  # noqa: F401 - its import is not its loading
        from diffusers import WanTransformer3DModel
    machine = choose_machine("auto", "bfloat16")
    before, watch, started = memory_line("RssAnon"), MemoryWatch(), time.perf_counter()
    model: Any
    if side == "ours":
        # With fewer blocks it is no known variant, and nothing else is wrong with it.
        part = replace(inspect_model(folder / "official").parts["dit"], problems=())
        model = load_dit(part, variant, machine)
    else:
        model = WanTransformer3DModel.from_pretrained(folder / "diffusers", torch_dtype=torch.bfloat16)
        model = model.to(machine.device).eval()
    loaded = time.perf_counter() - started
    _first_step(side, model, variant, machine)
    whole = time.perf_counter() - started
    allocated = watch.stop() - before
    return {"load": loaded, "first_step": whole, "allocated": allocated, "with_files": memory_line("VmHWM")}


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
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "diffusers": []}
    for turn in range(repeats + 1):
        for side, results in runs.items():
            command = [sys.executable, __file__, "--side", side, str(folder), json.dumps(asdict(variant))]
            env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=env)
            if done.returncode and side == "diffusers":  # its loader wants `accelerate`, which no test here needs
                print(f"diffusers can't load it: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            if turn:  # the first turn fills the page cache
                results.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        side: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for side, results in runs.items()
        if results
    }


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        raw = json.loads(sys.argv[4])
        variant = replace(VARIANTS[raw["name"]], num_layers=raw["num_layers"])
        print(json.dumps(one_side(sys.argv[2], Path(sys.argv[3]), variant)))
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
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    with tempfile.TemporaryDirectory(prefix="deforum_wan_bench_") as name:
        largest = write_checkpoints(variant, Path(name), options.shards)
        size = sum(path.stat().st_size for path in (Path(name) / "official").glob("*.safetensors"))
        sides = measure(Path(name), variant, options.repeats)
    import diffusers

    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; {choose_machine('auto', 'bfloat16').name}",
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "load_before": round(load, 2), "variant": variant.name, "blocks": variant.num_layers, "bytes": size,
        "largest_shard": largest, "sides": sides,
    }  # fmt: skip
    print(f"{variant.name}, {variant.num_layers} blocks, {size / 1e9:.2f} GB, largest shard {largest / 1e9:.2f} GB")
    print(f"{'':10s} {'load':>8s} {'first step':>11s} {'allocated':>10s} {'with files':>11s}")
    for side, row in sides.items():
        print(f"{side:10s} {row['load']:7.2f}s {row['first_step']:10.2f}s {row['allocated'] / 1e9:8.2f}GB "
              f"{row['with_files'] / 1e9:9.2f}GB")  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
