"""Deforum's own API on our queue, in its shapes, so that what was written for it goes on working.

    POST   /deforum_api/batches       {"deforum_settings": {..} or [{..}, ..], "options_overrides": {..}} -> 202
                                      {"message", "batch_id", "job_ids", "notes"}
    GET    /deforum_api/batches       {batch_id: [job_id, ..]}
    GET    /deforum_api/batches/{id}  [status, ..]            DELETE: cancel all of them
    GET    /deforum_api/jobs          {job_id: status}
    GET    /deforum_api/jobs/{id}     status                  DELETE: cancel it

Unlike the original's, jobs survive a restart, a waiting one can be cancelled, and settings that can't be rendered are
refused at once (422, with the field).  Where the original is installed too, it keeps the name: ours is then under
/deforum_wan_api.
"""

from __future__ import annotations

from typing import Any

from ..errors import Conflict, NotFound, SettingsError
from ..job_queue import Job, Search, new_batch
from .routes import Call, Reply, Route

PREFIX, OTHER_PREFIX = "/deforum_api", "/deforum_wan_api"
_MOST_LISTED = 1000
_RETRYABLE = ("out_of_memory", "worker_died", "output", "interrupted", "shutdown", "environment", "unexpected")


def deforum_routes(prefix: str = PREFIX) -> list[Route]:
    return [
        Route("POST", f"{prefix}/batches", add_batch, "Queue one or several settings objects",
              {"deforum_settings": "a settings object or a list of them",
               "options_overrides": "has no meaning here"}, strict=False),
        Route("GET", f"{prefix}/batches", list_batches, "All batches and their jobs"),
        Route("GET", f"{prefix}/batches/{{id}}", show_batch, "The state of every job of a batch"),
        Route("DELETE", f"{prefix}/batches/{{id}}", cancel_batch, "Cancel every job of a batch"),
        Route("GET", f"{prefix}/jobs", list_jobs, "The state of all jobs, newest first"),
        Route("GET", f"{prefix}/jobs/{{id}}", show_job, "The state of a job"),
        Route("DELETE", f"{prefix}/jobs/{{id}}", cancel_job, "Cancel a job"),
    ]  # fmt: skip


def add_batch(call: Call) -> Reply:
    given = call.body.value("deforum_settings")
    overrides = call.body.object("options_overrides", {})
    if not given:
        return Reply({"message": "No settings given: deforum_settings must be an object or a list of objects."}, 400)
    wanted = given if isinstance(given, list) else [given]
    if not all(isinstance(settings, dict) for settings in wanted):
        raise SettingsError("must be settings objects", where="deforum_settings", got=given,
                            allowed="an object or a list of objects")  # fmt: skip
    batch = f"batch({new_batch()})"
    added = call.service.add(wanted, batch=batch, any_path=call.any_path)
    notes = list(added.notes)
    if overrides:
        notes.append(f"options_overrides: the WebUI's options have no effect here: {', '.join(sorted(overrides)[:12])}")
    ids = [str(job.id) for job in added.jobs]
    return Reply({"message": "Job(s) accepted", "batch_id": batch, "job_ids": ids, "notes": notes}, 202)


def list_batches(call: Call) -> dict[str, list[str]]:
    newest = list(call.queue.batches().items())[-_MOST_LISTED:]
    return {batch: [str(job_id) for job_id in ids] for batch, ids in newest}


def show_batch(call: Call) -> Any:
    jobs = _found(call, call.path["id"])
    return [job_status(job) for job in reversed(jobs)] if jobs else _unknown(call.path["id"])


def cancel_batch(call: Call) -> Any:
    jobs = _found(call, call.path["id"])
    if not jobs:
        return _unknown(call.path["id"])
    ids = [str(job.id) for job in reversed(jobs) if _cancelled(call, job)]
    return {"ids": ids, "message": f"{len(ids)} job(s) cancelled."}


def list_jobs(call: Call) -> dict[str, Any]:
    return {str(job.id): job_status(job) for job in _found(call, "")}


def show_job(call: Call) -> Any:
    job = _job(call)
    return job_status(job) if job else _unknown(call.path["id"])


def cancel_job(call: Call) -> Reply:
    given, job = call.path["id"], _job(call)
    if job is None:
        return Reply({"id": given, "message": f"Job with ID {given} not found."}, 404)
    if not _cancelled(call, job):
        words = f"Job with ID {given} not in a cancellable state. Has it already finished?"
        return Reply({"id": given, "message": words}, 400)
    return Reply({"id": given, "message": "Job cancelled."})


def _cancelled(call: Call, job: Job) -> bool:
    """Cancel a job; False for one that has ended, or ends this moment."""
    try:
        call.queue.cancel(job.id)
    except (Conflict, NotFound):
        return False
    return True


def _found(call: Call, batch: str) -> list[Job]:
    """Newest first; of one batch, or all."""
    return list(call.queue.search(Search(batch=batch, order="newest", limit=_MOST_LISTED)).jobs)


def _job(call: Call) -> Job | None:
    text = call.path["id"]
    try:
        return call.queue.job(int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else None
    except NotFound:
        return None


def _unknown(given: str) -> Reply:
    return Reply({"id": given, "status": "NOT FOUND"}, 404)


def job_status(job: Job) -> dict[str, Any]:
    """A job in Deforum's words.

    An interrupted job that nobody resumes would keep a waiting program waiting for ever: it counts as failed, and
    as worth another try.
    """
    status, phase, error_type = _words(job)
    updates = job.progress.get("updates", 0)
    running = max(0.0, job.updated - job.started) if job.started else 0.0
    return {
        "id": str(job.id),
        "status": status,
        "phase": phase,
        "error_type": error_type,
        "phase_progress": 1.0 if phase == "DONE" else float(job.progress.get("fraction", 0.0) or 0.0),
        "started_at": job.created,
        "last_updated": job.updated,
        "execution_time": max(0.0, job.updated - job.created),
        "update_interval_time": running / updates if updates else 0.0,
        "updates": updates,
        "message": job.error or None,
        "outdir": job.folder or None,
        "timestring": job.timestring or None,
        "deforum_settings": job.settings,
        "options_overrides": {},
    }


def _words(job: Job) -> tuple[str, str, str]:
    """(status, phase, error_type)."""
    if job.state == "pending" or (job.state == "interrupted" and job.error_kind == "paused"):
        return "ACCEPTED", "QUEUED", "NONE"
    if job.state == "done":
        return "SUCCEEDED", "DONE", "NONE"
    phase = _phase(job)
    if job.state == "running":
        return "ACCEPTED", phase, "NONE"
    if job.state == "cancelled":
        return "CANCELLED", phase, "NONE"
    return "FAILED", phase, "RETRYABLE" if job.error_kind in _RETRYABLE else "TERMINAL"


def _phase(job: Job) -> str:
    at, progress = job.progress.get("phase", ""), job.progress
    if at in ("sampling", "decoding"):
        return "GENERATING"
    if at == "writing":
        return "POST_PROCESSING" if progress.get("clip", 0) >= progress.get("clips", 1) else "GENERATING"
    if at == "done":
        return "POST_PROCESSING"
    return "PREPARING" if job.started else "QUEUED"
