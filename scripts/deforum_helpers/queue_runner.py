"""The one runner: a thread that claims waiting jobs and renders them, one after the other.

It knows nothing of models: it is given a function

    render(job, report, stop) -> dict of files | None

report(progress): how far it is, a dataclass or mapping; returns at once, the newest is written twice a second.
report.files(folder=.., timestring=.., video=.., thumbnail=..): on the disk when it returns.  Call it with folder and
    timestring before the first clip, so that a killed run can be resumed; again when the video exists.
stop: a threading.Event, set when the render shall end now; stop.after_clip is set when it shall end after the clip in
    work.  Either way it makes of the finished frames what it can and raises RenderCancelled.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import Conflict, DeforumWanError, NotFound, OutputError, RenderCancelled
from .job_queue import ClaimLost, Ending, Job, JobQueue
from .queue_store.running import PAUSED

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
_FLUSH_SECONDS = 0.5
_FILES = {"folder", "timestring", "video", "thumbnail"}


class StopSignal(threading.Event):
    """What the runner asks of a render.

    why: "cancelled", "shutdown" or "lost" once it is set.  pause_asked: after_clip was set at some time, even if the
    wish was taken back since: the render may have acted on it already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.after_clip = threading.Event()
        self.why, self.pause_asked = "", False

    def now(self, why: str) -> None:
        if not self.is_set():
            self.why = why
            self.set()


class Report:
    """Takes a render's progress without making it wait, and the places of its files."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue, self._job = queue, job
        self._latest = ""
        self._lock = threading.Lock()

    def __call__(self, progress: Any) -> None:
        values = dataclasses.asdict(progress) if dataclasses.is_dataclass(progress) else dict(progress)
        text = json.dumps({name: _finite(value) for name, value in values.items()}, default=str)
        with self._lock:
            self._latest = text

    def files(self, **places: object) -> None:
        """Raises RenderCancelled if this run no longer counts, OutputError if it can't be written."""
        if not self._queue.record_files(self._job, _places(places)):
            raise RenderCancelled("another process took this job over")

    def take(self) -> str:
        with self._lock:
            latest, self._latest = self._latest, ""
            return latest


Render = Callable[[Job, Report, StopSignal], Mapping[str, Any] | None]


class Runner:
    """Runs the jobs of one queue in a thread of its own, until stop().

    trouble: why no job can be begun although the queue is open, "" if there is no reason.
    """

    def __init__(self, queue: JobQueue, render: Render, *, poll_seconds: float = 1.0) -> None:
        self.queue, self.render = queue, render
        self.trouble = ""
        self._poll = poll_seconds
        self._wake, self._ending = threading.Event(), threading.Event()
        self._current: tuple[Job, StopSignal] | None = None
        self._owed: tuple[Job, Ending] | None = None
        self._thread = _RunnerThread(self)

    @property
    def current(self) -> Job | None:
        """The job in work, as it was when it was begun."""
        current = self._current
        return current[0] if current else None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self.queue.listen(self._wake.set)
        atexit.register(self.stop, 5.0)
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """End in good order: the job in work becomes interrupted and can be resumed.  True once that has happened."""
        self._ending.set()
        self._wake.set()
        if current := self._current:
            current[1].now("shutdown")
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def loop(self) -> None:
        """The thread's work.  Nothing that a job does, or the disk, ends it."""
        started = False
        try:
            while not self._ending.is_set():
                self._wake.clear()
                worked = False
                try:
                    started = started or self._take_over()
                    worked = self._work()
                except DeforumWanError as error:
                    self._say(error.one_line())
                except Exception as error:
                    log.exception("the queue's runner met an error of its own")
                    self._say(f"{type(error).__name__}: {error}")
                if not worked:
                    self._wake.wait(self._poll)
        finally:
            self.queue.unlisten(self._wake.set)
            atexit.unregister(self.stop)

    def _take_over(self) -> bool:
        self.queue.recover()
        self.queue.resume_interrupted()
        self.queue.prune()
        return True

    def _work(self) -> bool:
        """One job, if there is one.  Returns whether there was."""
        if self._owed:
            self._settle(*self._owed)
        self.queue.recover()
        job = self.queue.claim()
        self._say("")
        if job is None:
            return False
        self._settle(job, self._run(job))
        self.queue.prune()
        return True

    def _run(self, job: Job) -> Ending:
        """Render one job.  Returns how it ended, whatever happened."""
        stop, report, over = StopSignal(), Report(self.queue, job), threading.Event()
        self._current = job, stop
        if self._ending.is_set():  # stop() came between the claim and here
            stop.now("shutdown")
        watch = threading.Thread(target=self._watch, args=(job, stop, report, over), daemon=True)
        watch.start()
        try:
            files = self.render(job, report, stop)
            return Ending("done", files=_places(files or {}))
        except RenderCancelled as error:
            return _stopped(stop, error)
        except DeforumWanError as error:
            state = "interrupted" if error.kind == "worker_died" else "failed"
            return Ending(state, error.kind, error.one_line())
        except BaseException as error:
            log.exception("job %d failed", job.id)
            return Ending("failed", "unexpected", f"{type(error).__name__}: {error}")
        finally:
            over.set()
            self._wake.set()
            watch.join()
            self._current = None

    def _watch(self, job: Job, stop: StopSignal, report: Report, over: threading.Event) -> None:
        """Beside a render: write its progress and heartbeat, and pass on what it is asked to do."""
        beaten = time.monotonic()
        while True:
            ended = over.is_set()
            try:
                progress = report.take()
                if progress or time.monotonic() - beaten >= HEARTBEAT_SECONDS:
                    asked = self.queue.beat(job, progress)
                    beaten = time.monotonic()
                else:
                    asked = self._asked(job)
                self._pass_on(asked, stop)
            except DeforumWanError as error:  # the disk is full, say: the render may still come to an end
                self._say(error.one_line())
            except Exception:
                log.exception("the progress of job %d could not be written", job.id)
            if ended:
                return
            self._wake.wait(min(_FLUSH_SECONDS, self._poll))
            if self._wake.is_set() and not over.wait(0.02):  # changes come in bursts
                self._wake.clear()

    def _asked(self, job: Job) -> str | None:
        try:
            now = self.queue.job(job.id)
        except NotFound:
            return None
        return now.stop if now.claim == job.claim else None

    def _pass_on(self, asked: str | None, stop: StopSignal) -> None:
        if asked is None:
            stop.now("lost")
        elif asked == "now":
            stop.now("cancelled")
        elif asked == "after_clip":
            stop.pause_asked = True
            stop.after_clip.set()
        else:
            stop.after_clip.clear()

    def _settle(self, job: Job, ending: Ending) -> None:
        """Write a run's end.  What can't be written now (a full disk) is owed, and nothing else runs before it."""
        self._owed = job, ending
        try:
            self.queue.finish(job, ending)
        except (ClaimLost, NotFound, Conflict) as error:
            log.warning("the end of job %d is dropped: %s", job.id, error.one_line())
        except OutputError:
            if not self._ending.is_set():
                raise
        self._owed = None

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("the queue can't go on: %s", trouble)
        self.trouble = trouble


class _RunnerThread(threading.Thread):
    def __init__(self, runner: Runner) -> None:
        super().__init__(target=runner.loop, name="deforum-wan-runner", daemon=True)
        self.deforum_wan_runner = runner


_starting = threading.Lock()


def runner_of(queue: JobQueue) -> Runner | None:
    """The runner at work on this queue's file in this process.

    The register is the interpreter's own list of threads: it outlives a reload of the script, and of this module.
    """
    for thread in threading.enumerate():
        runner = getattr(thread, "deforum_wan_runner", None)
        if runner is not None and runner.queue.path == queue.path:
            return runner
    return None


def start_runner(queue: JobQueue, render: Render, *, poll_seconds: float = 1.0) -> Runner:
    """Start the runner of this queue, or hand the one at work its next function.  Never two in one process."""
    with _starting:
        runner = runner_of(queue)
        if runner is None:
            runner = Runner(queue, render, poll_seconds=poll_seconds)
            runner.start()
        else:
            runner.render = render
        return runner


def _stopped(stop: StopSignal, error: RenderCancelled) -> Ending:
    if stop.why == "shutdown":
        return Ending("interrupted", "shutdown", "the program was closed while this job was being rendered")
    if stop.why == "" and stop.pause_asked:
        return Ending("interrupted", PAUSED, "paused after a clip")
    return Ending("cancelled", error.kind, error.one_line())


def _places(files: Mapping[str, object]) -> dict[str, str]:
    assert set(files) <= _FILES, files
    return {name: str(value) for name, value in files.items() if value}


def _finite(value: Any) -> Any:
    """JSON that a browser reads has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
