"""The isolated environment: where it is, whether it is ready, how a worker is started in it.

    <extension>/environment/           or the folder that DEFORUM_WAN_ENV names
        venv/                          the virtual environment, with torch and everything else
        environment.json               the stamp, written last: what was built, from what
        build.lock  build.log          one builder at a time; everything that pip said
        hosts/                         test environments, where `install.py --test` made them

It covers: packages (nothing of it enters the interpreter of a WebUI, nothing of the WebUI's enters it) and
the variables that steer an interpreter.  It does not cover: files, network and GPU, which the worker shares
with everyone.  Builds are in environment/build.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import SetupError

EXTENSION_ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = EXTENSION_ROOT / "scripts"
INSTALLER = EXTENSION_ROOT / "install.py"

Layer = Literal["render", "test"]
Status = Literal["missing", "partial", "stale", "ready"]

CONSTRAINTS = "constraints.txt"
REQUIREMENTS: dict[Layer, str] = {"render": "requirements.txt", "test": "requirements-test.txt"}
# What a layer's fingerprint reads: the test tools stand on the packages below them.
_INGREDIENTS: dict[Layer, tuple[str, ...]] = {
    "render": (REQUIREMENTS["render"], CONSTRAINTS),
    "test": (REQUIREMENTS["render"], CONSTRAINTS, REQUIREMENTS["test"]),
}

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
STAMP_NAME = "environment.json"
STAMP_FORMAT = 1
_STAMP_FIELDS = {"format", "layers", "python", "interpreter", "torch", "torch_choice"}
_PROBE = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
_PROBE_SECONDS = 30

# Variables that make an interpreter look elsewhere; every other PYTHON* goes too, but for these two, which only say
# where compiled files may be written.
_FOREIGN = ("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PYTHON_EXE", "__PYVENV_LAUNCHER__")
_HARMLESS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


@dataclass(frozen=True)
class EnvironmentState:
    """What `check` found.  reason: why it isn't ready, in words.  stamp: the stamp's content, empty if unreadable."""

    status: Status
    reason: str
    root: Path
    python: Path
    stamp: Mapping[str, Any]

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    def one_line(self) -> str:
        if self.ready:
            return f"ready (Python {self.stamp['python']}, torch {self.stamp['torch']}) in {self.root}"
        return f"{self.status}: {self.reason}"


def environment_root(root: Path | str | None = None, env: Mapping[str, str] = os.environ) -> Path:
    """The environment's folder: `root` if given, else DEFORUM_WAN_ENV, else `environment` in the extension."""
    chosen = root or env.get("DEFORUM_WAN_ENV", "").strip()
    return Path(chosen).expanduser().absolute() if chosen else EXTENSION_ROOT / "environment"


def venv_python(venv: Path) -> Path:
    """The interpreter of a virtual environment, by the system's layout."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def fingerprint(layer: Layer, python: str, folder: Path = EXTENSION_ROOT) -> str:
    """sha256 over what a layer is built from.

    python: "3.11" or "3.11.7"; the patch release doesn't count, packages go on working.  Comments and line ends of the
    requirements don't count either, so that neither a wording nor git's line-end conversion rebuilds gigabytes.
    """
    lines = [
        line.split("#")[0].strip()
        for name in _INGREDIENTS[layer]
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    minor = ".".join(python.split(".")[:2])
    decisive = {"requirements": [line for line in lines if line], "python": minor, "platform": platform_name()}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def platform_name() -> str:
    return f"{sys.platform}-{platform.machine().lower()}"


def check(
    root: Path | str | None = None, layer: Layer = "render", *, torch_wish: str = "", folder: Path = EXTENSION_ROOT
) -> EnvironmentState:
    """Say what state a layer of the environment is in, from a few file reads; starts a process only in doubt.

    torch_wish: a choice of torch made by hand (TORCH_COMMAND, TORCH_INDEX_URL); another one on record makes the
    environment stale.  A WebUI sets these variables for its own torch: leave it empty there.
    """
    root = environment_root(root)
    python = venv_python(root / "venv")
    stamp = read_stamp(root)
    status, reason = _judge(root, python, stamp, layer, torch_wish, folder)
    return EnvironmentState(status, reason, root, python, stamp)


def _judge(
    root: Path, python: Path, stamp: Mapping[str, Any], layer: Layer, torch_wish: str, folder: Path
) -> tuple[Status, str]:
    if not stamp:
        begun = (root / "venv").exists()
        return ("partial", "its set-up was broken off") if begun else ("missing", "it was never set up")
    if stamp["format"] != STAMP_FORMAT:
        return "stale", "another version of this extension built it"
    if layer not in stamp["layers"]:
        return "partial", f"its {layer} packages are not installed"
    if not python.exists():
        return "partial", f"its interpreter {python} is gone"
    if stamp["layers"][layer] != fingerprint(layer, stamp["python"], folder):
        return "stale", "the required packages changed since it was built"
    if torch_wish and torch_wish != stamp["torch_choice"]:
        return "stale", f"torch was installed by {stamp['torch_choice']}, and now {torch_wish} is asked for"
    if _signature(python) != stamp["interpreter"]:
        version = probe_python(python)
        if version.split(".")[:2] != stamp["python"].split(".")[:2]:
            return "stale", f"its Python was {stamp['python']} and is now {version or 'unable to start'}"
    return "ready", ""


def probe_python(python: Path | str) -> str:
    """The version of an interpreter, "3.11.7", or "" if it can't be started."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            [str(python), "-c", _PROBE], env=clean_environment(), capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
        if told.returncode == 0:
            return told.stdout.strip()
    return ""


def read_stamp(root: Path) -> dict[str, Any]:
    """The stamp's content, or {} if there is none or it isn't one."""
    with contextlib.suppress(OSError, ValueError):
        stamp = json.loads((root / STAMP_NAME).read_text(encoding="utf-8"))
        if isinstance(stamp, dict) and set(stamp) >= _STAMP_FIELDS:
            return stamp
    return {}


def write_stamp(root: Path, layers: Mapping[Layer, str], python: str, torch: str, torch_choice: str) -> None:
    """Write the stamp whole or not at all.  layers: name -> fingerprint of every layer that is complete."""
    stamp = {
        "format": STAMP_FORMAT,
        "layers": dict(layers),
        "python": python,
        "interpreter": _signature(venv_python(root / "venv")),
        "torch": torch,
        "torch_choice": torch_choice,
    }
    fresh = root / f"{STAMP_NAME}.part"
    fresh.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    fresh.replace(root / STAMP_NAME)


def _signature(python: Path) -> list[int]:
    """Size and time of the interpreter behind a venv: while they stand, nobody replaced it.  [] = can't tell."""
    with contextlib.suppress(OSError):
        seen = python.stat()
        return [seen.st_size, seen.st_mtime_ns]
    return []


def find_isolated_python(root: Path | str | None = None) -> Path:
    """The interpreter that the worker runs on.  Raises SetupError, with the command that mends it."""
    state = check(root)
    if not state.ready:
        raise SetupError(
            f"the isolated environment is {state.status}: {state.reason}", next_step=f"run: {install_command()}"
        )
    return state.python


def install_command(*arguments: str) -> str:
    """The command that sets the environment up, ready to be pasted into a terminal."""
    words = [sys.executable or "python", str(INSTALLER), *arguments]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def worker_command(module: str = "deforum_helpers.wan_worker", root: Path | str | None = None) -> list[str]:
    """The words that start a module of this package in the environment; run them with cwd=SCRIPTS.

    DEFORUM_WAN_WORKER_PYTHON names another interpreter, which then must have the packages.
    Raises SetupError if the environment isn't ready.
    """
    named = os.environ.get("DEFORUM_WAN_WORKER_PYTHON", "").strip()
    return [named or str(find_isolated_python(root)), "-m", module]


def worker_environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables for a process in the environment: the caller's, without what would lead it astray.

    Hubs are switched off: weights are files that the user chose, and nothing is fetched behind their back.
    Torch's threads sleep while they wait: spinning, as is usual, they fight with whatever else runs on the machine,
    and a render beside another busy program took twelve times as long.  Its large tensors lie in huge pages: touching
    fresh memory in small ones took more time than the arithmetic of many a layer.
    """
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "THP_MEM_ALLOC_ENABLE": "1",
        **clean_environment(env),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }


def clean_environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy of the variables that lets an interpreter find its own packages, and only those, and speak UTF-8."""
    kept = {
        name: value
        for name, value in env.items()
        if name.upper() not in _FOREIGN and (not name.upper().startswith("PYTHON") or name.upper() in _HARMLESS)
    }
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
