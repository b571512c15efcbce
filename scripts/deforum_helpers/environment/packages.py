"""What is asked of pip: which build of torch, which words, and whether what it installed is whole."""

from __future__ import annotations

import base64
import csv
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import SetupError
from ..hashing import hash_file

PIP = "pip==26.2.1"  # continues broken downloads (25.1) and tells its progress in plain lines (24.1)
OLDEST_TORCH = (2, 6)  # what the pinned transformers still works with

# CUDA 13 needs this driver; its builds also leave out the GPUs before Turing.  CUDA 12.6 runs on what came before.
_DRIVER_OF_CUDA13 = 580
_INDEX = "https://download.pytorch.org/whl/"

# Settings of pip that would put the packages somewhere else, or nowhere.
_MISLEADING = ("TARGET", "PREFIX", "ROOT", "USER", "PYTHON", "REQUIRE_VIRTUALENV", "DRY_RUN", "NO_DEPS", "QUIET")

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_DULL = (
    "Requirement already", "Processing ", "Using cached", "Collecting ", "WARNING: Location", "Looking in ",
    "Ignoring ", "Attempting uninstall", "Found existing", "Uninstalling ", "Successfully ",
)  # fmt: skip


def torch_install_plan(system: str, driver: int | None, env: Mapping[str, str], pin: str) -> list[str]:
    """Decide how torch is installed: the words behind `python -m`.

    system: platform.system().  driver: the NVIDIA driver's major number, None without such a GPU.
    pin: "torch==2.13.0".  TORCH_COMMAND is taken whole, TORCH_INDEX_URL is an extra index for the pinned version:
    the meaning that A1111's launcher gives them.  On its own: PyPI's build, which brings CUDA on Linux and none on
    Windows, so that Windows with an NVIDIA GPU needs PyTorch's index; so does any system with an older driver.
    """
    if command := env.get("TORCH_COMMAND", "").strip():
        return _words(command, system)
    plan = ["pip", "install", pin]
    if index := env.get("TORCH_INDEX_URL", "").strip():
        return [*plan, "--extra-index-url", index]
    if driver is not None and system in ("Windows", "Linux"):
        if driver < _DRIVER_OF_CUDA13:
            return [*plan, "--extra-index-url", f"{_INDEX}cu126"]
        if system == "Windows":
            return [*plan, "--extra-index-url", f"{_INDEX}cu130"]
    return plan


def torch_wish(env: Mapping[str, str]) -> str:
    """The choice of torch that a person made by hand, as the stamp records it; "" = none."""
    for name in ("TORCH_COMMAND", "TORCH_INDEX_URL"):
        if value := env.get(name, "").strip():
            return f"{name}={value}"
    return ""


def _words(command: str, system: str) -> list[str]:
    if system != "Windows":
        return shlex.split(command)
    # Backslashes are parts of paths there, so the quotes have to come off by hand.
    return [word.strip("\"'") for word in shlex.split(command, posix=False)]


def nvidia_driver() -> int | None:
    """The major number of the NVIDIA driver, None if nvidia-smi is missing or finds no GPU."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return None
    try:
        told = subprocess.run(
            [tool, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.match(r"\s*(\d+)\.", told.stdout)
    return int(number[1]) if told.returncode == 0 and number else None


def pip_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables for pip: mirrors, proxies and caches stay, what would misplace the packages goes."""
    dropped = {f"PIP_{name}" for name in _MISLEADING}
    kept = {name: value for name, value in env.items() if name.upper() not in dropped}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_NO_COLOR": "1"}


def install_words(env: Mapping[str, str], *what: str) -> list[str]:
    """`pip install` of ours: ready-made files preferred, INDEX_URL in place of PyPI as A1111's launcher has it."""
    index = env.get("INDEX_URL", "").strip()
    mirror = ["--index-url", index] if index else []
    return ["pip", "install", "--prefer-binary", "--progress-bar", "raw", *what, *mirror]


def split_torch(requirements: str) -> tuple[str, str]:
    """Part a requirements file's text into its torch line and the rest."""
    lines = requirements.splitlines()
    pins = [line.strip() for line in lines if re.match(r"torch\s*[=<>~!]", line)]
    if len(pins) != 1:
        raise SetupError("requirements.txt must have one line for torch", got=pins, next_step="restore the file")
    return pins[0], "\n".join(line for line in lines if line.strip() != pins[0]) + "\n"


def too_old_torch(version: str) -> bool:
    number = re.match(r"(\d+)\.(\d+)", version)
    return not number or (int(number[1]), int(number[2])) < OLDEST_TORCH


class PipProgress:
    """Turns pip's lines into the few that a person wants to see; hand it to a command as its line callback.

    report: gets the lines.  seconds: the least time between two lines about one download.
    """

    def __init__(self, report: Callable[[str], None], seconds: float = 3.0) -> None:
        self._report, self._seconds, self._next, self._name = report, seconds, 0.0, "download"

    def __call__(self, line: str) -> None:
        line = line.strip()
        if found := _PROGRESS.match(line):
            self._tell_progress(int(found[1]), int(found[2]))
        elif line.startswith("Downloading "):
            self._name = line.split()[1].rsplit("/", 1)[-1].split("-")[0]
            self._next = time.monotonic() + self._seconds  # small files are through before a line about them is due
        elif line.startswith("Installing collected packages"):
            self._report(f"  unpacking: {line.partition(': ')[2]}")
        elif line and not line.startswith(_DULL):
            self._report(f"  {line}")

    def _tell_progress(self, done: int, whole: int) -> None:
        if whole and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            self._report(f"  {self._name}: {done / 1e6:.0f} of {whole / 1e6:.0f} MB ({100 * done // whole} %)")


def forget_broken_packages(site_packages: Path, *, thorough: bool = False) -> list[str]:
    """Find what a broken-off pip left half-installed and drop its records, so that pip installs it anew.

    A package counts as whole if every file in its RECORD has the size given there, and, if thorough, the content.
    Returns the names of the others.
    """
    for leftover in site_packages.glob("~*"):  # where pip moves a package that it is about to replace
        shutil.rmtree(leftover, ignore_errors=True)
    broken = []
    for info in sorted(site_packages.glob("*.dist-info")):
        if not _is_whole(info, thorough):
            broken.append(info.name.split("-")[0])
            shutil.rmtree(info)
    return broken


def _is_whole(info: Path, thorough: bool) -> bool:
    try:
        with (info / "RECORD").open(newline="", encoding="utf-8") as record:
            rows = list(csv.reader(record))
        for name, digest, size in rows:
            file = info.parent / name
            if size and file.stat().st_size != int(size):
                return False
            if thorough and digest.startswith("sha256=") and _sha256(file) != digest.removeprefix("sha256="):
                return False
    except (OSError, ValueError):
        return False
    return True


def _sha256(file: Path) -> str:
    """A file's digest in the spelling of RECORD: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hash_file(file).digest()).rstrip(b"=").decode()
