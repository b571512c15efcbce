"""The .srt beside a video: which prompt is on screen when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..atomic_files import write_text


@dataclass(frozen=True)
class Segment:
    """The output frames [start_frame, end_frame) and the prompt that made them."""

    start_frame: int
    end_frame: int
    prompt: str
    negative_prompt: str = ""


def write_srt(segments: Iterable[Segment], fps: float | Fraction, path: str | Path, *, negative: bool = False) -> None:
    """Write the subtitles of a video.  negative: show negative prompts too.  Raises OutputError."""
    write_text(path, format_srt(segments, fps, negative=negative))


def format_srt(segments: Iterable[Segment], fps: float | Fraction, *, negative: bool = False) -> str:
    """SubRip text, one entry per segment with exact times; segments without frames or text are left out.

    Neighbours share their time stamp, so that nothing flickers or overlaps at a join.
    """
    entries = []
    for segment in segments:
        lines = [_one_line(segment.prompt)]
        if negative and segment.negative_prompt.strip():
            lines.append("not: " + _one_line(segment.negative_prompt))
        text = "\n".join(line for line in lines if line)
        if segment.end_frame > segment.start_frame and text:
            span = f"{_timestamp(segment.start_frame, fps)} --> {_timestamp(segment.end_frame, fps)}"
            entries.append(f"{len(entries) + 1}\n{span}\n{text}\n")
    return "\n".join(entries)


def _one_line(text: str) -> str:
    """An empty line would end the entry, and an arrow would read as times."""
    return " ".join(text.split()).replace("-->", "→")


def _timestamp(frame: int, fps: float | Fraction) -> str:
    """Time of a frame's start as HH:MM:SS,mmm, rounded half up."""
    milliseconds = int(frame * 1000 / Fraction(fps) + Fraction(1, 2))
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"
