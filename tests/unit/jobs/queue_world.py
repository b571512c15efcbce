"""What the tests of the queue share: a clock, a witness that believes what it is told, and jobs in every state."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deforum_helpers.job_queue import Ending, Job, JobQueue, NewJob
from deforum_helpers.queue_store.owners import Owner, Witness
from deforum_helpers.settings import RenderSettings

MEMORY = Path("/dev/shm")
PROMPTS = {"0": "a red balloon --neg rain", "40": "日の出"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Deaths(Witness):
    """A witness that believes what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: set[str] = set()

    def lives(self, owner: Owner | None, claim: str, heartbeat: float) -> bool:
        return claim not in self.dead


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Where the system has such a folder: thousands of transactions wait for the disk otherwise."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def made(**fields: object) -> RenderSettings:
    return RenderSettings(prompts=PROMPTS, **fields)


def add(queue: JobQueue, count: int) -> list[int]:
    return [job.id for job in queue.add_many(NewJob(made(), f"job {n}") for n in range(count))]


def waiting(queue: JobQueue) -> list[int]:
    return [job.id for job in queue.waiting()]


def end(queue: JobQueue, job: Job, state: str = "done", kind: str = "", error: str = "") -> Job:
    return queue.finish(job, Ending(state, kind, error))


def put_into_state(queue: JobQueue, state: str) -> Job:
    job = queue.add(made(), first=True)
    if state == "pending":
        return job
    running = queue.claim()
    assert running and running.id == job.id
    return running if state == "running" else end(queue, running, state)
