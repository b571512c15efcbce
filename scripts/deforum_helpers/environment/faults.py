"""From what pip said to one line that tells a person what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SetupError

_RUN_AGAIN = "then run the same command again, it goes on from here"
_NO_INDEX = (
    "the package index can't be reached",
    f"check the network, or set HTTPS_PROXY or INDEX_URL (a mirror), {_RUN_AGAIN}",
)


@dataclass(frozen=True)
class _Fault:
    """signs: any of these in the output means this fault.  what, next_step: how it is told."""

    signs: str
    what: str
    next_step: str


# The first that fits is told.  A full disk also breaks downloads and a dead network also finds no versions, so the
# order goes from cause to consequence; the first four are the machine's, whatever was being done.
_MACHINE_FAULTS = 4
_FAULTS = (
    _Fault(
        r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b|WinError 112\b|not enough space on the",
        "the disk is full",
        "make room, or set DEFORUM_WAN_ENV to a folder on another disk (TMPDIR and PIP_CACHE_DIR move pip's own files),"
        f" {_RUN_AGAIN}",
    ),
    _Fault(
        r"Long Path support|WinError 206\b|File ?name too long|Errno 36\b",
        "a path in the environment is too long for this system",
        "set DEFORUM_WAN_ENV to a short folder such as C:\\wan, and run the same command again",
    ),
    _Fault(
        r"WinError 32\b|WinError 5\b|being used by another process",
        "a file of the environment is in use",
        f"close the WebUI and every render, {_RUN_AGAIN}",
    ),
    _Fault(
        r"Permission denied|Errno 13\b|Read-only file system|Errno 30\b|Operation not permitted",
        "the environment's folder can't be written",
        f"give yourself the right to write there or set DEFORUM_WAN_ENV to another folder, {_RUN_AGAIN}",
    ),
    _Fault(
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification",
        "the package index's certificate was refused",
        f"check this machine's clock; behind a proxy set PIP_CERT to its certificate, {_RUN_AGAIN}",
    ),
    _Fault(r"Retry\(total=0,", *_NO_INDEX),  # pip gave up on a page; what it then finds impossible is no conflict
    _Fault(
        r"conflicting dependencies|which is incompatible|has requirement .* but you have",
        "packages contradict each other",
        "unset TORCH_COMMAND and PIP_CONSTRAINT if they are set, and run: python install.py --repair",
    ),
    _Fault(
        r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|Max retries exceeded|Name or service not known"
        r"|Temporary failure in name resolution|getaddrinfo failed|Network is unreachable|Connection refused|ProxyError"
        r"|Connection aborted|Connection reset|Connection broken|IncompleteRead|IncompleteDownload|incomplete-download",
        *_NO_INDEX,
    ),
    _Fault(
        r"No matching distribution found|Could not find a version that satisfies",
        "the index has no file of a package for this Python and system",
        "use a 64-bit Python 3.10 to 3.13 (DEFORUM_WAN_PYTHON names one), or unset INDEX_URL and TORCH_INDEX_URL",
    ),
    _Fault(
        r"THESE PACKAGES DO NOT MATCH THE HASHES|Hash mismatch|BadZipFile|Wheel .* is invalid|Bad CRC",
        "a downloaded file arrived damaged",
        "run: python -m pip cache purge, and the same command again",
    ),
    _Fault(
        r"Failed building wheel|subprocess-exited-with-error|error: command .* failed|Microsoft Visual C\+\+",
        "a package has no ready-made file here and can't be compiled",
        "use a 64-bit Python 3.10 to 3.13 (DEFORUM_WAN_PYTHON names one)",
    ),
    _Fault(
        r"DLL load failed|WinError 126\b|WinError 1114\b",
        "a library of Windows is missing",
        "install the Microsoft Visual C++ Redistributable (x64), and run the same command again",
    ),
    _Fault(
        r"GLIBC\w*_[\d.]+' not found|cannot open shared object file",
        "a library of this system is missing or too old",
        "install the one named here, or use a newer system, and run the same command again",
    ),
    _Fault(
        r"signal 4\b",
        "this processor lacks instructions that torch needs",
        "set TORCH_COMMAND to install an older torch, and run: python install.py --repair",
    ),
    _Fault(
        r"MemoryError|Cannot allocate memory|Errno 12\b|signal 9\b",
        "memory ran out",
        f"close other programs, {_RUN_AGAIN}",
    ),
)


def fault_from_output(step: str, output: Sequence[str], returncode: int, log: Path) -> SetupError:
    """Word the failure of a step.  output: its last lines.  log: where all of them are."""
    text = "\n".join(output) + (f"\nsignal {-returncode}" if returncode < 0 else "")
    for fault in _FAULTS:
        if re.search(fault.signs, text, re.IGNORECASE):
            said = _telling_line(output, fault.signs)
            return SetupError(f"{fault.what} ({step})", got=said, next_step=f"{fault.next_step}; log: {log}")
    said = _telling_line(output, r"^\s*(error|fatal)\b") or f"exit code {returncode}"
    return SetupError(f"{step} failed", got=said, next_step=f"see {log}, then run: python install.py --repair")


def machine_fault(step: str, output: Sequence[str], log: Path) -> SetupError | None:
    """Word a failure that no other way of doing the same would avoid; None if it isn't one."""
    text = "\n".join(output)
    if any(re.search(fault.signs, text, re.IGNORECASE) for fault in _FAULTS[:_MACHINE_FAULTS]):
        return fault_from_output(step, output, 1, log)
    return None


def fault_from_oserror(step: str, error: OSError, log: Path) -> SetupError:
    """Word an operating-system error of our own file work in the same way."""
    return fault_from_output(step, [f"{type(error).__name__}: {error}"], 1, log)


def _telling_line(output: Sequence[str], signs: str) -> str | None:
    """The last line that shows the fault; pip repeats its retries, and the last one is the verdict."""
    fitting = [line.strip() for line in output if re.search(signs, line, re.IGNORECASE)]
    return fitting[-1] if fitting else (output[-1].strip() if output else None)
