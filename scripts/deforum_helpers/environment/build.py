"""Builds the isolated environment: a virtual environment, torch, the pinned packages, a check, the stamp.

Every step may be repeated: what is already there is left alone, so a build that broke off is gone on with by the same
call.  Nothing is installed into the interpreter that runs this.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SetupError
from ..wan_isolated_env import (
    CONSTRAINTS,
    EXTENSION_ROOT,
    REQUIREMENTS,
    STAMP_NAME,
    Layer,
    check,
    clean_environment,
    environment_root,
    fingerprint,
    probe_python,
    read_stamp,
    venv_python,
    worker_environment,
    write_stamp,
)
from .faults import fault_from_oserror, fault_from_output
from .lock import build_lock
from .packages import (
    OLDEST_TORCH,
    PIP,
    PipProgress,
    forget_broken_packages,
    install_words,
    nvidia_driver,
    pip_environment,
    split_torch,
    too_old_torch,
    torch_install_plan,
    torch_wish,
)
from .venv import Run, choose_interpreter, create_venv, is_usable_venv, run_command

_OURS = ("venv", STAMP_NAME, "build.lock", "build.log")
_LEAST_FREE = 3_000_000_000  # the smallest build, without CUDA, with room to unpack it
_TAIL_LINES = 400

_TORCH_VERSION = "import importlib.metadata as m; print(m.version('torch'))"
_VERIFY = """\
import json, torch
import einops, ftfy, gguf, gradio, imageio_ffmpeg, numpy, PIL.Image, safetensors.torch, sentencepiece, transformers
assert (torch.ones(2) + 1).numpy().sum() == 4
imageio_ffmpeg.get_ffmpeg_exe()
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
print(json.dumps({"torch": torch.__version__, "gpu": gpu}))
"""


@dataclass(frozen=True)
class _Job:
    """One run of the builder.  folder: where the requirements are.  report: gets a line at a time."""

    root: Path
    folder: Path
    env: Mapping[str, str]
    report: Callable[[str], None]
    run: Run

    @property
    def python(self) -> Path:
        return venv_python(self.root / "venv")

    @property
    def log(self) -> Path:
        return self.root / "build.log"

    def do(
        self, step: str, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None] | None = None
    ) -> list[str]:
        """Run one command, every line of it into the log.  Returns its last lines.  Raises SetupError if it fails."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")

            def hear(line: str) -> None:
                if not line.startswith("Progress "):
                    log.write(f"{line}\n")
                    tail.append(line)
                if on_line is not None:
                    on_line(line)

            code = self.run(command, env, hear)
        if code:
            raise fault_from_output(step, tail, code, self.log)
        return list(tail)

    def pip(self, step: str, words: Sequence[str]) -> None:
        """Run `python -m ...` of the environment as pip wants it."""
        env = pip_environment(clean_environment(self.env))
        self.do(step, [str(self.python), "-m", *words], env, PipProgress(self.report))


def build(
    root: Path | str | None = None,
    layers: Sequence[Layer] = ("render",),
    *,
    report: Callable[[str], None] = print,
    repair: bool = False,
    wait: bool = True,
    env: Mapping[str, str] = os.environ,
    run: Run | None = None,
    folder: Path = EXTENSION_ROOT,
) -> Path:
    """Make the environment ready and return its interpreter; at once if it is ready.

    layers: "render" for users, and "test" for those who run the tests.  report: gets progress a line at a time; what
    it raises stops the build.  repair: look through every installed file, mend or rebuild.  wait: for another builder.
    run: starts a process (tests hand in their own).  Raises SetupError.
    """
    root = environment_root(root, env)
    layers = ("render", *(layer for layer in layers if layer != "render"))
    if not repair and _all_ready(root, layers, env, folder):
        return venv_python(root / "venv")
    _make_folder(root)
    try:
        with build_lock(root / "build.lock", report, wait=wait) as lock:
            if repair or not _all_ready(root, layers, env, folder):  # the one we waited for may have built it
                job = _Job(root, folder, env, report, run or _runner_in(root, lock))
                _build_layers(job, layers, repair)
    except OSError as error:
        raise fault_from_oserror("setting up the environment", error, root / "build.log") from error
    return venv_python(root / "venv")


def _runner_in(root: Path, lock: int) -> Run:
    """Processes start in our folder, where nothing poses as a module, and hold the builder's lock while they live."""
    return lambda command, env, on_line: run_command(command, env, on_line, folder=root, keep_open=(lock,))


def _all_ready(root: Path, layers: Sequence[Layer], env: Mapping[str, str], folder: Path) -> bool:
    wish = torch_wish(env)
    return all(check(root, layer, torch_wish=wish, folder=folder).ready for layer in layers)


def _make_folder(root: Path) -> None:
    """A mistyped DEFORUM_WAN_ENV must not turn somebody's folder into an environment."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in root.iterdir()}
        if not names or names & set(_OURS):
            (root / "build.log").open("a").close()
            return
    except OSError as error:
        raise SetupError(
            "the environment's folder can't be made or written", got=str(error),
            next_step="give yourself the right to, or set DEFORUM_WAN_ENV to a folder where you have it",
        ) from error
    raise SetupError(
        "the environment's folder holds other files", got=str(root), allowed="an empty or a new folder",
        next_step="set DEFORUM_WAN_ENV to one",
    )


def _build_layers(job: _Job, layers: Sequence[Layer], repair: bool) -> None:
    """All of a build: the steps that are due, the check, the stamp."""
    started = time.monotonic()
    job.log.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {platform.platform()}\n", encoding="utf-8")
    wish = torch_wish(job.env)
    choice = wish or "the default"
    due = list(layers)
    if not repair and check(job.root, "render", torch_wish=wish, folder=job.folder).ready:
        due.remove("render")  # the test tools leave what is below them alone, so the stamp may stand meanwhile
        choice = read_stamp(job.root)["torch_choice"]
    else:
        (job.root / STAMP_NAME).unlink(missing_ok=True)  # from here to the end the environment counts as broken off

    _run_steps(job, due, thorough=repair)
    try:
        torch = _verify(job)
    except SetupError as error:
        if not repair:
            raise
        job.report(f"  mending was not enough ({error}): building from scratch")
        shutil.rmtree(job.root / "venv")
        _run_steps(job, due)
        torch = _verify(job)

    version = probe_python(job.python)
    write_stamp(job.root, {layer: fingerprint(layer, version, job.folder) for layer in layers}, version, torch, choice)
    job.report(f"ready after {time.monotonic() - started:.0f} s: {job.python}")


def _run_steps(job: _Job, due: Sequence[Layer], *, thorough: bool = False) -> None:
    steps: list[tuple[str, Callable[[], None]]] = []
    if "render" in due:
        steps += [
            ("virtual environment", lambda: _ensure_venv(job, thorough=thorough)),
            ("pip", lambda: _upgrade_pip(job)),
            ("torch", lambda: _install_torch(job)),
            ("packages", lambda: _install_layer(job, "render")),
        ]
    if "test" in due:
        steps.append(("test tools", lambda: _install_layer(job, "test")))
    for number, (title, do) in enumerate(steps, 1):
        job.report(f"[{number}/{len(steps) + 1}] {title}")
        do()
    job.report(f"[{len(steps) + 1}/{len(steps) + 1}] check")


def _ensure_venv(job: _Job, *, thorough: bool = False) -> None:
    venv = job.root / "venv"
    if not is_usable_venv(venv, job.env, job.run):
        _ensure_room(job.root)
        create_venv(venv, choose_interpreter(job.env), job.env, job.run, job.report, job.log)
        return
    for site_packages in (*venv.glob("lib/python*/site-packages"), *venv.glob("Lib/site-packages")):
        if broken := forget_broken_packages(site_packages, thorough=thorough):
            job.report(f"  incomplete, to be installed again: {', '.join(broken)}")


def _ensure_room(root: Path) -> None:
    free = shutil.disk_usage(root).free
    if free < _LEAST_FREE:
        raise SetupError(
            "the disk has too little room", got=f"{free / 1e9:.1f} GB free in {root}",
            allowed=f"{_LEAST_FREE / 1e9:.0f} GB, about 10 GB with CUDA",
            next_step="make room or set DEFORUM_WAN_ENV to a folder on another disk",
        )


def _upgrade_pip(job: _Job) -> None:
    # Not through install_words: the pip that comes with Python 3.10 doesn't know all of its options.
    index = job.env.get("INDEX_URL", "").strip()
    words = ["pip", "install", "--progress-bar", "off", PIP, *(["--index-url", index] if index else [])]
    job.pip("installing pip", words)


def _install_torch(job: _Job) -> None:
    pin, _ = split_torch((job.folder / REQUIREMENTS["render"]).read_text(encoding="utf-8"))
    driver = nvidia_driver()
    plan = torch_install_plan(platform.system(), driver, job.env, pin)
    installed = any((job.root / "venv").glob("lib/python*/site-packages/torch-*.dist-info"))
    if plan == ["pip", "install", pin] and driver is None and platform.system() == "Linux" and not installed:
        job.report(
            "  no NVIDIA GPU found: should this fetch gigabytes of CUDA, stop it and set"
            " TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"
        )
    if not job.env.get("TORCH_COMMAND", "").strip():
        plan += ["--progress-bar", "raw", "-c", str(job.folder / CONSTRAINTS)]
    job.pip("installing torch", plan)
    version = _told(job, "reading torch's version", _TORCH_VERSION)
    if too_old_torch(version):
        raise SetupError(
            "this torch is too old", got=version, allowed=f"{OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer",
            next_step="unset TORCH_COMMAND or have it install a newer one, and run the same command again",
        )


def _install_layer(job: _Job, layer: Layer) -> None:
    torch = _told(job, "reading torch's version", _TORCH_VERSION)
    file = job.folder / REQUIREMENTS[layer]
    if layer == "render":
        _, rest = split_torch(file.read_text(encoding="utf-8"))
        file = job.root / "requirements.txt"  # without torch, which TORCH_COMMAND may have chosen otherwise
        file.write_text(rest, encoding="utf-8")
    words = install_words(job.env, f"torch=={torch}", "-r", str(file), "-c", str(job.folder / CONSTRAINTS))
    job.pip(f"installing what {REQUIREMENTS[layer]} names", words)


def _told(job: _Job, step: str, code: str) -> str:
    """The last line that a piece of Python prints in the environment."""
    lines = job.do(step, [str(job.python), "-c", code], worker_environment(job.env))
    return lines[-1].strip() if lines else ""


def _verify(job: _Job) -> str:
    """Import everything, add two numbers on torch, find ffmpeg, have pip compare versions.  Returns torch's version."""
    try:
        told = json.loads(_told(job, "checking the packages", _VERIFY))
    except ValueError as error:
        raise SetupError("the packages' check gave no answer", next_step=f"see the log {job.log}") from error
    if not torch_wish(job.env):  # a hand-made torch may bring companions of which we know nothing
        job.do("comparing the packages' versions", [str(job.python), "-m", "pip", "check"], clean_environment(job.env))
    if nvidia_driver() is not None and not told["gpu"]:
        job.report(
            f"  torch {told['torch']} can't use the NVIDIA GPU: update its driver, or set TORCH_INDEX_URL"
            " to an older CUDA and run this again; until then renders run on the CPU"
        )
    else:
        job.report(f"  torch {told['torch']} on {told['gpu'] or 'the CPU'}")
    return told["torch"]
