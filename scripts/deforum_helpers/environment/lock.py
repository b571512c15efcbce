"""One builder at a time.

The operating system holds the lock, so that it ends with the process whatever ends that; the file's text only says
who holds it.  pip inherits it: a pip that outlives a killed builder keeps the next one waiting instead of meeting it
in the same folder.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import SetupError

_FAR_BYTE = 1 << 30  # Windows keeps others from reading a locked byte: lock one behind the text


@contextlib.contextmanager
def build_lock(
    file: Path, report: Callable[[str], None], *, wait: bool = True, poll_seconds: float = 0.5
) -> Iterator[int]:
    """Hold the lock while the body runs; yields its descriptor, for children to inherit.

    wait: wait for another holder, saying so once; otherwise raise SetupError.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        told = False
        while not _try_lock(descriptor):
            holder = _holder(file)
            if not wait:
                raise SetupError(
                    f"another set-up is at work in {file.parent}", got=holder, next_step="wait until it has ended"
                )
            if not told:
                report(f"another set-up is at work here ({holder}): waiting for it to end")
                told = True
            time.sleep(poll_seconds)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} since {time.strftime('%H:%M:%S')}\n".encode())
        yield descriptor
    finally:
        os.close(descriptor)  # gives the lock back


def _holder(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8").strip() or "just started"
    return "unknown"


if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise SetupError(
                "this folder's file system has no locks, which keep two set-ups apart", got=str(error),
                next_step="set DEFORUM_WAN_ENV to a folder on a local disk",
            ) from error
        return True
