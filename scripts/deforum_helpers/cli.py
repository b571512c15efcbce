"""The command line: render, plan, check-model, serve.

Results go to stdout, everything else to stderr.  Exit status: 0; 2 bad input; 3 environment or model; 4 a render
failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from .errors import DeforumWanError, RenderCancelled, SetupError
from .wan_isolated_env import EXTENSION_ROOT, find_isolated_python, worker_environment

ENTRY = EXTENSION_ROOT / "scripts" / "deforum_wan.py"
DEFAULT_OUT = EXTENSION_ROOT / "outputs"
_TAB = f"{__package__}.web.serve"
_PACKAGES = ("numpy", "PIL")  # of an interpreter that renders, plans or checks; torch is the worker's alone
_IN_ISOLATION = "DEFORUM_WAN_RESTARTED"  # set for the second start, so that there is no third


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.  Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    _speak_utf8()
    arguments = _parser().parse_args(words)
    try:
        if not all(importlib.util.find_spec(name) for name in arguments.packages):
            return _run_in_isolation(words)
        return arguments.run(arguments)
    except (DeforumWanError, KeyboardInterrupt) as error:
        return _report(error, arguments.debug)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a bug of ours: said in one line as well, whole with --debug
        return _report(error, arguments.debug)


def _report(error: BaseException, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, DeforumWanError):
        print(f"error: {error.one_line()}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("error: interrupted", file=sys.stderr)
        return RenderCancelled.exit_code
    words = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"error: unexpected, a fault of this program: {words}; --debug shows where", file=sys.stderr)
    return DeforumWanError.exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage block."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="deforum_wan.py", description="Prompt schedules in, exactly timed Wan 2.1 video out.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    render = commands.add_parser("render", help="render settings files, one video each; prints the video's path")
    _settings_arguments(render)
    render.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="default: %(default)s")
    render.add_argument("--resume", action="store_true", help="go on with the newest unfinished job of these settings")
    render.add_argument("--resume-job", metavar="TIMESTRING", help="go on with this job instead of the newest")
    render.add_argument("--quiet", action="store_true", help="no progress, only errors and the result")
    render.set_defaults(run=_render)

    plan = commands.add_parser("plan", help="show the clips of a settings file without rendering")
    _settings_arguments(plan)
    plan.add_argument("--json", action="store_true", help="one JSON object, with the value of every schedule per frame")
    plan.set_defaults(run=_plan)

    check = commands.add_parser("check-model", help="say what a model folder holds and whether it is whole")
    check.add_argument("folder", type=Path, metavar="DIR")
    check.add_argument("--hashes", action="store_true", help="read every file whole and compare its sha256")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check_model)

    if importlib.util.find_spec(_TAB):
        serve = commands.add_parser("serve", help="the tab and the API without a WebUI, in a browser")
        serve.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine alone")
        serve.add_argument("--listen", action="store_true", help="serve to the whole network, as --host 0.0.0.0")
        serve.add_argument("--port", type=int, default=7860, help="default: %(default)s")
        serve.add_argument("--allow-host", action="append", metavar="NAME", help="a further name of this machine")
        serve.add_argument("--auth", action="append", metavar="USER:PASSWORD", help="ask for a password")
        serve.set_defaults(run=_serve, packages=(*_PACKAGES, "fastapi", "gradio", "uvicorn"))
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where in the program an error came from")
        if command.get_default("packages") is None:
            command.set_defaults(packages=_PACKAGES)
    return parser


def _settings_arguments(command: argparse.ArgumentParser) -> None:
    several = command.prog.endswith(" render")
    command.add_argument("settings", type=Path, nargs="+" if several else None, metavar="SETTINGS.txt")
    command.add_argument("--model", metavar="DIR", help="folder or name of the model; default: the settings' own")
    command.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="change one setting"
    )


def _render(arguments: argparse.Namespace) -> int:
    from . import cli_render

    stop = StopSignal()
    with stop.listening():
        return cli_render.render_files(arguments, stop)


def _plan(arguments: argparse.Namespace) -> int:
    from . import cli_plan

    return cli_plan.show_plan(arguments)


def _check_model(arguments: argparse.Namespace) -> int:
    from . import cli_plan

    return cli_plan.check_model(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    return importlib.import_module(_TAB).serve_command(arguments)


class StopSignal:
    """Ctrl-C and the system's request to end: the first sets `cancel`, the second calls `at_second` and leaves."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.at_second = lambda: None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over while the body runs."""
        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, self._heard) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: object) -> None:
        if self.cancel.is_set():
            self.at_second()
            os.write(2, b"\nerror: interrupted; --resume goes on with this job\n")
            os._exit(RenderCancelled.exit_code)
        self.cancel.set()
        os.write(2, b"\nstopping after this step and keeping what is finished; once more to leave at once\n")


def _run_in_isolation(words: list[str]) -> int:
    """Start again under the isolated interpreter, for one that lacks the packages."""
    if os.environ.get(_IN_ISOLATION):
        raise SetupError("the isolated environment is broken", got=sys.executable, next_step="run: python install.py")
    command = [str(find_isolated_python()), str(ENTRY), *words]
    environment = {**worker_environment(), _IN_ISOLATION: "1"}
    if os.name != "nt":
        os.execve(command[0], command, environment)
    # Windows would give the console back before a replaced process has ended; Ctrl-C reaches the child by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.call(command, env=environment)


def _speak_utf8() -> None:
    """A console of Windows may be cp1252, where a prompt in another script would end the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


