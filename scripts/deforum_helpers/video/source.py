"""A video file as a source of frames: what is in it, and chosen frames of it at another size.

Only local files in real media containers are opened, see ffmpeg.py.  A file's frames are counted at its mean rate from
its first one on, so that frame i is what a player shows at i / rate, in files of a changing rate too.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError, RenderCancelled, RenderError, SettingsError
from .ffmpeg import FrameOutput, call, exact_rate, find_ffmpeg, local

_CONTAINERS = "asf,avi,flv,gif,matroska,mov,mpeg,mpegts,mxf,ogg,rm"
_LARGEST_SIDE = 8192  # pixels; a larger picture is no video that anyone films, and decoding it would fill the memory
_UNSURE = 8  # frames by which a container's count and what comes out of the decoder may differ
_SIGN_OF_LIFE = 100  # of the frames that are passed over, each such one comes along, so that a stop is heard
_PLAINLY = (  # what ffmpeg says of a file -> what that means
    ("0:v:0", "it holds no pictures"),
    ("Error opening input", "it is damaged, or no video at all"),
)
_STREAM = re.compile(r"Stream #0:\d+.*?: Video: .*?, (\d{1,6})x(\d{1,6})[ ,\[].*")
_UPRIGHT = re.compile(r"display ?matrix: rotation of -?90\.", re.IGNORECASE)  # ffmpeg turns the frames itself
_RATE = re.compile(r"([\d.]+)(k?) (?:fps|tbr)\b")


@dataclass(frozen=True)
class Source:
    """A video file that can be read.

    rate: frames a second; frames: how many.  width, height: as shown.  program: the ffmpeg that reads it.
    """

    path: str
    rate: Fraction
    frames: int
    width: int
    height: int
    program: str

    @property
    def seconds(self) -> float:
        return float(self.frames / self.rate)


def open_source(path: str | Path, where: str, ffmpeg: str | Path = "") -> Source:
    """Look into a video file.  where: the settings field that names it.  Raises SettingsError, SetupError."""
    place = Path(path).expanduser().absolute()
    try:
        stat = place.stat()
    except (OSError, ValueError):  # ValueError: a null character
        stat = None
    if stat is None or not place.is_file():
        raise SettingsError(
            "is no file" if stat else "there is no such video", where=where, got=str(path),
            next_step="check the path, or leave it empty",
        )  # fmt: skip
    try:
        return _looked_into(str(place), find_ffmpeg(ffmpeg).path, stat.st_mtime_ns, stat.st_size)
    except OutputError as error:
        raise SettingsError(
            f"is no video that can be read ({error.what})", where=where, got=str(path),
            next_step="give an mp4, mkv, webm, mov or avi file",
        ) from error  # fmt: skip


@lru_cache(maxsize=16)
def _looked_into(path: str, program: str, changed: int, size: int) -> Source:
    """changed, size: of the file, so that another one under its name is looked into anew.  Raises OutputError."""
    try:
        done = call(program, "-v", "info", "-progress", "pipe:1", "-nostats", *_input(path),
                    "-map", "0:v:0", "-c", "copy", "-f", "null", "-")  # fmt: skip
    except OutputError as error:
        raise OutputError(next((plain for said, plain in _PLAINLY if said in error.what), error.what)) from error
    said = done.stderr.decode("utf-8", "replace")
    stream = _STREAM.search(said)
    rate = stream and _RATE.search(stream[0])
    counts = re.findall(rb"^frame=\s*(\d+)", done.stdout, re.MULTILINE)
    if not stream or not rate or not counts or int(counts[-1]) < 2:
        raise OutputError("it holds no more than one picture; init_image takes that")
    width, height = int(stream[1]), int(stream[2])
    if _UPRIGHT.search(said, stream.end()):
        width, height = height, width
    if not 0 < max(width, height) <= _LARGEST_SIDE:
        raise OutputError(f"its pictures are {width} x {height}, more than {_LARGEST_SIDE} a side")
    try:
        exact = exact_rate(float(rate[1]) * (1000 if rate[2] else 1))
    except SettingsError as error:
        raise OutputError(f"it has {rate[1]}{rate[2]} frames a second") from error
    source = Source(path, exact, int(counts[-1]), width, height, program)
    try:
        read_frames(source, [0], 16, 16)
    except (RenderError, InputError) as error:
        raise OutputError("its first picture can't be decoded") from error
    return source


class Reel:
    """Frames of a video for one stretch after another; the file is decoded once, from its start.

    That way each frame is what it is in the whole video, whatever the file's rates, codec and index are like, and
    a job of many clips costs one decoding.

        with closing(Reel(source, {0: [0, 2, 4], 1: [3, 5]}, width, height)) as reel:
            frames = reel.read(0)
    """

    def __init__(self, source: Source, stretches: Mapping[int, Sequence[int]], width: int, height: int) -> None:
        """stretches: number -> frames of the video, ascending, repeats allowed; past its end they mean its last one.

        They are read by rising number.
        """
        self._source, self._stretches, self._shape = source, stretches, (height, width, 3)
        self._last_use = np.full(source.frames, -1, np.int32)  # frame -> the last stretch that shows it
        for number, stretch in sorted(stretches.items()):
            self._last_use[np.minimum(stretch, source.frames - 1)] = number
        self._kept: dict[int, np.ndarray] = {}
        self._latest: np.ndarray | None = None  # the frame before _next
        self._first = self._next = 0
        self._at_end = False
        self._frames: FrameOutput | None = None

    def read(self, number: int, cancel: threading.Event | None = None) -> np.ndarray:
        """A stretch's frames, scaled to cover width x height and cropped at the centre: uint8 [n, H, W, 3].

        cancel: ends it when set.  Raises RenderError, InputError, RenderCancelled.
        """
        wanted = np.minimum(self._stretches[number], self._source.frames - 1).tolist()
        try:
            self._read_to(number, wanted[-1], cancel)
        except OutputError as error:
            raise RenderError(f"a video can't be read ({error.what})", got=self._source.path) from error
        if self._next <= max(0, min(wanted[0], self._source.frames - _UNSURE)):
            raise InputError(
                "this video is shorter than it was", got=self._source.path, next_step="give it whole again"
            )
        frames = np.stack([self._kept.get(index, self._latest) for index in wanted])
        self._kept = {index: frame for index, frame in self._kept.items() if self._last_use[index] > number}
        return frames

    def close(self) -> None:
        if self._frames is not None:
            self._frames.stop()

    def _read_to(self, number: int, last: int, cancel: threading.Event | None) -> None:
        """Decode up to a frame, or to the end, and keep what stretch `number` and those behind it show."""
        if self._frames is None:
            first = min(stretch[0] for other, stretch in self._stretches.items() if other >= number)
            # the last frames are wanted too, one of which stands in for those that the container counts too many
            first = max(0, min(first, self._source.frames - _UNSURE))
            self._first, self._frames = first, _decoder(self._source, first, self._shape)
        while self._next <= last and not self._at_end:
            if cancel is not None and cancel.is_set():
                raise RenderCancelled("cancelled")
            frame = self._frames.read()
            if frame is None:
                self._at_end = True
                continue
            if self._last_use[self._next] >= number:
                self._kept[self._next] = frame
            self._latest = frame
            self._next += 1 if self._next >= self._first else min(_SIGN_OF_LIFE, self._first - self._next)


def read_frames(source: Source, indices: Sequence[int], width: int, height: int) -> np.ndarray:
    """Frames of a video, see Reel: uint8 [len(indices), H, W, 3].  Raises RenderError, InputError."""
    with closing(Reel(source, {0: indices}, width, height)) as reel:
        return reel.read(0)


def _decoder(source: Source, first: int, shape: tuple[int, int, int]) -> FrameOutput:
    """An ffmpeg that gives a video's frames from `first` on, and each _SIGN_OF_LIFE-th before.  Raises OutputError."""
    height, width, _ = shape
    filters = (
        f"fps={source.rate.numerator}/{source.rate.denominator},"
        f"select='gte(n,{first})+not(mod(n,{_SIGN_OF_LIFE}))',setpts=N/FRAME_RATE/TB,"
        "scale=w='max(1,trunc(iw*sar))':h=ih,setsar=1,"  # pixels that aren't square
        f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic+accurate_rnd+full_chroma_int,"
        f"crop={width}:{height}"
    )
    return FrameOutput(source.program, shape, [*_input(source.path), "-map", "0:v:0", "-vf", filters])


def _input(path: str) -> list[str]:
    """ffmpeg's arguments that open a video and nothing but it."""
    return ["-protocol_whitelist", "file,pipe", "-format_whitelist", _CONTAINERS, "-i", local(path)]
