"""What the tests of the hosts need beside the isolated environment: gradio as the WebUIs ship it, and a browser.

Run as a program (`install.py --test` does) it makes the gradio environments in <environment>/hosts/, each from the pins
beside this file, and says in one line what can't be had.  The fixtures in conftest.py then find or miss them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parents[1] / "scripts") not in sys.path:
    sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from deforum_helpers.environment.faults import fault_from_output
from deforum_helpers.environment.packages import PIP, pip_environment
from deforum_helpers.environment.venv import create_venv, is_usable_venv, run_command
from deforum_helpers.errors import SetupError
from deforum_helpers.wan_isolated_env import (
    clean_environment,
    environment_root,
    probe_python,
    venv_python,
)

# gradio 3.41.2 is A1111's, reForge's and Forge Classic's; 4.40.0 is Forge's and Forge Neo's.
PINS = {"gradio3": HERE / "gradio3.txt", "gradio4": HERE / "gradio4.txt"}
_PYTHON = "3.11"  # what the pins were resolved for
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def host_python(name: str) -> Path:
    """The interpreter of a host's environment.  Raises SetupError if it isn't there."""
    folder = environment_root() / "hosts" / name
    if _read(folder / "stamp.txt") != _fingerprint(name):
        raise SetupError(f"the {name} environment is not set up", next_step="run: python install.py --test")
    return venv_python(folder / "venv")


def find_browser() -> str:
    """The path of a Chromium, "" if there is none.  DEFORUM_WAN_CHROMIUM names one that is not on PATH."""
    named = os.environ.get("DEFORUM_WAN_CHROMIUM", "").strip()
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), "")


def prepare(name: str) -> None:
    """Make a host's environment, or leave it be if it is ready.  Raises SetupError."""
    folder = environment_root() / "hosts" / name
    if _read(folder / "stamp.txt") == _fingerprint(name):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stamp.txt").unlink(missing_ok=True)
    log, venv = folder / "build.log", folder / "venv"
    log.write_text("", encoding="utf-8")
    if not is_usable_venv(venv, {}, run_command):
        create_venv(venv, _find_python(), os.environ, run_command, print, log)
    for step in ([PIP], ["-r", str(PINS[name])]):
        _pip_install(venv_python(venv), step, log)
    (folder / "stamp.txt").write_text(_fingerprint(name), encoding="utf-8")


def _pip_install(python: Path, what: list[str], log: Path) -> None:
    lines: list[str] = []
    command = [str(python), "-m", "pip", "install", "--only-binary", ":all:", "--progress-bar", "off", *what]
    code = run_command(command, pip_environment(clean_environment()), lines.append)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    if code:
        raise fault_from_output("installing gradio", lines, code, log)


def _find_python() -> str:
    candidates = [getattr(sys, "_base_executable", sys.executable), shutil.which(f"python{_PYTHON}")]
    for candidate in candidates:
        if candidate and probe_python(candidate).startswith(f"{_PYTHON}."):
            return candidate
    raise SetupError(f"there is no Python {_PYTHON} on PATH, which its pins are for")


def _fingerprint(name: str) -> str:
    return hashlib.sha256(PINS[name].read_bytes()).hexdigest()


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def main() -> int:
    for name in PINS:
        try:
            prepare(name)
            print(f"host environment {name}: ready")
        except (SetupError, OSError) as error:
            print(f"host environment {name}: not to be had, its tests will be skipped: {error}")
    print(f"browser: {find_browser() or 'no chromium on PATH, the browser tests will be skipped'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
