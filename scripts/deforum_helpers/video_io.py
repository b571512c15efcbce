"""Output frames into a video file or a GIF, through ffmpeg, whole or not at all.

    write:   frames --stdin--> ffmpeg --> <name>.part --soundtrack, frame count--> <name>

What is written is counted again in the finished file before it takes its name.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from .atomic_files import part_file
from .errors import OutputError, SettingsError, SetupError
from .video.ffmpeg import (
    Ffmpeg,
    FrameInput,
    call,
    count_frames,
    exact_rate,
    find_ffmpeg,
    format_metadata,
    local,
    sound_input,
)

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
GIF_FASTEST = 25  # frames per second; many viewers slow down what is faster than 50, and files double for little
_PALETTE_FRAMES = 64


@dataclass(frozen=True)
class Codec:
    """One row: an encoder of ffmpeg and how the project's settings reach it.

    arguments: ffmpeg's, with {crf} and {speed}.  speeds: what {speed} is for each of PRESETS.
    """

    title: str
    suffix: str
    pixel_format: str
    arguments: str
    audio: str = "aac -b:a 192k"
    highest_crf: int = 51
    speeds: tuple[str, ...] = PRESETS


CODECS: dict[str, Codec] = {
    "libx264": Codec("H.264, plays everywhere", ".mp4", "yuv420p", "-crf {crf} -preset {speed}"),
    "libx265": Codec(
        "H.265, smaller", ".mp4", "yuv420p", "-crf {crf} -preset {speed} -tag:v hvc1 -x265-params log-level=error"
    ),
    "libsvtav1": Codec(
        "AV1, smallest", ".mp4", "yuv420p", "-crf {crf} -preset {speed}",
        highest_crf=63, speeds=("12", "11", "10", "9", "8", "7", "5", "4", "3"),
    ),
    "libvpx-vp9": Codec(
        "VP9 for the web", ".webm", "yuv420p", "-crf {crf} -b:v 0 -deadline good -cpu-used {speed} -row-mt 1",
        audio="libopus -b:a 160k", highest_crf=63, speeds=("8", "7", "6", "5", "4", "3", "2", "1", "0"),
    ),
    "prores_ks": Codec(
        "ProRes 422 HQ for editing; crf has no effect", ".mov", "yuv422p10le", "-profile:v 3 -vendor apl0",
        audio="pcm_s16le",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class VideoOptions:
    """How a video is written.  fps: any rate; 23.976 is stored as 24000/1001.

    soundtrack: a local file that check_soundtrack passed, cut at the video's end; a shorter one leaves silence.
    metadata: tags of the file, of any length: "title", "comment" (the settings as JSON) ...
    """

    fps: float | Fraction
    codec: str = "libx264"
    crf: int = 17
    preset: str = "medium"
    soundtrack: str | Path = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def usable_codecs(ffmpeg: str | Path = "") -> list[str]:
    """The rows of CODECS that this ffmpeg can encode.  Raises SetupError without a working ffmpeg."""
    encoders = find_ffmpeg(ffmpeg).encoders
    return [name for name in CODECS if name in encoders]


def check_options(options: VideoOptions, ffmpeg: str | Path = "") -> Ffmpeg:
    """Make sure, before the render, that a video can be written so.

    Returns the ffmpeg to use.  Raises SettingsError or SetupError.
    """
    exact_rate(options.fps)
    codec = CODECS.get(options.codec)
    if codec is None:
        raise SettingsError("unknown codec", got=options.codec, allowed=", ".join(CODECS), where="codec")
    if not 0 <= options.crf <= codec.highest_crf:
        raise SettingsError("crf is out of range", got=options.crf, allowed=f"0 to {codec.highest_crf}", where="crf")
    if options.preset not in PRESETS:
        raise SettingsError("unknown preset", got=options.preset, allowed=", ".join(PRESETS), where="ffmpeg_preset")
    program = find_ffmpeg(ffmpeg)
    if options.codec not in program.encoders:
        raise SetupError(
            f"this ffmpeg ({program.version}) has no {options.codec}",
            got=program.path,
            allowed=", ".join(usable_codecs(ffmpeg)),
            next_step="choose one of these, or run: python install.py",
        )
    return program


def encode_video(
    frames: Iterable[np.ndarray], path: str | Path, options: VideoOptions, ffmpeg: str | Path = ""
) -> int:
    """Write all frames, uint8 [H, W, 3] of one size, as a video.  Returns their number.  Raises as open_video."""
    with open_video(path, options, ffmpeg) as video:
        for frame in frames:
            video.write(frame)
    return video.frames


@contextmanager
def open_video(path: str | Path, options: VideoOptions, ffmpeg: str | Path = "") -> Iterator[VideoEncoder]:
    """A video that takes frames while they are made, finished and under its name when the block ends.

        with open_video(path, options) as video:
            video.write(frame)

    A block that fails leaves nothing behind, ends ffmpeg and keeps an older file of that name.
    path: any name; the format is the codec's.  An odd width or height gets one row or column more, a copy of the
    last, for halved colour needs even sizes.
    Raises SettingsError or SetupError at once for what can't be written, OutputError when ffmpeg or the disk fails.
    """
    program = check_options(options, ffmpeg)
    with part_file(path) as part, tempfile.TemporaryDirectory(prefix="deforum_wan_") as scratch:
        tags = Path(scratch) / "tags.txt"
        tags.write_text(format_metadata(options.metadata), encoding="utf-8", newline="\n")
        picture = part.with_name(f"{part.stem}.picture.part") if options.soundtrack else part
        video = VideoEncoder(program.path, picture, tags, options)
        try:
            yield video
            video.finish()
            if options.soundtrack:
                _add_soundtrack(program.path, picture, part, options, Fraction(video.frames) / exact_rate(options.fps))
        except OutputError as error:
            raise OutputError(error.what, got=str(path), next_step=error.next_step) from error
        finally:
            video.stop()
            if picture != part:
                picture.unlink(missing_ok=True)
        counted = count_frames(part, program.path)
        if counted != video.frames:
            raise OutputError(f"the video holds {counted} frames instead of {video.frames}", got=str(path),
                              next_step="choose another codec, or resume the job to write it again")  # fmt: skip


class VideoEncoder:
    """The video that open_video is writing.  frames: how many it has taken."""

    def __init__(self, program: str, target: Path, tags: Path, options: VideoOptions) -> None:
        self.frames = 0
        self._program, self._target, self._tags, self._options = program, target, tags, options
        self._input: FrameInput | None = None

    def write(self, frame: np.ndarray) -> None:
        """Take the next frame, uint8 [H, W, 3], as large as the first.  Raises OutputError."""
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._input is None:
            self._input = FrameInput(self._program, frame.shape, exact_rate(self._options.fps), self._arguments())
        self._input.write(frame)
        self.frames += 1

    def finish(self) -> None:
        """Have ffmpeg end the file.  Raises OutputError."""
        if self._input is None:
            raise OutputError("there is no frame to write")
        self._input.finish()

    def stop(self) -> None:
        """Leave no process behind."""
        if self._input is not None:
            self._input.stop()

    def _arguments(self) -> list[str]:
        options, codec = self._options, CODECS[self._options.codec]
        speed = codec.speeds[PRESETS.index(options.preset)]
        return [
            "-f", "ffmetadata", "-i", local(self._tags), "-map", "0:v:0", "-map_metadata", "1",
            # Without a named matrix ffmpeg converts as for old television and players guess: colours would shift.
            "-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,"
                   f"format={codec.pixel_format},"
                   "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709",
            "-c:v", options.codec, *codec.arguments.format(crf=options.crf, speed=speed).split(),
            *_container(codec), local(self._target),
        ]  # fmt: skip


def make_gif(
    frames: Sequence[np.ndarray],
    path: str | Path,
    fps: float | Fraction,
    *,
    longest_side: int = 480,
    ffmpeg: str | Path = "",
) -> int:
    """Write a looping GIF with a palette of its own.  Returns the number of pictures in it.

    Every k-th frame is kept, so that at most GIF_FASTEST pictures a second remain, evenly spaced.  A GIF counts time
    in hundredths of a second: each picture's time is rounded, not its duration, so nothing adds up, and the last one
    stays as long as the frames it stands for.  The whole takes frames / fps, to a hundredth.
    Raises SettingsError, SetupError or OutputError; atomic as open_video.
    """
    rate, program = exact_rate(fps), find_ffmpeg(ffmpeg).path
    step = max(1, math.ceil(rate / GIF_FASTEST))
    kept = range(0, len(frames), step)
    if not kept:
        raise OutputError("there is no frame to write", got=str(path))
    last_delay = round(100 * len(frames) / rate) - round(100 * kept[-1] / rate)
    with part_file(path) as part, tempfile.TemporaryDirectory(prefix="deforum_wan_") as scratch:
        palette = Path(scratch) / "palette.png"
        chosen = kept[:: max(1, len(kept) // _PALETTE_FRAMES)]
        _pipe(program, (_fitted(frames[k], longest_side) for k in chosen), Fraction(1),
              ["-vf", "palettegen=stats_mode=full", "-frames:v", "1", local(palette)])  # fmt: skip
        _pipe(program, (_fitted(frames[k], longest_side) for k in kept), rate / step,
              ["-i", local(palette), "-lavfi", "paletteuse=dither=bayer:bayer_scale=3:diff_mode=rectangle",
               "-loop", "0", "-final_delay", str(last_delay), "-f", "gif", local(part)])  # fmt: skip
    return len(kept)


def _pipe(program: str, frames: Iterator[np.ndarray], rate: Fraction, arguments: list[str]) -> None:
    first = next(frames)
    receiver = FrameInput(program, first.shape, rate, arguments)
    try:
        for frame in chain((first,), frames):
            receiver.write(frame)
        receiver.finish()
    finally:
        receiver.stop()


def _fitted(frame: np.ndarray, longest_side: int) -> np.ndarray:
    """The frame, made smaller if it is larger than that."""
    picture = Image.fromarray(np.ascontiguousarray(frame))
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _container(codec: Codec) -> list[str]:
    """Format options: the index in front, so that a browser plays while it loads; tags of any name and length."""
    name = {".mp4": "mp4", ".mov": "mov", ".webm": "webm"}[codec.suffix]
    return ["-f", name] if name == "webm" else ["-movflags", "+faststart+use_metadata_tags", "-f", name]


def _add_soundtrack(program: str, picture: Path, target: Path, options: VideoOptions, seconds: Fraction) -> None:
    """Put sound to a finished video without touching its frames; sound past the end is cut off."""
    codec = CODECS[options.codec]
    call(program, "-y", "-v", "error", "-i", local(picture), *sound_input(options.soundtrack),
         "-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "0", "-c:v", "copy",
         "-af", f"atrim=end={float(seconds):.6f}", "-c:a", *codec.audio.split(),
         *_container(codec), local(target))  # fmt: skip
