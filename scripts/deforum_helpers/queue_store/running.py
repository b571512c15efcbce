"""The running of jobs, as the file sees it: claim, heartbeat, end, and what becomes of a run whose process died."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from . import facts
from .jobs import ClaimLost, Job, State, Stop, get, select, transition, update

# Ends of a run that say nothing about the job itself; such a job may be run again without being asked for.
INTERRUPTIONS = ("interrupted", "shutdown", "worker_died")
PAUSED = "paused"
_GIVEN_UP = "; it runs again only when asked for"
_BROKEN_OFF = "the program ended while this job was being rendered"


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    error_kind, error: of an error, or why it was interrupted.  files: as record_files takes them.
    """

    state: State
    error_kind: str = ""
    error: str = ""
    files: dict[str, str] | None = None


def claim_next(db: sqlite3.Connection, now: float, claim: str, owner: str) -> Job | None:
    """Begin the first waiting job.  None while the queue is paused, empty, or enough jobs run already."""
    if facts.pause_reason(db):
        return None
    running = db.execute("SELECT count(*) FROM jobs WHERE state = 'running'").fetchone()[0]
    row = db.execute("SELECT id FROM jobs WHERE state = 'pending' ORDER BY position, id LIMIT 1").fetchone()
    if row is None or running >= facts.options(db).at_once:
        return None
    job = get(db, row[0])
    goes_on = bool(job.resume and job.timestring)
    files = {} if goes_on else {"folder": "", "timestring": "", "video": "", "thumbnail": ""}
    return transition(
        db, job.id, "running", now, claim=claim, owner=owner, heartbeat=now, started=now, stop="", progress="",
        attempts=job.attempts + 1, resume=int(goes_on), **files,
    )  # fmt: skip


def beat(db: sqlite3.Connection, now: float, job_id: int, claim: str, progress: str = "") -> Stop | None:
    """Say that the run lives, and how far it is.  Returns what it is asked to do, None if it no longer counts."""
    row = db.execute("SELECT stop FROM jobs WHERE id = ? AND claim = ?", (job_id, claim)).fetchone()
    if row is None:
        return None
    columns: dict[str, Any] = {"heartbeat": now, **({"progress": progress} if progress else {})}
    update(db, job_id, now, **columns)
    return row[0]


def record_files(db: sqlite3.Connection, now: float, job_id: int, claim: str, files: dict[str, str]) -> bool:
    """Note where the run's files lie, as soon as it knows.  False if the run no longer counts."""
    held = db.execute("SELECT 1 FROM jobs WHERE id = ? AND claim = ?", (job_id, claim)).fetchone()
    if held:
        update(db, job_id, now, **files)
    return bool(held)


def finish(db: sqlite3.Connection, now: float, job_id: int, claim: str, ending: Ending) -> Job:
    """Write a run's end, and in the same transaction what follows from it.  Raises ClaimLost, NotFound, Conflict."""
    how, job = facts.options(db), get(db, job_id)
    if job.state == "pending":  # a waiting job may be cancelled, but not by a run that it isn't in
        raise ClaimLost("this run of the job no longer counts", got=f"job {job_id}")
    columns: dict[str, Any] = {"error_kind": ending.error_kind, "error": ending.error, **(ending.files or {})}
    if ending.error_kind in (PAUSED, "shutdown"):
        columns["attempts"] = max(0, job.attempts - 1)  # a run that was ended in good order counts for nothing
    job = transition(db, job_id, ending.state, now, holder=claim, **columns)
    if ending.error_kind == "out_of_memory" and how.pause_on_out_of_memory:
        facts.set_pause(db, f"job {job_id} ran out of device memory")
    if job.error_kind == PAUSED and not facts.pause_reason(db):  # resumed before the clip had ended
        return transition(db, job_id, "pending", now, resume=1)
    if job.error_kind == "worker_died":
        return _resume_if_set(db, now, job)
    return job


def interrupt_dead(db: sqlite3.Connection, now: float, runs: list[tuple[int, str]]) -> list[Job]:
    """End the runs whose processes are gone.  runs: (job, claim); one that moved on meanwhile is left alone."""
    ended = []
    for job_id, claim in runs:
        found = select(db, "id = ? AND claim = ?", job_id, claim)
        if not found:
            continue
        if found[0].stop == "now":  # somebody had asked for that before it died
            ended.append(transition(db, job_id, "cancelled", now, holder=claim))
            continue
        why = {"error_kind": "interrupted", "error": _BROKEN_OFF}
        job = transition(db, job_id, "interrupted", now, holder=claim, **why)
        ended.append(_resume_if_set(db, now, job))
    return ended


def resume_interrupted(db: sqlite3.Connection, now: float) -> list[Job]:
    """When a program starts: let run again what an earlier one left, where that is set."""
    return [_resume_if_set(db, now, job) for job in select(db, "state = 'interrupted' ORDER BY position")]


def resume_paused(db: sqlite3.Connection, now: float) -> list[Job]:
    """Let those go on that were paused after a clip; they keep their place in front."""
    paused = select(db, "state = 'interrupted' AND error_kind = ? ORDER BY position", PAUSED)
    return [transition(db, job.id, "pending", now, resume=1) for job in paused]


def _resume_if_set(db: sqlite3.Connection, now: float, job: Job) -> Job:
    how = facts.options(db)
    if job.state != "interrupted" or job.error_kind not in INTERRUPTIONS or not how.auto_resume:
        return job
    if job.attempts >= how.most_attempts:
        if _GIVEN_UP not in job.error:
            update(db, job.id, now, error=f"{job.error}{_GIVEN_UP} ({job.attempts} times begun)")
        return get(db, job.id)
    return transition(db, job.id, "pending", now, resume=1)
