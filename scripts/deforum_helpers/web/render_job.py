"""One job of the queue through render_wan, inside the WebUI around us."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import DeforumWanError, InputError, RenderCancelled, SetupError
from ..job_files import JobFiles, job_files, new_timestring
from ..job_queue import Job, JobQueue
from ..manifest import load_manifest
from ..progress import Progress
from ..queue_runner import Report, StopSignal
from ..render_wan import RenderResult, render_wan
from ..settings import RenderSettings
from ..video.frames import read_png, write_thumbnail
from ..wan_integration import close_shared_worker, shared_worker
from ..worker_client import ClipRenderer
from . import host
from .so_far import SoFar

THUMBNAIL = "thumbnail.jpg"
IDLE_SECONDS = 600.0  # a worker without work gives its memory back
_LOG_LINES = 500
_WATCH_SECONDS = 0.25
_MOST_NAMES = 100


class LiveLog:
    """What renders said, newest last; each line has a number, so that a page asks only for those it hasn't."""

    def __init__(self, lines: int = _LOG_LINES) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=lines)
        self._next = 1
        self._lock = threading.Lock()

    @property
    def next(self) -> int:
        """The number of the line to come."""
        return self._next

    def add(self, text: str) -> None:
        with self._lock:
            for line in text.splitlines():
                self._lines.append((self._next, line[:2000]))
                self._next += 1

    def since(self, number: int) -> list[str]:
        """The lines from that number on, those that are still there."""
        with self._lock:
            return [line for at, line in self._lines if at >= number]


class JobRenderer:
    """The queue runner's render function.

    so_far: its small videos go when a job has ended.  out_dir: where new jobs go, asked for each.
    worker: the shared one if None; tests hand in a fake.
    keep_warm: whether the worker may keep its model in the GPU after a job; asked when the host's turn ends.
    hold: why no render may begin now, "" if it may.
    """

    def __init__(
        self,
        queue: JobQueue,
        log: LiveLog,
        so_far: SoFar,
        *,
        out_dir: Callable[[], Path] = host.output_folder,
        worker: ClipRenderer | None = None,
        keep_warm: Callable[[], bool] = lambda: True,
        hold: Callable[[], str] = lambda: "",
    ) -> None:
        self.queue, self.log, self.so_far, self.out_dir, self.worker = queue, log, so_far, out_dir, worker
        self.keep_warm, self.hold = keep_warm, hold

    def __call__(self, job: Job, report: Report, stop: StopSignal) -> dict[str, Path]:
        """Render the job.  Returns its files.  Raises RenderCancelled once what is finished has been kept."""
        say = self._sayer(job)
        cancel = _CancelOrPause(stop)
        host_job = host.HostJob(task_name(job.id))
        settings, out_dir, timestring = _place(job, self.out_dir())
        follow = _Follower(job, out_dir, settings.batch_name, timestring, report, cancel, host_job)
        report({"phase": "preparing", "note": "waiting for its turn"})
        self._wait(cancel, report)
        with host.gpu_of_host(host_job.task, cancel.is_set, say), self._in_host(job, host_job), self._care():
            result = render_wan(
                settings, out_dir, worker=self.worker or shared_worker(idle_seconds=IDLE_SECONDS),
                model_folders=host.model_folders(), lora_folders=host.lora_folders(), on_progress=follow, say=say,
                cancel=cancel, resume=bool(job.resume and job.timestring), timestring=timestring, source=follow.source,
            )  # fmt: skip
        files = _files_of(result)
        report.files(**files)
        self.so_far.forget(JobFiles(result.folder, result.timestring))
        say(_last_word(result, settings.max_frames))
        if result.cancelled:
            raise RenderCancelled(f"stopped; {result.frames} of {settings.max_frames} frames are kept")
        return files

    def _sayer(self, job: Job) -> Callable[[str], None]:
        return lambda text: self.log.add(f"job {job.id}: {text}")

    @contextlib.contextmanager
    def _in_host(self, job: Job, host_job: host.HostJob) -> Iterator[None]:
        """Show the job in the host's state, and pass on what its buttons ask for."""
        over = threading.Event()

        def watch() -> None:
            told = ""
            while not over.wait(_WATCH_SECONDS):
                wish = host_job.wish()
                if wish and wish != told and not over.is_set():
                    told = wish
                    with contextlib.suppress(DeforumWanError):  # it has ended in the meantime
                        self._obey(job, wish)

        host_job.begin()
        thread = threading.Thread(target=watch, name="deforum-wan-host", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            host_job.end()

    def _obey(self, job: Job, wish: host.Wish) -> None:
        if wish == "now":
            self.queue.cancel(job.id)
        else:
            self.queue.pause(after_clip=True, reason="paused from the WebUI")

    def _wait(self, cancel: threading.Event, report: Report) -> None:
        told = ""
        while reason := self.hold():
            if reason != told:
                report({"phase": "preparing", "note": reason})
                told = reason
            if cancel.wait(_WATCH_SECONDS) or cancel.is_set():
                raise RenderCancelled("cancelled before it began")

    @contextlib.contextmanager
    def _care(self) -> Iterator[None]:
        """Keep one fault of the set-up from failing every job that waits; and at the end give the GPU back while the
        host still waits, unless the model is needed again at once."""
        try:
            yield
        except SetupError as error:
            self.queue.pause(reason=error.one_line())
            raise
        finally:
            if self.worker is None and not self.keep_warm():
                close_shared_worker()


class _CancelOrPause(threading.Event):
    """Set when the render shall end: with `stop`, or at the end of a clip when a pause was asked for."""

    def __init__(self, stop: StopSignal) -> None:
        super().__init__()
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set()

    def clip_ended(self) -> None:
        if self._stop.after_clip.is_set():
            self.set()


class _Follower:
    """Takes a render's progress: for the queue, the host's bar, a pause at a clip's end, and a thumbnail.

    At the first word it notes in the queue where the files lie, so that a killed run can be gone on with.
    """

    def __init__(
        self, job: Job, out_dir: Path, batch_name: str, timestring: str, report: Report, cancel: _CancelOrPause,
        host_job: host.HostJob,
    ) -> None:  # fmt: skip
        self.source = f"queue job {job.id}, run {job.claim}"
        self._place = out_dir, batch_name, timestring
        self._report, self._cancel, self._host_job = report, cancel, host_job
        self._files: JobFiles | None = None
        self._updates, self._has_thumbnail = 0, False

    def __call__(self, progress: Progress) -> None:
        if self._files is None and (found := _files_under(*self._place, self.source)):
            self._files = found
            self._report.files(folder=found.folder, timestring=found.timestring)
        self._updates += 1
        self._report({**asdict(progress), "updates": self._updates})
        self._host_job.show(progress)
        if progress.phase == "writing":
            self._cancel.clip_ended()
        if not self._has_thumbnail and self._files and progress.clip > 1:
            self._has_thumbnail = True
            with contextlib.suppress(DeforumWanError):
                self._report.files(thumbnail=make_thumbnail(self._files))


def task_name(job_id: int) -> str:
    """The job's name among the host's tasks; its page code shows the progress of such names."""
    return f"task(deforum-wan-{job_id})"


def _place(job: Job, out_dir: Path) -> tuple[RenderSettings, Path, str]:
    """Where the job's files are to lie: where its last run left them, if it goes on from there."""
    settings = job.render_settings()
    if not (job.resume and job.timestring):
        return settings, out_dir, new_timestring()
    folder = Path(job.folder)
    with contextlib.suppress(InputError):
        if job_files(out_dir, settings.batch_name, job.timestring).folder == folder:
            return settings, out_dir, job.timestring
    return replace(settings, batch_name=folder.name), folder.parent, job.timestring


def _files_under(out_dir: Path, batch_name: str, timestring: str, source: str) -> JobFiles | None:
    """The files of this run: a timestring that was taken already got a number behind it."""
    for number in range(1, _MOST_NAMES):
        name = timestring if number == 1 else f"{timestring}-{number}"
        files = job_files(out_dir, batch_name, name)
        if not files.work.is_dir():
            return None
        with contextlib.suppress(InputError):
            if load_manifest(files.manifest).facts.get("source") == source:
                return files
    return None


def _files_of(result: RenderResult) -> dict[str, Any]:
    files: dict[str, Any] = {"folder": result.folder, "timestring": result.timestring}
    if result.video:
        files["video"] = result.video
    with contextlib.suppress(DeforumWanError):
        files["thumbnail"] = make_thumbnail(JobFiles(result.folder, result.timestring), result.frames // 3)
    return files


def make_thumbnail(files: JobFiles, frame: int = 0) -> Path:
    """A small picture of one output frame, in the job's work folder.  Raises InputError, OutputError."""
    path, picture = files.work / THUMBNAIL, files.picture(frame)
    write_thumbnail(path, read_png(picture if picture.exists() else files.preview))
    return path


def _last_word(result: RenderResult, wanted: int) -> str:
    shown = f"{result.frames} of {wanted} frames" if result.cancelled else f"{result.frames} frames"
    return f"{'stopped' if result.cancelled else 'done'}: {shown}, seed {result.seed}, in {result.folder}"
