"""What `python install.py` does: set the isolated environment up, and go on from there.

    install.py            build it, or say at once that it is ready
    install.py --demo     ... then render the example with the bundled demo model
    install.py --test     ... then run every test in it; words after --test go to pytest
    install.py --repair   look through every installed file, mend or rebuild
    install.py --status   say what there is; exit status 0 = ready, 3 = not

A WebUI runs install.py without arguments at every launch, and shows its output only after it has ended.  Then it says
in one line how things stand, and builds nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import DeforumWanError, SetupError
from .wan_isolated_env import (
    EXTENSION_ROOT,
    SCRIPTS,
    Layer,
    check,
    environment_root,
    install_command,
    worker_environment,
)

EXAMPLE = EXTENSION_ROOT / "examples" / "demo.txt"
OUTPUTS = EXTENSION_ROOT / "outputs"
PREPARE_HOSTS = EXTENSION_ROOT / "tests" / "hosts" / "host_environments.py"

_SIDE_BY_SIDE = 2  # processes that share the tests, file by file
_NO_TESTS = 5  # pytest's exit status when it collected nothing


def main(arguments: Sequence[str], started: float | None = None) -> int:
    """Run the command; returns its exit status.  started: time.time() when the process began, for the report."""
    started = time.time() if started is None else started
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", line_buffering=True)  # a cp1252 console must not end a build
    if called_by_webui(arguments, os.environ):
        return tell_webui()
    options, rest = _parser().parse_known_args(arguments)
    if rest and not options.test:
        _parser().error(f"unknown: {' '.join(rest)}")
    try:
        return _run(options, rest, started)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except DeforumWanError as error:
        print(f"Deforum Wan: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="install.py", description="Set up the isolated environment of Deforum Wan.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--demo", action="store_true", help="then render the example with the bundled demo model")
    what.add_argument("--test", action="store_true", help="then run every test in it; further words go to pytest")
    what.add_argument("--status", action="store_true", help="only say what there is")
    parser.add_argument("--repair", action="store_true", help="look through every installed file, mend or rebuild")
    return parser


def _run(options: argparse.Namespace, rest: Sequence[str], started: float) -> int:
    if options.status:
        return tell_status()
    layers: tuple[Layer, ...] = ("render", "test") if options.test else ("render",)
    from .environment.build import build  # not needed, and not paid for, at a WebUI's launch

    python = build(layers=layers, repair=options.repair)
    print(f"Deforum Wan: {check().one_line()} [{time.time() - started:.2f} s]")
    if options.demo:
        return run_demo(python)
    return run_tests(python, rest) if options.test else 0


def called_by_webui(arguments: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a WebUI's launcher started us: it gives no argument and puts its own folder on PYTHONPATH."""
    folders = [Path(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return not arguments and any((path / "launch.py").is_file() and (path / "modules").is_dir() for path in folders)


def tell_webui() -> int:
    """One line for a WebUI's console.  Always 0: a launcher answers anything else with a traceback of its own."""
    try:
        state = check()
        hint = "" if state.ready else f"; set it up in the Deforum Wan tab, or run: {install_command()}"
        print(f"Deforum Wan: its isolated environment is {state.one_line()}{hint}")
    except Exception as error:  # a broken extension folder must not disturb the launch either
        print(f"Deforum Wan: the state of its isolated environment can't be read: {error}")
    return 0


def tell_status() -> int:
    print(f"folder: {environment_root()}")
    states = {layer: check(layer=layer) for layer in ("render", "test")}
    for layer, state in states.items():
        print(f"{layer}: {state.one_line()}")
    return 0 if states["render"].ready else SetupError.exit_code


def run_demo(python: Path) -> int:
    """Render the example; the command line ends with the path of the video, and so does this."""
    if not EXAMPLE.is_file():
        raise SetupError("the example is missing", got=str(EXAMPLE), next_step="restore it from the repository")
    command = [str(python), str(SCRIPTS / "deforum_wan.py"), "render", str(EXAMPLE), "--out", str(OUTPUTS)]
    return subprocess.call(command, env=worker_environment(), cwd=EXTENSION_ROOT)


def _all_at_once(env: dict[str, str]) -> list[str]:
    """pytest's words for a run of every test: two processes, since a browser's tests wait more than they compute.

    Each keeps to half of the cores, in env.
    """
    cores = os.cpu_count() or 1
    if cores < _SIDE_BY_SIDE:
        return []
    env.setdefault("OMP_NUM_THREADS", str(cores // _SIDE_BY_SIDE))
    return ["-n", str(_SIDE_BY_SIDE), "--dist", "loadfile", "--no-loadscope-reorder"]


def run_tests(python: Path, words: Sequence[str] = ()) -> int:
    """Prepare what the tests of the hosts need, run pytest, return its exit status."""
    env = worker_environment()
    if PREPARE_HOSTS.is_file():
        subprocess.call([str(python), str(PREPARE_HOSTS)], env=env, cwd=EXTENSION_ROOT)
    words = [word for word in words if word != "--"] or _all_at_once(env)
    status = subprocess.call([str(python), "-m", "pytest", *words], env=env, cwd=EXTENSION_ROOT)
    if status == _NO_TESTS:
        print("pytest collected no test: the words after --test fit none, or tests/ is incomplete", file=sys.stderr)
    return status
