"""Frames on disk: a clip's native frames, the PNGs of the output, thumbnails.

A frame is uint8 [H, W, 3], RGB.
"""

from __future__ import annotations

import io
import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from PIL import Image, PngImagePlugin

from ..atomic_files import naming, part_file, sync_directory, write_bytes
from ..errors import InputError, RenderError

PARAMETERS_KEY = "parameters"  # where a WebUI's "PNG Info" looks
SETTINGS_KEY = "deforum_wan"  # the settings as JSON, to be loaded again
_COMPRESS_LEVEL = 1  # a tenth of level 9's time for files 9 % larger


def open_frames(path: str | Path) -> np.ndarray:
    """A clip's native frames, uint8 [F, H, W, 3], mapped and not read: each frame is read when it is touched.

    Raises RenderError when the file is missing, cut off or something else.
    """
    next_step = "resume the job: the clip is decoded again"
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RenderError(f"a clip's frames can't be read: {error}", got=str(path), next_step=next_step) from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        got, allowed = f"{frames.dtype} {list(frames.shape)} in {path}", "uint8 [frames, height, width, 3]"
        raise RenderError("this isn't a file of frames", got=got, allowed=allowed, next_step=next_step)
    return frames


def save_frames(path: str | Path, frames: np.ndarray) -> None:
    """Store native frames for open_frames, all of them or none.  Raises OutputError."""
    with part_file(path) as part, naming(path), part.open("wb") as file:
        np.save(file, frames, allow_pickle=False)


def png_metadata(parameters: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """The two texts that a frame carries: one for people and the WebUI, one that loads back."""
    return {PARAMETERS_KEY: parameters, SETTINGS_KEY: json.dumps(settings, ensure_ascii=False)}


def write_png(path: str | Path, frame: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write one frame, whole or not at all, with text entries of any language.  Raises OutputError."""
    write_bytes(path, _encode_png(frame, metadata or {}), sync_folder=False)


def read_png(path: str | Path) -> np.ndarray:
    """A PNG (or any picture Pillow reads) as uint8 [H, W, 3].  Raises InputError."""
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"this picture can't be read: {error}", got=str(path)) from error


def read_png_metadata(path: str | Path) -> dict[str, str]:
    """The text entries of a PNG.  Raises InputError."""
    try:
        with Image.open(path) as picture:
            return {key: str(text) for key, text in getattr(picture, "text", {}).items()}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"this picture can't be read: {error}", got=str(path)) from error


def frame_path(folder: str | Path, timestring: str, index: int) -> Path:
    """Where output frame `index` lies: <timestring>_%09d.png."""
    return Path(folder) / f"{timestring}_{index:09d}.png"


def write_thumbnail(path: str | Path, frame: np.ndarray, longest_side: int = 320) -> None:
    """A small picture for lists; ".jpg" or ".png" by the name.  Raises OutputError."""
    picture = Image.fromarray(np.ascontiguousarray(frame))
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        picture.save(buffer, "JPEG", quality=85)
    else:
        picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


class StoredFrames(Sequence[np.ndarray]):
    """Frames on disk, each read when it is touched.  A kind of them says how many and how one is read."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Frame 0 <= index < len(self), uint8 [H, W, 3]."""

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self.read(k) for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.read(index % len(self))


class PngSequence(StoredFrames):
    """Output frames [0, count) read back from their PNGs."""

    def __init__(self, folder: str | Path, timestring: str, count: int) -> None:
        self._folder, self._timestring, self._count = Path(folder), timestring, count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> np.ndarray:
        return read_png(frame_path(self._folder, self._timestring, index))


class FrameWriter:
    """Writes output frames as PNGs from several threads, so that it overlaps with sampling.

        with FrameWriter(folder, timestring, metadata) as writer:
            for frame in frames:
                writer.put(frame)

    Frames come in order and get consecutive numbers.  At most `waiting` frames are held; put() blocks beyond that.
    The first error of a thread is raised by the next put(), or by close() at the latest.
    """

    def __init__(
        self,
        folder: str | Path,
        timestring: str,
        metadata: Mapping[str, str] | Callable[[int], Mapping[str, str]] | None = None,
        *,
        first_index: int = 0,
        threads: int = 4,
        waiting: int = 16,
    ) -> None:
        """metadata: text entries of every frame, or a function of the frame's index that gives them."""
        self.next_index = first_index
        self._folder, self._timestring = Path(folder), timestring
        self._metadata = metadata if callable(metadata) else lambda _: metadata or {}
        self._room = threading.BoundedSemaphore(waiting)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="png")
        self._error: BaseException | None = None

    def put(self, frame: np.ndarray) -> Path:
        """Queue the next frame, uint8 [H, W, 3]; the caller may reuse its array.  Returns the path it will have."""
        self._raise_first_error()
        path = frame_path(self._folder, self._timestring, self.next_index)
        metadata, own = self._metadata(self.next_index), np.array(frame)
        self._room.acquire()
        self._pool.submit(write_png, path, own, metadata).add_done_callback(self._done)
        self.next_index += 1
        return path

    def close(self) -> None:
        """Wait until everything is written.  Raises the first error."""
        self._pool.shutdown(wait=True)
        self._raise_first_error()
        sync_directory(self._folder)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # what is under way gets finished, the error that ended the block is the one to report
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and self._error is None:
            self._error = future.exception()
        self._room.release()

    def _raise_first_error(self) -> None:
        if self._error is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise self._error


def _encode_png(frame: np.ndarray, metadata: Mapping[str, str]) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in metadata.items():
        info.add_text(key, text)  # as iTXt where latin-1 isn't enough
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "PNG", compress_level=_COMPRESS_LEVEL, pnginfo=info)
    return buffer.getvalue()
