#!/usr/bin/env python3
"""What this extension costs a WebUI at its launch: its script, its tab, and what it adds once the app is up.

    python bench/tab_launch.py [--runs N] [PYTHON ...]

Each run is a fresh interpreter.  fastapi, gradio and a first page of gradio's are there already, as they are in a WebUI
when its scripts are loaded, and don't count.  Prints the median of each part in seconds of the processor, which others
on the machine don't change.  The first run compiles our files, as the first launch after an update does, and is told
apart.  PYTHON: of hosts' environments; none = this one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ENTRY = Path(__file__).resolve().parents[1] / "scripts" / "deforum_wan.py"
PARTS = ("script", "tab", "app")
_PROBE = """
import importlib.util, json, sys, time, types
import fastapi, gradio, numpy, PIL.Image
with gradio.Blocks():
    gradio.HTML("first")
callbacks = {}
script_callbacks = types.ModuleType("modules.script_callbacks")
for name in ("on_ui_tabs", "on_app_started", "on_ui_settings"):
    setattr(script_callbacks, name, lambda function, name=name: callbacks.__setitem__(name, function))
modules = types.ModuleType("modules")
modules.script_callbacks = script_callbacks
sys.modules.update({"modules": modules, "modules.script_callbacks": script_callbacks})
at = [time.process_time()]
spec = importlib.util.spec_from_file_location("deforum_wan.py", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
at.append(time.process_time())
callbacks["on_ui_tabs"]()
at.append(time.process_time())
for_the_tab = sorted(name for name in sys.modules if name.startswith("deforum_wan_helpers"))
callbacks["on_app_started"](None, fastapi.FastAPI())
at.append(time.process_time())
print(json.dumps({"seconds": [b - a for a, b in zip(at, at[1:])], "gradio": gradio.__version__, "tab": for_the_tab,
                  "torch": "torch" in sys.modules}))
"""


def measure(python: str, folder: Path) -> dict:
    """One launch: seconds of each part, gradio's version, the modules of ours loaded for the tab, whether torch was."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    places = {f"DEFORUM_WAN_{name}": str(folder / name.lower()) for name in ("DATA", "STATE", "OUT")}
    env = {**kept, **places, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    done = subprocess.run(
        [python, "-c", _PROBE, str(ENTRY)], env=env, capture_output=True, text=True, check=True, cwd=folder
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="*", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    for python in asked.pythons:
        with tempfile.TemporaryDirectory() as folder:
            first, *others = (measure(python, Path(folder)) for _ in range(asked.runs + 1))
        parts = [statistics.median(one["seconds"][part] for one in others) for part in range(len(PARTS))]
        words = ", ".join(f"{name} {seconds:.3f}" for name, seconds in zip(PARTS, parts, strict=True))
        print(f"gradio {first['gradio']}: {words} s; the first launch {sum(first['seconds']):.3f} s in all", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
