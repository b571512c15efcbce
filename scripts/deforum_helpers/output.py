"""Finished clips into PNGs and a video, on a thread of its own, while the next clip is sampled."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from .clips import Job, output_frames, pictures_fingerprint
from .manifest import Manifest, pictures_are_whole
from .planning.travel import Span
from .settings import settings_to_dict
from .timeline import Clip, Plan
from .video.frames import FrameWriter, png_metadata, read_png
from .video.subtitles import Segment, write_srt
from .video_io import VideoEncoder, VideoOptions, open_video


class OutputWriter:
    """Takes clips in order with `add`; `finish` waits for them.

    options: how to write the video, None = pictures only.  frames: output frames on disk, counted from the first.
    An error of the thread is raised by the next call.
    """

    def __init__(
        self, job: Job, manifest: Manifest, video: Path, options: VideoOptions | None, ffmpeg: str = ""
    ) -> None:
        self.frames = 0
        self._job, self._manifest = job, manifest
        self._video, self._options, self._ffmpeg = video, options, ffmpeg
        self._clips: queue.Queue[Clip | None] = queue.Queue()
        self._error: BaseException | None = None
        self._keep_video = True
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    def add(self, clip: Clip) -> None:
        """Queue a rendered clip."""
        self._raise_error()
        self._clips.put(clip)

    def finish(self, *, keep_video: bool = True) -> None:
        """Write what is queued; then end the video, or leave it away and an older one as it was."""
        self._keep_video = keep_video
        self._clips.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        try:
            with contextlib.suppress(_NoVideo), self._open_video() as video:
                while (clip := self._clips.get()) is not None:
                    for frame in self._frames_of(clip):
                        if video is not None:
                            video.write(frame)
                    self.frames = clip.end_frame
                if not (self._keep_video and self.frames):
                    raise _NoVideo
        except BaseException as error:
            self._error = error

    def _open_video(self) -> contextlib.AbstractContextManager[VideoEncoder | None]:
        if self._options is None:
            return contextlib.nullcontext()
        return open_video(self._video, self._options, self._ffmpeg)

    def _frames_of(self, clip: Clip) -> Iterator[np.ndarray]:
        """The clip's output frames, read where an earlier run left them, else made, written and then passed on."""
        job, record = self._job, self._manifest.clips[clip.index]
        frames = range(clip.start_frame, clip.end_frame)
        shown = pictures_fingerprint(job, clip, record.fingerprint)
        if record.state == "written" and record.pictures == shown and pictures_are_whole(job.files, frames):
            for frame in frames:
                yield read_png(job.files.picture(frame))
            return
        pictures, settings = output_frames(job, clip), settings_to_dict(job.settings)
        for span in clip.heard:
            metadata = png_metadata(parameters(job, clip, span), settings)
            with FrameWriter(job.files.folder, job.files.timestring, metadata, first_index=span.start_frame) as writer:
                for picture in islice(pictures, span.end_frame - span.start_frame):
                    writer.put(picture)
                    yield picture
        self._manifest.set_clip(clip.index, state="written", pictures=shown)


class _NoVideo(Exception):
    """Leaves open_video without a video."""


def parameters(job: Job, clip: Clip, span: Span) -> str:
    """The facts of a span's frames in the form that a WebUI's "PNG Info" reads."""
    facts = {
        "Steps": clip.num_inference_steps,
        "Sampler": clip.solver,
        "CFG scale": f"{clip.guidance_scale:g}",
        "Seed": clip.seed,
        "Size": f"{job.settings.width}x{job.settings.height}",
        "Model": job.model.name,
        "Shift": f"{clip.shift:g}",
    }
    lines = [span.said, f"Negative prompt: {span.negative_prompt}" if span.negative_prompt else ""]
    return "\n".join([*filter(None, lines), ", ".join(f"{name}: {value}" for name, value in facts.items())])


def write_subtitles(plan: Plan, frames: int, path: Path) -> None:
    """The prompts of the first `frames` output frames, what is heard on end as one entry.  Raises OutputError."""
    segments: list[Segment] = []
    for span in (span for clip in plan.clips for span in clip.heard):
        end = min(span.end_frame, frames)
        if segments and segments[-1].prompt == span.said:
            segments[-1] = replace(segments[-1], end_frame=max(end, segments[-1].start_frame))
        else:
            segments.append(Segment(span.start_frame, end, span.said, span.negative_prompt))
    write_srt(segments, plan.fps, path)
