"""The queue against a plain list, after any sequence of operations."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from deforum_helpers.errors import InputError
from deforum_helpers.job_queue import ClaimLost, Ending, Job, JobQueue, NewJob, Search
from deforum_helpers.settings import RenderSettings, settings_to_dict
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from queue_world import MEMORY, Clock, Deaths, waiting


class QueueMachine(RuleBasedStateMachine):
    """The queue against a plain list: order, states and attempts agree after any sequence of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.deaths = Deaths()
        self.queue = JobQueue(Path(self.folder.name) / "jobs.db", clock=Clock(), witness=self.deaths)
        self.queue.set_options(at_once=3)
        self.states: dict[int, str] = {}
        self.attempts: dict[int, int] = {}
        self.order: list[int] = []
        self.runs: dict[int, Job] = {}
        self.paused = False
        self.finished: set[int] = set()

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    def some(self, number: int, *states: str) -> int | None:
        ids = [job_id for job_id in sorted(self.states) if not states or self.states[job_id] in states]
        return ids[number % len(ids)] if ids else None

    @rule(count=strategies.integers(1, 3), first=strategies.booleans())
    def add(self, count: int, first: bool) -> None:
        new = [job.id for job in self.queue.add_many([NewJob(SETTINGS) for _ in range(count)], first=first)]
        self.states |= dict.fromkeys(new, "pending")
        self.attempts |= dict.fromkeys(new, 0)
        self.order = new + self.order if first else self.order + new

    @rule()
    def claim(self) -> None:
        job = self.queue.claim()
        if self.paused or not self.order or len(self.runs) >= 3:
            assert job is None
            return
        expected = self.order.pop(0)
        assert job is not None and job.id == expected
        assert expected not in self.finished and expected not in self.runs
        self.attempts[expected] += 1
        assert job.attempts == self.attempts[expected]
        self.states[expected] = "running"
        self.runs[expected] = job

    @precondition(lambda self: self.runs)
    @rule(number=strategies.integers(0, 9), state=strategies.sampled_from(["done", "failed", "cancelled"]))
    def finish(self, number: int, state: str) -> None:
        job = self.runs.pop(self.some(number, "running"))
        assert self.queue.finish(job, Ending(state)).state == state
        self.states[job.id] = state
        self.finished |= {job.id} if state == "done" else set()

    @precondition(lambda self: self.runs)
    @rule(number=strategies.integers(0, 9), auto=strategies.booleans())
    def die(self, number: int, auto: bool) -> None:
        self.queue.set_options(auto_resume=auto, most_attempts=2)
        job = self.runs.pop(self.some(number, "running"))
        self.deaths.dead.add(job.claim)
        stopped = self.queue.job(job.id).stop == "now"
        [found] = self.queue.recover()
        again = auto and self.attempts[job.id] < 2
        self.states[job.id] = "cancelled" if stopped else "pending" if again else "interrupted"
        assert found.state == self.states[job.id]
        if found.state == "pending":
            self.order = waiting(self.queue)
        with pytest.raises((ClaimLost, InputError)):
            self.queue.finish(job, Ending("done"))

    @rule(number=strategies.integers(0, 9), other=strategies.integers(0, 9), after=strategies.booleans())
    def move(self, number: int, other: int, after: bool) -> None:
        one, two = self.some(number, "pending"), self.some(other, "pending")
        if one is None or one == two:
            return
        self.queue.move(one, **{"after" if after else "before": two})
        self.order.remove(one)
        self.order.insert(self.order.index(two) + after, one)

    @rule(number=strategies.integers(0, 9), places=strategies.integers(-3, 3))
    def move_by(self, number: int, places: int) -> None:
        if (one := self.some(number, "pending")) is not None:
            self.queue.move_by(one, places)
            index = self.order.index(one)
            self.order.remove(one)
            self.order.insert(max(0, index + places), one)

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9))
    def cancel(self, number: int) -> None:
        job_id = self.some(number)
        if self.states[job_id] not in ("pending", "running"):
            with pytest.raises(InputError):
                self.queue.cancel(job_id)
            return
        self.queue.cancel(job_id)
        if self.states[job_id] == "pending":
            self.states[job_id] = "cancelled"
            self.order.remove(job_id)

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9), first=strategies.booleans())
    def requeue(self, number: int, first: bool) -> None:
        job_id = self.some(number)
        if self.states[job_id] not in ("failed", "cancelled", "interrupted"):
            with pytest.raises(InputError):
                self.queue.requeue(job_id)
            return
        self.queue.requeue(job_id, first=first)
        self.states[job_id], self.attempts[job_id] = "pending", 0
        self.order = [job_id, *self.order] if first else [*self.order, job_id]

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9))
    def delete(self, number: int) -> None:
        job_id = self.some(number)
        if self.states[job_id] == "running":
            with pytest.raises(InputError):
                self.queue.delete(job_id)
            return
        self.queue.delete(job_id)
        del self.states[job_id], self.attempts[job_id]
        if job_id in self.order:
            self.order.remove(job_id)

    @rule(paused=strategies.booleans())
    def pause(self, paused: bool) -> None:
        self.queue.pause() if paused else self.queue.resume()
        self.paused = paused

    @rule()
    def reopen(self) -> None:
        self.queue.close()

    @invariant()
    def agrees(self) -> None:
        jobs = self.queue.search(Search(limit=10_000)).jobs
        assert {job.id: job.state for job in jobs} == self.states
        assert {job.id: job.attempts for job in jobs} == self.attempts
        assert waiting(self.queue) == self.order
        assert {job.id for job in jobs if job.claim} == set(self.runs)
        assert sum(self.queue.counts().values()) == len(self.states)


SETTINGS = settings_to_dict(RenderSettings(seed=1))
QueueMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = QueueMachine.TestCase
