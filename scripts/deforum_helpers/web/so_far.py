"""The frames that a running job has finished so far, as a small video that a page can play."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..job_files import JobFiles
from ..preflight import isolated_ffmpeg
from ..video.ffmpeg import exact_rate
from ..video.frames import read_png
from ..video_io import VideoOptions, encode_video

NAME = "so_far.mp4"
_LONGEST_SIDE = 640
_MOST_FRAMES = 600  # of a longer one every second frame is shown, or every third ...


class SoFar:
    """Makes the small video when it is asked for, and again only when there are more frames."""

    def __init__(self) -> None:
        self._locks: dict[Path, threading.Lock] = {}
        self._covered: dict[Path, int] = {}

    def video(self, files: JobFiles, fps: float) -> Path | None:
        """The video of all frames there are, None where there is none yet.

        Who asks while it is being made gets the former one, or waits for the first.  Raises OutputError, SetupError.
        """
        path, pictures = files.work / NAME, files.pictures()
        if not pictures:
            return None
        lock = self._locks.setdefault(path, threading.Lock())
        if lock.locked() and path.exists():
            return path
        with lock:
            if self._covered.get(path, 0) < len(pictures) or not path.exists():
                _encode(pictures, path, fps)
                self._covered[path] = len(pictures)
        return path

    def forget(self, files: JobFiles) -> None:
        """Of a job that has ended: its real video is there, the small one goes."""
        path = files.work / NAME
        self._locks.pop(path, None)
        self._covered.pop(path, None)
        with suppress(OSError):  # a player on Windows may still have it open
            path.unlink(missing_ok=True)


def _encode(pictures: list[Path], path: Path, fps: float) -> None:
    stride = -(-len(pictures) // _MOST_FRAMES)
    rate: Fraction = exact_rate(fps) / stride
    options = VideoOptions(fps=rate, crf=26, preset="ultrafast")
    encode_video(_small(pictures[::stride]), path, options, isolated_ffmpeg())


def _small(pictures: list[Path]) -> Iterator[np.ndarray]:
    for picture in pictures:
        try:
            image = Image.fromarray(read_png(picture))
        except InputError:  # the last one is still being written
            return
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        yield np.asarray(image)
