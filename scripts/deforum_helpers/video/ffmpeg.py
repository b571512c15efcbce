"""The ffmpeg program: where it is, what it can do, and what it says about a file.

It only ever gets local files: "file:" in front of each path, the protocols limited to files and pipes, and a
soundtrack limited to real media containers (a playlist could name other places).
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError, SettingsError, SetupError

LONGEST_CALL = 600  # seconds; for one call, for one frame, and for what ffmpeg still does after its last frame
_SOUND_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpc,mpeg,mpegts,ogg,tta,w64,wav,wv"
)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+[:,]")  # two letters or more: "C:" is a drive
_INSTALL = "run: python install.py"
_NTSC_RATES = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 90, 120, 240))
FASTEST = 1000.0


@dataclass(frozen=True)
class Ffmpeg:
    """A working ffmpeg: its path, its version, the names of its encoders."""

    path: str
    version: str
    encoders: frozenset[str]


def find_ffmpeg(explicit: str | Path = "") -> Ffmpeg:
    """The ffmpeg to use, tried out: `explicit`, else imageio-ffmpeg's, else the one on the PATH.

    Raises SetupError when there is none or it doesn't run: call this before a long run.
    """
    candidate = str(explicit) or _imageio_ffmpeg() or "ffmpeg"
    path = shutil.which(candidate)
    if path is None:
        raise SetupError("no ffmpeg here, which writes the video", got=candidate, next_step=_INSTALL)
    return _probe(path, os.stat(path).st_mtime_ns)  # noqa: PTH116 - `path` is a program's name for subprocess


def ffmpeg_is_usable(explicit: str | Path = "") -> bool:
    """Whether find_ffmpeg would succeed."""
    try:
        find_ffmpeg(explicit)
    except SetupError:
        return False
    return True


def _imageio_ffmpeg() -> str:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: the package is there without its program
        return ""


@lru_cache(maxsize=8)
def _probe(path: str, changed: int) -> Ffmpeg:
    """changed: the file's time stamp, so that another program under the same name is probed anew."""
    try:
        version = call(path, "-version").stdout.decode("utf-8", "replace")
        listing = call(path, "-encoders").stdout.decode("utf-8", "replace")
    except OutputError as error:
        raise SetupError(f"this ffmpeg doesn't work: {error.what}", got=path, next_step=_INSTALL) from error
    words = version.split()
    if words[:2] != ["ffmpeg", "version"]:
        raise SetupError("this program isn't ffmpeg", got=path, next_step=_INSTALL)
    encoders = frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\w[\w-]*)", listing, re.MULTILINE))
    return Ffmpeg(path, words[2] if len(words) > 2 else "", encoders)


def call(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg to its end, without a console or input.  Raises OutputError with its last lines."""
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-nostdin", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LONGEST_CALL,
            check=False,
            **apart(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OutputError(f"ffmpeg could not run: {error}") from error
    if done.returncode != 0:
        raise OutputError(f"ffmpeg failed: {last_lines(done.stderr)}")
    return done


def apart() -> dict[str, int | bool]:
    """Process options: Ctrl+C in our terminal is ours to handle, and Windows shows no console window."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def last_lines(stderr: bytes) -> str:
    """The end of what ffmpeg said, on one line."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:] or "no reason given"


def local(path: str | Path) -> str:
    """A path as ffmpeg takes it for a file whatever it looks like."""
    return "file:" + str(Path(path).expanduser().absolute())


def exact_rate(fps: float | Fraction) -> Fraction:
    """fps as the exact fraction that a video carries: 23.976 and 23.98 are 24000/1001, 25 is 25, 12.5 is 25/2.

    Raises SettingsError unless 0 < fps <= 1000.
    """
    if not 0 < fps <= FASTEST:
        raise SettingsError("fps is out of range", got=fps, allowed=f"above 0, at most {FASTEST:g}", where="fps")
    for rate in _NTSC_RATES:
        if abs(Fraction(fps) / rate - 1) < Fraction(1, 5000):
            return rate
    rate = Fraction(fps).limit_denominator(1001)
    return rate or Fraction(1, 1001)


def check_soundtrack(path: str | Path, ffmpeg: str | Path = "") -> Path:
    """Make sure, before the render, that a soundtrack is a local file with audio that can be decoded.

    Returns its absolute path.  Raises InputError; nothing is ever fetched from an address.
    """
    allowed, field = "the path of a sound or video file on this machine", "soundtrack"
    if _SCHEME.match(str(path)):
        next_step = "download it and give the file's path"
        raise InputError("it is never fetched", got=str(path), allowed=allowed, next_step=next_step, where=field)
    try:
        found = Path(path).expanduser().is_file()
    except (OSError, ValueError):  # too long, or with a null character
        found = False
    if not found:
        raise InputError("there is no such file", got=str(path), allowed=allowed, where=field)
    program = find_ffmpeg(ffmpeg).path
    first_second = ["-map", "0:a:0", "-t", "1", "-f", "null", "-"]
    try:
        call(program, "-v", "error", "-xerror", *sound_input(path), *first_second)
    except OutputError as error:
        what = f"no audio in this file that can be read ({error.what})"
        next_step = "choose another file or leave it empty"
        raise InputError(what, got=str(path), allowed=allowed, next_step=next_step, where=field) from error
    return Path(path).expanduser().absolute()


def sound_input(path: str | Path) -> list[str]:
    """ffmpeg's arguments that open a soundtrack and nothing but it."""
    return ["-protocol_whitelist", "file,pipe", "-format_whitelist", _SOUND_CONTAINERS, "-i", local(path)]


def count_frames(path: str | Path, ffmpeg: str | Path = "") -> int:
    """How many frames a video file holds, counted without decoding.  Raises OutputError."""
    done = call(find_ffmpeg(ffmpeg).path, "-v", "error", "-progress", "pipe:1", "-nostats",
                "-protocol_whitelist", "file,pipe", "-i", local(path),
                "-map", "0:v:0", "-c", "copy", "-f", "null", "-")  # fmt: skip
    counts = re.findall(rb"^frame=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(counts[-1]) if counts else 0


def read_video_metadata(path: str | Path, ffmpeg: str | Path = "") -> dict[str, str]:
    """The tags of a video file, e.g. "comment": the settings as JSON.  Raises OutputError."""
    done = call(find_ffmpeg(ffmpeg).path, "-v", "error", "-protocol_whitelist", "file,pipe", "-i", local(path),
                "-f", "ffmetadata", "-")  # fmt: skip
    text = re.split(r"^\[", done.stdout.decode("utf-8", "replace"), maxsplit=1, flags=re.MULTILINE)[0]
    entries = re.findall(r"^((?:\\.|[^\\=\n;#])+)=((?:\\.|[^\\\n])*)$", text, re.MULTILINE | re.DOTALL)
    return {_unescaped(key).lower(): _unescaped(value) for key, value in entries}  # webm has its keys in capitals


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def format_metadata(tags: Mapping[str, str]) -> str:
    """Tags as an ffmetadata file, where values may be long and hold any character."""
    lines = [";FFMETADATA1"]
    for key, value in tags.items():
        lines.append("=".join(re.sub(r"([=;#\\\n])", r"\\\1", text.replace("\0", "")) for text in (key, value)))
    return "\n".join(lines) + "\n"


class _Running:
    """An ffmpeg at work with a pipe to it.  stop() at any time leaves no process behind."""

    def __init__(self, shape: tuple[int, ...], command: list[str], **pipes: int) -> None:
        """shape: of a frame, (height, width, 3).  Raises OutputError."""
        self._shape = shape
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop(); a pipe could fill up and block
        try:
            self._process = subprocess.Popen(command, stderr=self._said, **pipes, **apart())
        except OSError as error:
            self._said.close()
            raise OutputError(f"ffmpeg could not run: {error}") from error

    def stop(self) -> None:
        """End the process if it still runs, and free what belongs to it."""
        if self._process.poll() is None:
            self._process.kill()
        with suppress(OSError):  # the rest of a frame that nobody reads any more
            (self._process.stdin or self._process.stdout).close()
        self._process.wait()
        self._said.close()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """End an ffmpeg that hangs (a file on a share that is gone): a pipe can't be waited for with a limit."""
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            self._process.kill()

        timer = threading.Timer(LONGEST_CALL, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except OutputError as error:
            if not hung.is_set():
                raise
            next_step = "see whether the disk or the share of the file answers, then resume the job"
            raise OutputError(f"ffmpeg did nothing for {LONGEST_CALL} seconds", next_step=next_step) from error
        finally:
            timer.cancel()

    def _failure(self) -> OutputError:
        """Why it failed, ended if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._said.seek(0)
        said = last_lines(self._said.read())
        full = "no space left" in said.lower()
        return OutputError(
            "the disk is full" if full else f"ffmpeg failed: {said}",
            next_step="free some space, then resume the job" if full else "",
        )


class FrameInput(_Running):
    """An ffmpeg that takes raw frames on its standard input: write() as often as wanted, then finish()."""

    def __init__(self, program: str, shape: tuple[int, ...], rate: Fraction, arguments: list[str]) -> None:
        """arguments: what follows the input of index 0, output included."""
        command = [program, "-hide_banner", "-nostdin", "-y", "-v", "error", "-f", "rawvideo",
                   "-pixel_format", "rgb24", "-video_size", f"{shape[1]}x{shape[0]}",
                   "-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0", *arguments]  # fmt: skip
        super().__init__(shape, command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def write(self, frame: np.ndarray) -> None:
        """One frame, uint8 of the shape given.  Raises OutputError when ffmpeg has given up or hangs."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame of {frame.dtype} {frame.shape} among frames of uint8 {self._shape}")
        with self._in_time():
            try:
                self._process.stdin.write(np.ascontiguousarray(frame).data)
            except OSError as error:
                raise self._failure() from error

    def finish(self) -> None:
        """No more frames: wait for the file.  Raises OutputError."""
        with self._in_time():
            try:
                self._process.stdin.close()
            except OSError as error:
                raise self._failure() from error
            if self._process.wait() != 0:
                raise self._failure()


class FrameOutput(_Running):
    """An ffmpeg that gives raw frames on its standard output: read() until there are no more."""

    def __init__(self, program: str, shape: tuple[int, int, int], arguments: list[str]) -> None:
        """arguments: the input and what is done to it."""
        command = [program, "-hide_banner", "-nostdin", "-v", "error", *arguments,
                   "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]  # fmt: skip
        super().__init__(shape, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def read(self) -> np.ndarray | None:
        """The next frame, uint8 of the shape given, None behind the last one.  Raises OutputError."""
        size = math.prod(self._shape)
        with self._in_time():
            pixels = self._process.stdout.read(size)
            if len(pixels) == size:
                return np.frombuffer(pixels, np.uint8).reshape(self._shape)
            if self._process.wait() != 0:
                raise self._failure()
        return None
