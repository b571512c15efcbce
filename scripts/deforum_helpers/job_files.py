"""The files of one job: their names, and taking them for one job and one process.

    <out>/<batch name>/<timestring>_000000000.png ...   <timestring>.mp4  .srt  .gif   <timestring>_settings.txt
                       <timestring>_work/manifest.json  clip_000.latents.safetensors  clip_000.frames.npy ...
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .atomic_files import PART, inside, naming
from .errors import InputError, OutputError
from .video.frames import frame_path

_MOST_TRIES = 1000
TIMESTRING = "{timestring}"


@dataclass(frozen=True)
class JobFiles:
    """Where the files of one job lie.  folder: absolute; timestring: what their names start with."""

    folder: Path
    timestring: str

    @property
    def work(self) -> Path:
        return self.folder / f"{self.timestring}_work"

    @property
    def manifest(self) -> Path:
        return self.work / "manifest.json"

    @property
    def settings(self) -> Path:
        return self.folder / f"{self.timestring}_settings.txt"

    @property
    def preview(self) -> Path:
        return self.work / "preview.jpg"

    def result(self, suffix: str) -> Path:
        """The video, or what lies beside it under the same name: ".mp4", ".srt", ".gif"."""
        return self.folder / f"{self.timestring}{suffix}"

    def picture(self, frame: int) -> Path:
        return frame_path(self.folder, self.timestring, frame)

    def pictures(self) -> list[Path]:
        """The output frames that are there, in order."""
        return sorted(p for p in self.folder.glob(f"{_escaped(self.timestring)}_{'[0-9]' * 9}.png"))

    def latents(self, clip: int) -> Path:
        return self.work / f"clip_{clip:03d}.latents.safetensors"

    def frames(self, clip: int) -> Path:
        return self.work / f"clip_{clip:03d}.frames.npy"

    def context(self, clip: int) -> Path:
        """The frames that a clip goes on from."""
        return self.work / f"clip_{clip:03d}.context.npy"

    def guide(self, clip: int) -> Path:
        """The frames that a clip is drawn over from, and the latents of that."""
        return self.work / f"clip_{clip:03d}.guide.npy"

    def redrawn(self, clip: int) -> Path:
        return self.work / f"clip_{clip:03d}.redrawn.safetensors"

    def init_image(self, clip: int) -> Path:
        return self.work / f"clip_{clip:03d}.init.png"

    def end_image(self, clip: int) -> Path:
        return self.work / f"clip_{clip:03d}.end.png"


def new_timestring() -> str:
    return time.strftime("%Y%m%d%H%M%S")


def job_files(out_dir: Path, batch_name: str, timestring: str) -> JobFiles:
    """Where a job's files would lie, never outside out_dir whatever a settings file says.  Raises InputError."""
    inside(out_dir, timestring)
    return JobFiles(inside(out_dir, batch_name.replace(TIMESTRING, timestring)), timestring)


def claim_job(out_dir: Path, batch_name: str, timestring: str | None = None, *, take_over: bool = False) -> JobFiles:
    """Take a timestring that no job has, and make its work folder.

    take_over: a job of this very timestring that was killed before it had a manifest counts as none.
    Raises InputError, OutputError.
    """
    first = timestring or new_timestring()
    for number in range(1, _MOST_TRIES):
        files = job_files(out_dir, batch_name, first if number == 1 else f"{first}-{number}")
        with naming(files.folder):
            files.folder.mkdir(parents=True, exist_ok=True)
            if files.settings.exists() or files.result(".mp4").exists() or files.picture(0).exists():
                continue
            with contextlib.suppress(FileExistsError):
                files.work.mkdir(exist_ok=take_over and not files.manifest.exists())
                return files
    raise OutputError("no free name for the job's files", got=first, next_step="choose another batch_name")


def earlier_jobs(out_dir: Path, batch_name: str) -> list[JobFiles]:
    """Jobs of a batch that left a manifest, newest first."""
    pattern = _escaped(batch_name.replace("\\", "/")).replace(TIMESTRING, "*")
    found = [path.parent for path in Path(out_dir).absolute().glob(f"{pattern}/*_work/manifest.json")]
    jobs = [JobFiles(work.parent, work.name.removesuffix("_work")) for work in found]
    return sorted(jobs, key=lambda job: (job.manifest.stat().st_mtime_ns, job.timestring), reverse=True)


def remove_unfinished_files(files: JobFiles) -> None:
    """Delete what a killed process was in the middle of writing for this job, and nothing of other jobs."""
    name = _escaped(files.timestring)
    for part in (*files.work.glob(f"*{PART}"), *files.folder.glob(f"{name}[_.]*{PART}")):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def only_one_process(files: JobFiles) -> Iterator[None]:
    """Hold the job for this process; the system lets go of it when the process ends, however it ends."""
    with naming(files.work):
        lock = (files.work / "lock").open("a+b")
    with lock:
        try:
            _lock(lock)
        except OSError as error:
            raise InputError(
                "this job is being rendered by another process", got=str(files.work),
                next_step="wait for it, or stop it first",
            ) from error  # fmt: skip
        yield


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _escaped(name: str) -> str:
    """A name for glob, taken as it is; {timestring} stays recognisable."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
