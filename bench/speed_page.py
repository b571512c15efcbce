"""docs/speed.md from bench/results/*.json and techniques.json: what was measured, and a note for every technique."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
NO_GPU = "not measured: no GPU"

_HEAD = """# Speed and memory

Written by tools/write_docs.py from the files in bench/results/, which the commands below write.  Figures hold for the
machine they name; "load" is how many other programs wanted the processor when the measurement began, and where it is
near or above the number of cores only the ratios mean something.
"""

_LOADING_SECONDS = {
    "load": "load", "first_step": "to the end of the first step", "processor": "of it processor time",
    "from_start": "from the program's start",
}  # fmt: skip
_LOADING_WORDS = """random
weights in bfloat16, the files in the page cache.  On a CPU the model is host memory: mapped files where the dtype is
the file's.  "handed on" lets go of every tensor where a load to a GPU would have copied it to the device; held by the
system to the largest shard plus 1 GB (a memory cgroup, which counts the interpreter and the page cache) it loads as
well.  Ours looks at every number for NaN, so it reads the files while it loads; diffusers reads them in its first step.

"""

_COMMANDS = """## Commands

    python bench/against_diffusers.py               # the tables above; on a GPU: 1.3B and 14B, 480p and 720p
    python bench/options.py --pictures FOLDER       # what the options that change the picture save and change
    python bench/loading.py                         # the same files loaded here and by diffusers
    python bench/startup.py                         # a worker's start, its second job, a prompt seen before
    python -m pytest tests/parity/test_offload.py   # the memory ladder; on a GPU with the allocator capped
"""


def page() -> str:
    """The whole of docs/speed.md."""
    parts = [_HEAD]
    for name, title in (("cpu", "On a CPU"), ("cuda", "On a GPU")):
        parts.append(f"## {title}, against diffusers\n\n{_cases(_read(name))}")
    parts.append(f"## Options that change the picture, and what they save\n\n{_options(_read('options'))}")
    parts.append(f"## Loading\n\n{_loading(_read('loading'))}")
    parts.append(f"## Start-up\n\n{_startup(_read('startup'))}")
    notes = json.loads((RESULTS.parent / "techniques.json").read_text(encoding="utf-8"))
    head = ("technique", "predicted", "measured", "verdict")
    parts.append("## Techniques\n\n" + _table(head, [tuple(note[column] for column in head) for note in notes]))
    return "\n".join([*parts, _COMMANDS])


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _cases(result: dict[str, Any] | None) -> str:
    if result is None:
        return f"{NO_GPU[0].upper()}{NO_GPU[1:]} was at hand.  The command is `python bench/against_diffusers.py`.\n"
    rows = []
    for name, row in result["cases"].items():
        share = f"{row['tflops']:.3g} TFLOP/s, {row['share_of_matmul']:.0%}" if "tflops" in row else ""
        peaks = [f"{row[side]:.1f}" for side in ("ours_peak_gib", "diffusers_peak_gib") if side in row]
        theirs = f"{row['diffusers_seconds']:.4g} s" if "ratio" in row else ""
        ratio = f"**{row['ratio']:.2f}x** ({row['cpu_ratio']:.2f}x)" if "ratio" in row else ""
        rows.append((name, f"{row['ours_seconds']:.4g} s", theirs, ratio, share, " / ".join(peaks), row["note"]))
    head = ("case", "ours", "diffusers", "ratio (of processor time)", "of a matrix product's rate", "peak GiB", "")
    text = _machine(result) + _table(head, rows)
    for name, row in result["cases"].items():
        if shares := row.get("breakdown"):
            text += f"\nOf {name}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()) + ".\n"
    return text


def _options(result: dict[str, Any] | None) -> str:
    if result is None:
        return "Not measured yet.\n"
    rows = [
        (name, f"{row['speed']:.2f}x", f"{row['passes']:.0%}", f"{row['latents_relative_l2']:.4f}",
         f"{row['psnr_db']:.1f} dB", f"{row['weights']:.0%}")
        for name, row in result["options"].items()
    ]  # fmt: skip
    head = ("option", "sampling", "passes of the model", "latents' relative difference", "pictures", "backbone's bytes")
    return _machine(result) + "On the demo, whose weights are float32 on a CPU.\n\n" + _table(head, rows)


def _loading(result: dict[str, Any] | None) -> str:
    if result is None:
        return "Not measured yet.\n"
    whole, shard = (f"{result[name] / 1e9:.2f} GB" for name in ("bytes", "largest_shard"))
    rows = [
        (side, *(f"{row[name]:.2f} s" if name in row else "" for name in _LOADING_SECONDS),
         *(f"{row[name] / 1e9:.2f} GB" for name in ("allocated", "with_files")))
        for side, row in result["sides"].items()
    ]  # fmt: skip
    head = ("", *_LOADING_SECONDS.values(), "host memory allocated", "with the mapped files")
    about = f"{result['variant']}, {result['blocks']} blocks, {whole} in shards of at most {shard}, "
    return _machine(result) + about + _LOADING_WORDS + _table(head, rows)


def _startup(result: dict[str, Any] | None) -> str:
    if result is None:
        return "Not measured yet.\n"
    rows = [(name, f"{row['seconds']:.2f} s", row["bar"]) for name, row in result["cases"].items()]
    return _machine(result) + _table(("", "measured", "bar"), rows)


def _machine(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    after = f" before, {result['load_after']} after" if "load_after" in result else ""
    return f"{result['machine']}, {result['precision']}; {versions}; load {result['load_before']}{after}.\n\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
