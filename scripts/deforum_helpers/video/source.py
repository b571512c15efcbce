"""A video file as a source of frames: what is in it, and chosen frames of it at another size.

Only local files in real media containers are opened, see ffmpeg.py.  A file's frames are counted at its mean rate from
its first one on, so that frame i is what a player shows at i / rate, in files of a changing rate too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError, RenderError, SettingsError
from .ffmpeg import call, exact_rate, find_ffmpeg, local

_CONTAINERS = "asf,avi,flv,gif,matroska,mov,mpeg,mpegts,mxf,ogg,rm"
_LARGEST_SIDE = 8192  # pixels; a larger picture is no video that anyone films, and decoding it would fill the memory
_UNSURE = 8  # frames by which a container's count and what comes out of the decoder may differ
_STREAM = re.compile(r"Stream #0:\d+.*?: Video: .*?, (\d{1,6})x(\d{1,6})[ ,\[].*")
_RATE = re.compile(r"([\d.]+)(k?) (?:fps|tbr)\b")


@dataclass(frozen=True)
class Source:
    """A video file that can be read.  rate: frames a second; frames: how many.  program: the ffmpeg that reads it."""

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
            "there is no such video", where=where, got=str(path), next_step="check the path, or leave it empty"
        )
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
    done = call(program, "-v", "info", "-progress", "pipe:1", "-nostats", *_input(path),
                "-map", "0:v:0", "-c", "copy", "-f", "null", "-")  # fmt: skip
    stream = _STREAM.search(done.stderr.decode("utf-8", "replace"))
    rate = stream and _RATE.search(stream[0])
    counts = re.findall(rb"^frame=\s*(\d+)", done.stdout, re.MULTILINE)
    if not stream or not rate or not counts or int(counts[-1]) < 2:
        raise OutputError("it has no moving pictures")
    width, height = int(stream[1]), int(stream[2])
    if not 0 < max(width, height) <= _LARGEST_SIDE:
        raise OutputError(f"its pictures are {width} x {height}, more than {_LARGEST_SIDE} a side")
    try:
        exact = exact_rate(float(rate[1]) * (1000 if rate[2] else 1))
    except SettingsError as error:
        raise OutputError(f"it has {rate[1]}{rate[2]} frames a second") from error
    source = Source(path, exact, int(counts[-1]), width, height, program)
    if not _decoded(source, [0], 16, 16).size:
        raise OutputError("its first picture can't be decoded")
    return source


def read_frames(source: Source, indices: Sequence[int], width: int, height: int) -> np.ndarray:
    """Frames of a video, scaled to cover width x height and cropped at the centre: uint8 [len(indices), H, W, 3].

    indices: ascending, repeats allowed; past the video's end they mean its last frame.  Raises RenderError, InputError.
    """
    wanted = [min(index, source.frames - 1) for index in indices]
    chosen = set(wanted)
    if wanted[-1] >= source.frames - _UNSURE:
        chosen |= set(range(max(0, source.frames - _UNSURE), wanted[-1]))
    order = sorted(chosen)
    try:
        frames = _decoded(source, order, width, height)
    except OutputError as error:
        raise RenderError(f"a video can't be read ({error.what})", got=source.path) from error
    if not len(frames):
        raise InputError("this video is shorter than it was", got=source.path, next_step="give it whole again")
    places = np.minimum(np.searchsorted(order, wanted), len(frames) - 1)
    return frames[places]


def _decoded(source: Source, indices: list[int], width: int, height: int) -> np.ndarray:
    """As many of the frames as there are, uint8 [n, height, width, 3].  Raises OutputError."""
    chosen = "+".join(f"between(n,{first},{last})" for first, last in _runs(indices))
    filters = (
        f"fps={source.rate.numerator}/{source.rate.denominator},select='{chosen}',setpts=N/FRAME_RATE/TB,"
        "scale=w='max(1,trunc(iw*sar))':h=ih,setsar=1,"  # pixels that aren't square
        f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic+accurate_rnd+full_chroma_int,"
        f"crop={width}:{height}"
    )
    done = call(source.program, "-v", "error", *_input(source.path), "-map", "0:v:0", "-vf", filters,
                "-frames:v", str(len(indices)), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")  # fmt: skip
    size = width * height * 3
    whole = len(done.stdout) // size
    return np.frombuffer(done.stdout, np.uint8, whole * size).reshape(whole, height, width, 3)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs without a gap, (first, last) each."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _input(path: str) -> list[str]:
    """ffmpeg's arguments that open a video and nothing but it."""
    return ["-protocol_whitelist", "file,pipe", "-format_whitelist", _CONTAINERS, "-i", local(path)]
