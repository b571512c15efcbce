"""A virtual environment from whatever this machine has, and the one way to start a process while building.

A full Python makes one by itself.  Debian's without python3-venv and the embedded one of one-click WebUIs don't: then
uv or virtualenv do, and where neither is installed, virtualenv is fetched into a folder of its own and run from there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import SetupError
from ..wan_isolated_env import NEWEST_PYTHON, OLDEST_PYTHON, clean_environment, probe_python, venv_python
from .faults import machine_fault
from .packages import pip_environment

# (command, variables, called with each line) -> exit code
Run = Callable[[Sequence[str], Mapping[str, str], Callable[[str], None]], int]

_VIRTUALENV = "virtualenv==21.15.8"
# An embedded Python takes no PYTHONPATH, so the folder is put in front by hand.
_RUN_VIRTUALENV = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('virtualenv', run_name='__main__')"
)
_ALLOWED = f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
_END_SECONDS = 5


def run_command(
    command: Sequence[str],
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    *,
    folder: Path | None = None,
    keep_open: Sequence[int] = (),
) -> int:
    """Run a command and hand on each line that it prints.  Returns its exit code, 127 if it can't be started.

    keep_open: descriptors that it inherits (POSIX).  It is ended if `on_line` raises or Ctrl-C comes.
    """
    options = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {"pass_fds": tuple(keep_open)}
    try:
        process = subprocess.Popen(
            list(command), env=dict(env), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", **options,
        )  # fmt: skip
    except OSError as error:
        on_line(f"{command[0]}: {error}")
        return 127
    with process, process.stdout as lines:
        try:
            for line in lines:
                on_line(line.rstrip())
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    process.kill()


def choose_interpreter(env: Mapping[str, str]) -> str:
    """The Python to build on: DEFORUM_WAN_PYTHON, else the running one.  Raises SetupError if it doesn't do."""
    named = env.get("DEFORUM_WAN_PYTHON", "").strip()
    version = probe_python(named) if named else "{}.{}.{}".format(*sys.version_info[:3])
    if not version:
        raise SetupError(
            "DEFORUM_WAN_PYTHON can't be started", got=named, allowed=f"the path of {_ALLOWED}",
            next_step="correct it or unset it",
        )
    if not OLDEST_PYTHON <= _minor(version) <= NEWEST_PYTHON:
        other = _other_python()
        raise SetupError(
            "this Python can't run the models", got=f"Python {version}", allowed=_ALLOWED,
            next_step=f"set DEFORUM_WAN_PYTHON to {other or 'one of these'}, and run the same command again",
        )
    return named or sys.executable


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _other_python() -> str:
    """A fitting Python on this machine's PATH, newest first; a name alone may be an empty shim, so it is tried."""
    for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and probe_python(found):
            return found
    return ""


def is_usable_venv(venv: Path, env: Mapping[str, str], run: Run) -> bool:
    """Whether a virtual environment can be built upon: it starts, fits the Python that was named, and has pip."""
    python = venv_python(venv)
    version = probe_python(python) if python.exists() else ""
    if not version or not OLDEST_PYTHON <= _minor(version) <= NEWEST_PYTHON:
        return False
    named = env.get("DEFORUM_WAN_PYTHON", "").strip()
    if named and _minor(probe_python(named) or "0.0") != _minor(version):
        return False
    return run([str(python), "-m", "pip", "--version"], clean_environment(env), lambda line: None) == 0


def create_venv(
    venv: Path, interpreter: str, env: Mapping[str, str], run: Run, report: Callable[[str], None], log: Path
) -> None:
    """Make a fresh virtual environment with pip, by the first way that works.  Raises SetupError if none does."""
    tools = venv.with_name("tools")
    variables = pip_environment(clean_environment(env))
    first_words = ""
    for way, commands in _ways(venv, interpreter, tools):
        output = _try_way(venv, commands, variables, run, log)
        if output is None and is_usable_venv(venv, env, run):
            shutil.rmtree(tools, ignore_errors=True)
            return
        if fault := machine_fault("making the virtual environment", output or [], log):
            raise fault
        last = next((line for line in reversed(output or []) if line.strip()), "it made one that doesn't work")
        first_words = first_words or last
        report(f"  not by {way}: {last}")
    shutil.rmtree(venv, ignore_errors=True)
    shutil.rmtree(tools, ignore_errors=True)
    raise SetupError(
        f"{interpreter} can't make a virtual environment, and neither uv nor virtualenv can be had", got=first_words,
        next_step=f"install its venv module (on Debian and Ubuntu: apt install python3-venv) or uv, or set"
        f" DEFORUM_WAN_PYTHON to a full {_ALLOWED}, and run the same command again; log: {log}",
    )


def _ways(venv: Path, interpreter: str, tools: Path) -> list[tuple[str, list[list[str]]]]:
    """The ways to make a virtual environment, best first: (name, commands one after the other)."""
    ways = [("venv", [[interpreter, "-m", "venv", str(venv)]])]
    if uv := shutil.which("uv"):
        ways.append(("uv", [[uv, "venv", "--seed", "--python", interpreter, str(venv)]]))
    ways.append(("virtualenv", [[interpreter, "-m", "virtualenv", str(venv)]]))
    fetch = [interpreter, "-m", "pip", "install", "--target", str(tools), _VIRTUALENV]
    ways.append(("a fetched virtualenv", [fetch, [interpreter, "-c", _RUN_VIRTUALENV, str(tools), str(venv)]]))
    return ways


def _try_way(
    venv: Path, commands: Sequence[Sequence[str]], variables: Mapping[str, str], run: Run, log: Path
) -> list[str] | None:
    """Returns None if every command succeeded, else what was printed."""
    shutil.rmtree(venv, ignore_errors=True)
    for command in commands:
        output: list[str] = []
        code = run(command, variables, output.append)
        with log.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in (f"$ {' '.join(command)}", *output))
        if code:
            return output
    return None
