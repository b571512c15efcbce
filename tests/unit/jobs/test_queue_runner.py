"""The runner: how each kind of end is written, cancel, pause, shutdown, and that nothing ends the thread."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from deforum_helpers import queue_runner
from deforum_helpers.errors import ModelError, OutOfDeviceMemory, OutputError, RenderCancelled, WorkerDied
from deforum_helpers.job_queue import Job, JobQueue, Search
from deforum_helpers.queue_runner import Report, Runner, StopSignal, runner_of, start_runner
from deforum_helpers.settings import RenderSettings


@dataclass(frozen=True)
class Progress:
    fraction: float
    eta_seconds: float


class FakeRender:
    """Stands for render_wan.  The first word of a job's prompt says what it does; runs: (job number, resume)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.began = folder, [], threading.Event()
        self.at_once, self.most_at_once = 0, 0

    def __call__(self, job: Job, report: Report, stop: StopSignal) -> dict[str, str] | None:
        self.runs.append((job.id, job.resume))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.work(job, report, stop)
        finally:
            self.at_once -= 1

    def work(self, job: Job, report: Report, stop: StopSignal) -> dict[str, str] | None:
        report.files(folder=self.folder / str(job.id), timestring=f"t{job.id}")
        report(Progress(0.25, float("inf")))
        self.began.set()
        what = job.render_settings().prompts["0"]
        errors = {
            "memory": OutOfDeviceMemory("no room"), "killed": WorkerDied("signal 9"), "model": ModelError("no weights"),
            "bug": ZeroDivisionError("by zero"), "exit": SystemExit(3),
        }  # fmt: skip
        if what in errors and not (what == "killed" and job.resume):
            raise errors[what]
        for _ in range(6000):
            if what != "long":
                break
            if stop.is_set() or stop.after_clip.is_set():
                report.files(video=self.folder / "kept.mp4")
                raise RenderCancelled("stopped")
            time.sleep(0.01)
        return {"video": str(self.folder / "done.mp4"), "thumbnail": ""}


@pytest.fixture
def queue(tmp_path: Path):
    queue = JobQueue(tmp_path / "jobs.db")
    yield queue
    if runner := runner_of(queue):
        assert runner.stop(10)
    queue.close()


@pytest.fixture
def render(tmp_path: Path) -> FakeRender:
    return FakeRender(tmp_path)


def add(queue: JobQueue, *words: str) -> list[int]:
    return [queue.add(RenderSettings(prompts={"0": word}), name=word).id for word in words]


def wait(until: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def settled(queue: JobQueue) -> bool:
    counts = queue.counts()
    return not counts["pending"] and not counts["running"]


def states(queue: JobQueue, *ids: int) -> list[str]:
    return [queue.job(job_id).state for job_id in ids]


def start(queue: JobQueue, render: FakeRender, **about: object) -> Runner:
    return start_runner(queue, render, poll_seconds=0.2, **about)


def test_every_end_is_written_and_the_runner_lives_on(queue, render):
    queue.set_options(pause_on_out_of_memory=False)
    ids = add(queue, "memory", "killed", "model", "bug", "exit", "fine")
    runner = start(queue, render)
    wait(lambda: settled(queue))
    jobs = [queue.job(job_id) for job_id in ids]
    assert [(job.state, job.error_kind) for job in jobs] == [
        ("failed", "out_of_memory"), ("interrupted", "worker_died"), ("failed", "model"), ("failed", "unexpected"),
        ("failed", "unexpected"), ("done", ""),
    ]  # fmt: skip
    assert jobs[3].error == "ZeroDivisionError: by zero" and jobs[0].error == "no room"
    assert jobs[5].video == str(render.folder / "done.mp4") and jobs[5].timestring == f"t{ids[5]}"
    assert jobs[5].progress == {"fraction": 0.25, "eta_seconds": None}
    assert render.most_at_once == 1 and runner.alive and runner.current is None


def test_a_new_job_starts_at_once(queue, render):
    start_runner(queue, render, poll_seconds=30)
    time.sleep(0.1)
    begun = time.monotonic()
    add(queue, "fine")
    wait(lambda: settled(queue))
    assert time.monotonic() - begun < 10


def test_another_process_s_job_and_cancel_are_seen(queue, render):
    start(queue, render)
    other = JobQueue(queue.path)
    [first] = add(other, "long")
    wait(lambda: other.job(first).progress == {"fraction": 0.25, "eta_seconds": None})
    other.cancel(first)
    wait(lambda: settled(other))
    found = other.job(first)
    assert (found.state, found.error_kind, found.video) == ("cancelled", "cancelled", str(render.folder / "kept.mp4"))
    other.close()


def test_cancel_skips_to_the_next(queue, render):
    a, b = add(queue, "long", "fine")
    start(queue, render)
    assert render.began.wait(10)
    queue.cancel(a)
    wait(lambda: settled(queue))
    assert states(queue, a, b) == ["cancelled", "done"]


def test_pause_after_clip_and_resume(queue, render):
    a, b = add(queue, "long", "fine")
    start(queue, render)
    assert render.began.wait(10)
    queue.pause(after_clip=True)
    wait(lambda: queue.job(a).state == "interrupted")
    time.sleep(0.5)
    assert states(queue, a, b) == ["interrupted", "pending"] and queue.job(a).error_kind == "paused"
    queue.resume()
    wait(lambda: len(render.runs) == 2)
    assert render.runs == [(a, False), (a, True)]
    queue.cancel(a)
    wait(lambda: settled(queue))


def test_resume_while_the_render_already_stops(queue):
    """The wish is taken back after the render has seen it: the job goes on instead of ending as cancelled."""
    runs: list[bool] = []

    def stopping(job: Job, report: Report, stop: StopSignal) -> None:
        runs.append(job.resume)
        report.files(folder="/out", timestring="t")
        if len(runs) == 1:
            assert stop.after_clip.wait(10)
            queue.resume()
            wait(lambda: not stop.after_clip.is_set())
            raise RenderCancelled("stopped after the clip")

    [a] = add(queue, "fine")
    start_runner(queue, stopping, poll_seconds=0.1)
    wait(lambda: runs)
    queue.pause(after_clip=True)
    wait(lambda: settled(queue))
    assert states(queue, a) == ["done"] and runs == [False, True]


def test_out_of_memory_pauses_the_queue(queue, render):
    a, b = add(queue, "memory", "fine")
    start(queue, render)
    wait(lambda: queue.paused)
    time.sleep(0.3)
    assert states(queue, a, b) == ["failed", "pending"] and "memory" in queue.paused
    queue.resume()
    wait(lambda: settled(queue))


def test_a_dead_worker_is_tried_again_where_set(queue, render):
    queue.set_options(auto_resume=True)
    [a] = add(queue, "killed")
    start(queue, render)
    wait(lambda: settled(queue))
    assert render.runs == [(a, False), (a, True)] and states(queue, a) == ["done"]


def test_stop_ends_in_good_order_and_the_next_start_goes_on(queue, render):
    queue.set_options(auto_resume=True, most_attempts=1)
    a, b = add(queue, "long", "fine")
    runner = start(queue, render)
    assert render.began.wait(10)
    assert runner.stop(10) and runner_of(queue) is None
    assert states(queue, a, b) == ["interrupted", "pending"] and queue.job(a).error_kind == "shutdown"
    queue.edit(b, RenderSettings(prompts={"0": "fine"}))
    start(queue, render)
    wait(lambda: len(render.runs) == 2)
    assert render.runs[1] == (a, True)
    queue.cancel(a)
    wait(lambda: settled(queue))


def test_never_two_runners_in_a_process(queue, render):
    runner = start(queue, render)
    calls: list[str] = []

    def next_version(job: Job, report: Report, stop: StopSignal) -> None:
        calls.append(job.name)

    assert start_runner(JobQueue(queue.path), next_version) is runner
    assert importlib.reload(queue_runner).start_runner(queue, next_version) is runner
    add(queue, "fine")
    wait(lambda: settled(queue))
    assert calls == ["fine"] and render.runs == []
    assert sum(thread.name == "deforum-wan-runner" for thread in threading.enumerate()) == 1


def test_a_run_that_was_taken_over_stops_and_writes_nothing(queue, render):
    [a] = add(queue, "long")
    start(queue, render)
    assert render.began.wait(10)
    claim = queue.job(a).claim

    def steal(db) -> None:
        db.execute("UPDATE jobs SET state = 'interrupted', claim = '' WHERE claim = ?", (claim,))

    queue._db.write(steal)
    wait(lambda: render.at_once == 0)
    time.sleep(0.3)
    assert states(queue, a) == ["interrupted"] and queue.job(a).video == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files")
def test_a_deleted_database_stops_the_render_and_the_queue_goes_on(queue, render):
    add(queue, "long")
    start(queue, render)
    assert render.began.wait(10)
    queue.path.unlink()
    wait(lambda: render.at_once == 0)
    [b] = add(queue, "fine")
    wait(lambda: settled(queue))
    assert states(queue, b) == ["done"]


def test_an_end_that_cannot_be_written_is_owed(queue, render, monkeypatch):
    a, b = add(queue, "fine", "fine")
    full, finish = [True], JobQueue.finish

    def failing(self: JobQueue, job: Job, ending: object) -> Job:
        if full[0]:
            raise OutputError("the disk is full")
        return finish(self, job, ending)

    monkeypatch.setattr(JobQueue, "finish", failing)
    runner = start(queue, render)
    wait(lambda: runner.trouble)
    time.sleep(0.5)
    assert runner.trouble == "the disk is full" and states(queue, a, b) == ["running", "pending"]
    full[0] = False
    wait(lambda: settled(queue))
    assert render.runs == [(a, False), (b, False)], "what was done was not done again"
    wait(lambda: runner.trouble == "")


def test_a_broken_store_does_not_end_the_thread(queue, render, monkeypatch):
    broken, claim = [2], JobQueue.claim

    def failing(self: JobQueue) -> Job | None:
        if broken[0]:
            broken[0] -= 1
            raise (OutputError("gone"), RuntimeError("a bug"))[broken[0]]
        return claim(self)

    monkeypatch.setattr(JobQueue, "claim", failing)
    add(queue, "fine")
    start(queue, render)
    wait(lambda: settled(queue))


def test_what_retention_no_longer_keeps_goes_after_each_job(queue, render):
    queue.set_options(keep_jobs=1)
    ids = add(queue, "fine", "fine", "fine")
    start(queue, render)
    wait(lambda: [job.id for job in queue.search(Search()).jobs] == ids[2:])
    assert states(queue, ids[2]) == ["done"]


def test_progress_is_throttled(queue, tmp_path):
    written: list[str] = []

    def busy(job: Job, report: Report, stop: StopSignal) -> None:
        for number in range(2000):
            report({"fraction": number / 2000})
            time.sleep(0.0005)

    beat = JobQueue.beat
    queue.beat = lambda job, progress="": written.append(progress) or beat(queue, job, progress)
    [a] = add(queue, "fine")
    begun = time.monotonic()
    start_runner(queue, busy, poll_seconds=1.0)
    wait(lambda: settled(queue))
    assert len(written) <= 4 + 2 * (time.monotonic() - begun)
    assert queue.job(a).progress == {"fraction": 1999 / 2000}, "the last one is always written"


def test_heartbeats_keep_a_silent_run_alive(queue, render, monkeypatch):
    monkeypatch.setattr(queue_runner, "HEARTBEAT_SECONDS", 0.1)
    [a] = add(queue, "long")
    start_runner(queue, render, poll_seconds=0.1)
    assert render.began.wait(10)
    first = queue.job(a).heartbeat
    wait(lambda: queue.job(a).heartbeat > first + 0.2)
    queue.cancel(a)
    wait(lambda: settled(queue))
