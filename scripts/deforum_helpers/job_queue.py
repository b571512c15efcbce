"""The queue: jobs that outlive the program, in one SQLite file that several programs may share.

A job goes pending -> running -> done | failed | cancelled | interrupted, and from the last three back to pending when
it is asked for again.  Every operation here is one transaction and on the disk when it returns; no row goes before
its work is done unless a person deletes it.  The runner is in queue_runner.py, the parts are in queue_store/.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import Conflict
from .planning.seeds import resolve_seed
from .queue_store import exchange, facts, history, order, running
from .queue_store.database import Database
from .queue_store.facts import QueueOptions
from .queue_store.history import Page, Search
from .queue_store.jobs import (
    STATES,
    TRANSITIONS,
    ClaimLost,
    Job,
    NewJob,
    State,
    Stop,
    clean_name,
    get,
    insert,
    parsed,
    select,
    settings_columns,
    transition,
    update,
)
from .queue_store.owners import Witness, this_process
from .queue_store.running import Ending
from .settings import RenderSettings

__all__ = [
    "STATES", "TRANSITIONS", "ClaimLost", "Ending", "Job", "JobQueue", "NewJob", "Page", "QueueOptions", "Search",
    "State", "Stop", "new_batch", "open_queue",
]  # fmt: skip

Settings = RenderSettings | Mapping[str, Any]

_open_queues: dict[Path, JobQueue] = {}
_opening = threading.Lock()


def open_queue(path: str | Path) -> JobQueue:
    """The queue of a file, the same object for everybody in this process.  Raises OutputError, InputError."""
    path = Path(path).absolute()
    with _opening:
        queue = _open_queues.get(path) or JobQueue(path)
        queue.version()  # a file that can't be used is refused here
        return _open_queues.setdefault(path, queue)


class JobQueue:
    """All that people and programs do with the queue.

    Methods that take job numbers take several at once and change all of them or none.  All raise OutputError for a
    file that can't be used, NotFound for a job that isn't there, and Conflict for what can't be done as things stand.
    clock: seconds since 1970.  witness: tells whether the process that runs a job still lives.
    """

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time, witness: Witness | None = None
    ) -> None:
        self._db = Database(path, on_change=self._tell)
        self._clock, self._witness = clock, witness or Witness()
        self._listeners: list[Callable[[], None]] = []

    @property
    def path(self) -> Path:
        return self._db.path

    def close(self) -> None:
        self._db.close()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after each change made through this object (not for progress)."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    # Adding

    def add(
        self, settings: Settings, *, name: str = "", batch: str = "", seed: int | None = None, first: bool = False
    ) -> Job:
        """Queue a render.  seed: resolved instead of the settings' own.  first: before all that wait."""
        return self.add_many([NewJob(settings, name, batch, seed=seed)], first=first)[0]

    def add_many(self, jobs: Iterable[NewJob], *, first: bool = False) -> list[Job]:
        """Queue several in their order.  Raises SettingsError; then none is added."""
        ready = [dataclasses.replace(job, settings=parsed(job.settings)) for job in jobs]
        return self._db.write(_insert_all, self._clock(), ready, first)

    def export_jobs(self, job_ids: Iterable[int] | None = None) -> str:
        """JSON of these jobs, or of all that wait or were interrupted, in the queue's order."""
        where = "state IN ('pending', 'interrupted') ORDER BY position, id"
        jobs = self._db.read(select, where) if job_ids is None else [self.job(job_id) for job_id in job_ids]
        return exchange.to_json(jobs)

    # Looking

    def job(self, job_id: int) -> Job:
        """Raises NotFound where there is no such job."""
        return self._db.read(get, job_id)

    def waiting(self) -> list[Job]:
        """The jobs that wait, next one first."""
        return self._db.read(select, "state = 'pending' ORDER BY position, id")

    def running(self) -> list[Job]:
        return self._db.read(select, "state = 'running' ORDER BY started, id")

    def search(self, search: Search) -> Page:
        return self._db.read(history.find, search)

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        return self._db.read(history.counts)

    def batches(self) -> dict[str, list[int]]:
        """The batches that have a job here, oldest first, each with its jobs."""
        return self._db.read(history.batches)

    def version(self) -> str:
        """Another text after every change, by any process: a page that saw this one already has nothing to fetch."""
        return self._db.version()

    def notices(self) -> list[dict[str, Any]]:
        """[{"time": .., "text": ..}]: what happened to the queue's file and was not yet dismissed."""
        return self._db.read(facts.notices)

    def dismiss_notices(self) -> None:
        self._db.write(facts.set_fact, "notices", "")

    # Arranging

    def move(self, job_id: int, *, before: int | None = None, after: int | None = None) -> Job:
        """Put a waiting job just before or after another waiting one."""
        return self._db.write(_move_beside, self._clock(), job_id, before, after)

    def move_by(self, job_id: int, places: int) -> Job:
        """Move a waiting job up (negative) or down by so many places, at most to the end."""
        return self._db.write(_move_by, self._clock(), job_id, places)

    def run_next(self, job_id: int) -> Job:
        """Put a waiting job in front of all others."""
        return self._db.write(_move_to, self._clock(), job_id, 0)

    def edit(self, job_id: int, settings: Settings, *, resume: bool = False) -> Job:
        """Give a waiting job other settings.

        resume: go on in the files of its last run, rendering again only the clips that the change reaches;
        otherwise it starts over in new files.
        """
        return self._db.write(_edit, self._clock(), job_id, parsed(settings), resume)

    def rename(self, job_id: int, name: str) -> Job:
        return self._db.write(_rename, self._clock(), job_id, name)

    def bookmark(self, job_id: int, marked: bool = True) -> Job:
        """A bookmarked job is never removed by retention."""
        return self._db.write(_set, self._clock(), job_id, bookmark=int(marked))

    def duplicate(self, job_id: int, *, seed: int | None = None) -> Job:
        """Queue the same settings again.  seed: another one, -1 for a fresh one; None: as the settings say."""
        return self._db.write(_duplicate, self._clock(), job_id, seed)

    # States

    def cancel(self, *job_ids: int) -> list[Job]:
        """Cancel waiting jobs at once; running ones stop within a step and keep what is done."""
        return self._db.write(_cancel, self._clock(), job_ids)

    def requeue(self, *job_ids: int, resume: bool = True, first: bool = False) -> list[Job]:
        """Let failed, cancelled or interrupted jobs wait again, behind all others or first.

        resume: go on from their finished clips; otherwise start over in new files.
        """
        return self._db.write(_requeue, self._clock(), job_ids, resume, first)

    def requeue_failed(self) -> list[Job]:
        return self._db.write(_requeue_failed, self._clock())

    def delete(self, *job_ids: int) -> None:
        """Remove jobs that aren't running from the queue and the history; their files stay."""
        self._db.write(_delete, job_ids)

    def prune(self) -> list[int]:
        """Remove from the history what the options no longer keep.  Returns the numbers."""
        return self._db.write(_prune, self._clock())

    # The queue as a whole

    @property
    def paused(self) -> str:
        """Why no further job is begun, "" while the queue is open."""
        return self._db.read(facts.pause_reason)

    def pause(self, *, after_clip: bool = False, reason: str = "paused") -> None:
        """Begin no further job.  after_clip: the running ones stop too, once their clip is finished."""
        self._db.write(_pause, self._clock(), reason or "paused", after_clip)

    def resume(self) -> list[Job]:
        """Open the queue; jobs that were paused after a clip go on first.  Returns those."""
        return self._db.write(_resume, self._clock())

    @property
    def options(self) -> QueueOptions:
        return self._db.read(facts.options)

    def set_options(self, **changes: Any) -> QueueOptions:
        return self._db.write(facts.set_options, changes)

    # Running; for the runner

    def claim(self) -> Job | None:
        """Begin the next job for this process; in the whole world only one caller gets it."""
        if not self.counts()["pending"]:
            return None
        return self._db.write(running.claim_next, self._clock(), uuid.uuid4().hex, this_process().to_text())

    def beat(self, job: Job, progress: str = "") -> Stop | None:
        """Say that this run lives.  progress: JSON.  Returns what it is asked to do, None if it no longer counts."""
        return self._db.write_lightly(running.beat, self._clock(), job.id, job.claim, progress)

    def record_files(self, job: Job, files: dict[str, str]) -> bool:
        """Note folder, timestring, video or thumbnail of a run.  False if it no longer counts."""
        return self._db.write(running.record_files, self._clock(), job.id, job.claim, files)

    def finish(self, job: Job, ending: Ending) -> Job:
        """Write how a run ended.  Raises ClaimLost if it no longer counts."""
        return self._db.write(running.finish, self._clock(), job.id, job.claim, ending)

    def recover(self) -> list[Job]:
        """Interrupt the jobs whose processes are gone.  Returns them as they are then."""
        jobs = self.running()
        self._witness.forget_all_but({job.claim for job in jobs})
        dead = [(job.id, job.claim) for job in jobs if not self._witness.lives(job.owner, job.claim, job.heartbeat)]
        return self._db.write(running.interrupt_dead, self._clock(), dead) if dead else []

    def resume_interrupted(self) -> list[Job]:
        """At a program's start: queue again what an earlier one left behind, where options.auto_resume is set."""
        return self._db.write(running.resume_interrupted, self._clock())


def new_batch() -> str:
    """A batch's name that no other has."""
    return uuid.uuid4().hex[:12]


def _insert_all(db: sqlite3.Connection, now: float, jobs: list[NewJob], first: bool) -> list[Job]:
    start = order.first_position(db) - order.GAP * (len(jobs) - 1) if first else order.last_position(db)
    return [insert(db, job, now, start + place * order.GAP) for place, job in enumerate(jobs)]


def _waiting(db: sqlite3.Connection, job_id: int, doing: str) -> Job:
    job = get(db, job_id)
    if job.state != "pending":
        raise Conflict(
            f"only a waiting job can be {doing}", got=f"job {job_id}, {job.state}", next_step="duplicate it instead"
        )
    return job


def _set(db: sqlite3.Connection, now: float, job_id: int, **columns: Any) -> Job:
    get(db, job_id)
    update(db, job_id, now, **columns)
    return get(db, job_id)


def _move_to(db: sqlite3.Connection, now: float, job_id: int, index: int) -> Job:
    _waiting(db, job_id, "moved")
    return _set(db, now, job_id, position=order.position_at(db, job_id, index))


def _move_by(db: sqlite3.Connection, now: float, job_id: int, places: int) -> Job:
    _waiting(db, job_id, "moved")
    return _move_to(db, now, job_id, order.waiting_ids(db).index(job_id) + places)


def _move_beside(db: sqlite3.Connection, now: float, job_id: int, before: int | None, after: int | None) -> Job:
    other = before if before is not None else after
    if other is None or (before is not None and after is not None) or other == job_id:
        raise Conflict("a job moves before or after one other", got={"before": before, "after": after})
    _waiting(db, job_id, "moved")
    _waiting(db, other, "a place to move to")
    others = [waiting for waiting in order.waiting_ids(db) if waiting != job_id]
    return _move_to(db, now, job_id, others.index(other) + (before is None))


def _edit(db: sqlite3.Connection, now: float, job_id: int, settings: RenderSettings, resume: bool) -> Job:
    job = _waiting(db, job_id, "edited")
    seed = job.seed if settings.seed == parsed(job.settings).seed else resolve_seed(settings.seed)
    return _set(db, now, job_id, seed=seed, resume=int(resume), **settings_columns(settings, job.name))


def _rename(db: sqlite3.Connection, now: float, job_id: int, name: str) -> Job:
    job, name = get(db, job_id), clean_name(name)
    return _set(db, now, job_id, name=name, words=settings_columns(parsed(job.settings), name)["words"])


def _duplicate(db: sqlite3.Connection, now: float, job_id: int, seed: int | None) -> Job:
    job = get(db, job_id)
    settings = parsed(job.settings)
    if seed is not None:
        settings = dataclasses.replace(settings, seed=seed)
    return insert(db, NewJob(settings, job.name, job.batch), now)


def _cancel(db: sqlite3.Connection, now: float, job_ids: Iterable[int]) -> list[Job]:
    jobs = []
    for job_id in job_ids:
        if get(db, job_id).state == "running":
            jobs.append(_set(db, now, job_id, stop="now"))
        else:
            jobs.append(transition(db, job_id, "cancelled", now))
    return jobs


def _requeue(db: sqlite3.Connection, now: float, job_ids: Sequence[int], resume: bool, first: bool) -> list[Job]:
    start = order.first_position(db) - order.GAP * (len(job_ids) - 1) if first else order.last_position(db)
    return [
        transition(db, job_id, "pending", now, position=start + place * order.GAP, attempts=0, resume=int(resume))
        for place, job_id in enumerate(job_ids)
    ]


def _requeue_failed(db: sqlite3.Connection, now: float) -> list[Job]:
    failed = [job.id for job in select(db, "state = 'failed' ORDER BY position, id")]
    return _requeue(db, now, failed, resume=True, first=False)


def _delete(db: sqlite3.Connection, job_ids: Iterable[int]) -> None:
    for job_id in job_ids:
        if get(db, job_id).state == "running":
            raise Conflict("a running job can't be deleted", got=f"job {job_id}", next_step="cancel it first")
        db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))


def _prune(db: sqlite3.Connection, now: float) -> list[int]:
    how = facts.options(db)
    return history.prune(db, now, how.keep_jobs, how.keep_days)


def _pause(db: sqlite3.Connection, now: float, reason: str, after_clip: bool) -> None:
    facts.set_pause(db, reason)
    if after_clip:
        for job in select(db, "state = 'running' AND stop = ''"):
            update(db, job.id, now, stop="after_clip")


def _resume(db: sqlite3.Connection, now: float) -> list[Job]:
    facts.set_pause(db, "")
    for job in select(db, "state = 'running' AND stop = 'after_clip'"):
        update(db, job.id, now, stop="")
    return running.resume_paused(db, now)
