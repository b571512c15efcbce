"""--deforum-run-now: settings files to render as soon as the WebUI is up, and perhaps to leave afterwards."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DeforumWanError, InputError
from ..job_queue import NewJob, new_batch
from ..settings import load_settings
from . import host
from .service import Service

log = logging.getLogger(__name__)

_ORIGINAL = ("deforum_api_models", "deforum_extend_paths", "deforum_helpers.run_deforum", "deforum_helpers.args")
_RUN_FLAG = "--deforum-run-now"
_POLL_SECONDS = 0.5
_begun = threading.Event()  # "Reload UI" asks again, and must not render everything once more


def original_is_here() -> bool:
    """Whether the original Deforum is installed beside us: its modules are loaded under their bare names."""
    return any(
        name in sys.modules for name in ("deforum_api_models", "deforum_helpers.run_deforum", "deforum_extend_paths")
    )


def files_to_run() -> list[str]:
    """The settings files that the command line names for us.

    Where the original is here too, the plain flag is its own, and only ours with the tail is meant for us.
    """
    named = str(host.flag("deforum_run_now", "") or "")
    if original_is_here() and not any(word.startswith(f"{_RUN_FLAG}-wan") for word in sys.argv):
        return []
    return [part.strip() for part in named.split(",") if part.strip()]


def start(service: Service, files: list[str], *, leave: bool, end: Callable[[int], None] = os._exit) -> None:
    """Queue the files before all others, and wait for them in a thread if the process is to end with them.

    end: called with the exit status: 0 when all are done, else 1; 2 where a file can't be read.
    """
    if _begun.is_set():
        return
    _begun.set()
    try:
        jobs = [NewJob(load_settings(file)[0], Path(file).stem, f"run-now {new_batch()}") for file in files]
        ids = [job.id for job in service.queue.add_many(jobs, first=True)]
        service.queue.resume()
    except InputError as error:
        log.error("Deforum Wan: %s", error.one_line())
        if leave:
            end(error.exit_code)
        return
    log.info("Deforum Wan: rendering %d settings files", len(ids))
    if leave:
        threading.Thread(target=_wait, args=(service, ids, end), name="deforum-wan-run-now", daemon=True).start()


def _wait(service: Service, ids: list[int], end: Callable[[int], None]) -> None:
    states = {}
    while len(states) < len(ids):
        time.sleep(_POLL_SECONDS)
        for job_id in ids:
            try:
                job = service.queue.job(job_id)
            except DeforumWanError:  # deleted by somebody
                states[job_id] = "deleted"
                continue
            if job.state in ("done", "failed", "cancelled", "interrupted"):
                states[job_id] = job.state
            else:
                states.pop(job_id, None)
    service.close(10)
    end(0 if set(states.values()) <= {"done"} else 1)
