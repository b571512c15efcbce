"""Which module stands on which floor, what each floor may import, and a look at what importing modules does.

    face      the command lines, the tab, the API
    host      the isolated environment, the worker's client, a render
    logic     schedules, timeline, queue, files, video
    contract  errors, settings, protocol, variants, weights files      everyone may import these
    worker    lives in the isolated environment and knows the contract only

Imports go downwards or along a floor.  Only the worker has torch; only the face has a WebUI's packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
PACKAGE = SCRIPTS / "deforum_helpers"

# Module or folder -> floor.  A new file must find its place here.
FLOORS = {
    "contract": (
        "__init__", "deforum_files", "errors", "hashing", "model_files", "protocol", "settings", "settings_fields",
        "variants",
    ),
    "logic": (
        "atomic_files", "builtin_presets", "checkpoints", "job_files", "job_queue", "lead", "lora_files",
        "manifest", "planning", "presets", "progress", "queue_runner", "queue_store", "retake",
        "schedules", "timeline", "video", "video_io",
    ),
    "host": (
        "camera_frames", "clips", "environment", "init_video", "output", "preflight", "render_wan", "wan_integration",
        "wan_isolated_env", "worker_client", "worker_log",
    ),
    "face": (
        "api", "cli", "cli_plan", "cli_progress", "cli_render", "gradio_compat", "install_command", "ui", "ui_elements",
        "web",
    ),
    "worker": ("wan", "wan_flow_matching", "wan_worker"),
}  # fmt: skip
BELOW = {
    "contract": {"contract"},
    "logic": {"logic", "contract"},
    "host": {"host", "logic", "contract"},
    "face": {"face", "host", "logic", "contract"},
    "worker": {"worker", "contract"},
}
# Packages beside the standard library.  numpy and Pillow are in every host.
_HOST_PACKAGES = {"numpy", "PIL", "imageio_ffmpeg"}
PACKAGES = {
    "contract": set(),
    "logic": _HOST_PACKAGES,
    "host": _HOST_PACKAGES,
    "face": {*_HOST_PACKAGES, "gradio", "fastapi", "starlette", "anyio", "pydantic", "modules", "uvicorn"},
    "worker": {
        "numpy", "PIL", "torch", "safetensors", "transformers", "tokenizers", "sentencepiece", "ftfy", "regex",
        "einops", "gguf",
    },
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def top_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(name: str) -> str:
    """The floor of a module or folder of the package, "" for one that has no place in FLOORS yet."""
    return next((floor for floor, names in FLOORS.items() if name in names), "")


# Imports modules while an audit hook listens for what an import must not do.
_PROBE = """
import importlib, json, os, sys
scripts, names, beforehand = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for name in beforehand:  # what these do when they are imported is not ours
    try:
        importlib.import_module(name)
    except ImportError:
        pass
sys.path.insert(0, scripts)
before, path, acts = dict(os.environ), list(sys.path), []

def listen(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        acts.append(f"writes {args[0]}")
    elif event in ("os.mkdir", "os.remove", "os.rename", "subprocess.Popen", "os.system", "socket.connect"):
        acts.append(f"{event} {args[:2]}")

sys.addaudithook(listen)
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("gradio", "fastapi", "modules", "pydantic"):
            raise
if dict(os.environ) != before: acts.append("changes os.environ")
if sys.path != path: acts.append("changes sys.path")
loaded = lambda *names: sorted(set(names) & set(sys.modules))
print(json.dumps({
    "acts": acts, "heavy": loaded("torch", "transformers", "safetensors", "diffusers"),
    "webui": loaded("gradio", "fastapi", "pydantic"),
}))
"""


def import_in_fresh_interpreter(
    names: list[str], python: Path | str = sys.executable, *, beforehand: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    """Import modules in a fresh interpreter: what they did on the way, and which packages came along.

    beforehand: packages to import first, unwatched.
    """
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [str(python), "-c", _PROBE, str(SCRIPTS), json.dumps(names), json.dumps(beforehand)],
        capture_output=True, text=True, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def module_names(*floors: str) -> list[str]:
    return [
        ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if floor_of(top_name(path)) in floors
    ]
