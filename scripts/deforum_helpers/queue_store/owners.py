"""Which process runs a job, and whether that process still lives.

On this machine the operating system knows: a process is its pid and the moment it started, so a pid that was given
to another process, or outlived by a reboot, isn't mistaken for it.  A process elsewhere (another machine, another
container on the same folder) is judged by its heartbeat alone, timed by our own clock: clocks that disagree, or a
laptop that slept, prove nothing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

LEASE_SECONDS = 60.0  # a heartbeat that stood still this long is a death; the runner beats every few seconds


@dataclass(frozen=True)
class Owner:
    """A process.  machine: host and process namespace; started: when, in a form that no later process repeats."""

    machine: str
    pid: int
    started: str

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Owner | None:
        """None for what is no owner."""
        try:
            raw = json.loads(text)
            return cls(str(raw["machine"]), int(raw["pid"]), str(raw["started"]))
        except (ValueError, TypeError, KeyError):
            return None


def this_process() -> Owner:
    pid = os.getpid()
    return Owner(machine_name(), pid, start_of_process(pid) or "")


@lru_cache(maxsize=1)
def machine_name() -> str:
    """Equal for two processes only if one can look up the other's pid."""
    parts = [platform.node()]
    for read in (
        lambda: Path("/etc/machine-id").read_text().strip()[:12],
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux, or a container that hides it
            parts.append("")
    return "/".join(parts)


class Witness:
    """Tells the living from the dead.  Keeps when it last saw a foreign heartbeat move.

    start_of: pid -> start of that process, "" if there is none, None if it can't be told.
    """

    def __init__(
        self,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        start_of: Callable[[int], str | None] | None = None,
    ) -> None:
        self._lease, self._clock = lease_seconds, clock
        self._start_of = start_of or start_of_process
        self._seen: dict[str, tuple[float, float]] = {}

    def lives(self, owner: Owner | None, claim: str, heartbeat: float) -> bool:
        """claim: names this run of the job, heartbeat: its latest value."""
        if owner is not None and owner.machine == machine_name():
            started = self._start_of(owner.pid)
            if started is not None and (started == "" or owner.started != ""):
                return started == owner.started != ""
        now = self._clock()
        last, since = self._seen.get(claim, (heartbeat, now))
        since = since if heartbeat == last else now
        self._seen[claim] = heartbeat, since
        return now - since < self._lease

    def forget_all_but(self, claims: set[str]) -> None:
        self._seen = {claim: seen for claim, seen in self._seen.items() if claim in claims}


def start_of_process(pid: int) -> str | None:
    """When `pid` started; "" if no such process lives, None if the system won't say."""
    if sys.platform == "win32":
        return _start_on_windows(pid)
    if Path("/proc/self/stat").exists():
        return _start_on_linux(pid)
    return _start_by_ps(pid)


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_on_linux(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets before may hold anything
    if fields[0] in ("Z", "X"):  # ended, and only not yet fetched by its parent
        return ""
    return f"{_boot()}:{fields[19]}"  # ticks since that boot


def _start_by_ps(pid: int) -> str | None:
    try:
        done = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
            capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},  # a machine that travels is in another zone tomorrow
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, started = done.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else " ".join(started.split())


def _start_on_windows(pid: int) -> str | None:
    import ctypes
    from ctypes import wintypes

    query_limited_information, still_active, invalid_parameter = 0x1000, 259, 87
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    kernel.GetExitCodeProcess.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
    kernel.GetProcessTimes.argtypes = (wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4)
    process = kernel.OpenProcess(query_limited_information, False, pid)
    if not process:
        return "" if ctypes.get_last_error() == invalid_parameter else None  # type: ignore[attr-defined]
    try:
        exit_code = wintypes.DWORD()
        created, ended, in_kernel, in_user = (wintypes.FILETIME() for _ in range(4))
        told = kernel.GetExitCodeProcess(process, ctypes.byref(exit_code)) and kernel.GetProcessTimes(
            process, *(ctypes.byref(moment) for moment in (created, ended, in_kernel, in_user))
        )
        if not told:
            return None
        if exit_code.value != still_active:
            return ""
        return str(created.dwHighDateTime << 32 | created.dwLowDateTime)
    finally:
        kernel.CloseHandle(process)
