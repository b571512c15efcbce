"""The worker's stderr: a log file that can't grow without end, and its last lines for an error message."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

_LARGEST_BYTES = 1_000_000
_TAIL_LINES = 40


class WorkerLog:
    """Keeps what a worker writes to stderr in `path`, the part before the last million bytes in `path`.1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._written = threading.Lock()
        self._reader: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        """Take over the stderr of a process that was just started."""
        self._tail.clear()
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()

    def add(self, text: str) -> None:
        """Append text to the file and the tail.  A full disk must not end a render, so a failed write is let go."""
        lines = text.splitlines()
        self._tail.extend(line for line in lines if line.strip())
        with self._written, contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > _LARGEST_BYTES:
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def tail(self) -> str:
        return "\n".join(self._tail)

    def last_line(self) -> str:
        """The last thing that the worker said: for a traceback, its last line, which names the error."""
        return self._tail[-1].strip() if self._tail else "nothing"

    def drain(self) -> None:
        """Wait a moment for the last words of a process that has ended."""
        if self._reader is not None:
            self._reader.join(1.0)

    def _read(self, pipe: BinaryIO) -> None:
        with pipe:
            pending = b""
            while chunk := pipe.read(8192):
                *lines, pending = (pending + chunk).split(b"\n")
                if lines:
                    self.add(b"\n".join(lines).decode("utf-8", "replace"))
            if pending:
                self.add(pending.decode("utf-8", "replace"))
