"""The `loras` field: one LoRA a line, its strength a number or a schedule.

    lightx2v_4steps = 1.0
    ink_style = 0: (0.2), 60: (0.9)
    <lora:grain:0.5>

The strength acts clip by clip, as it is at a clip's first frame; without one it is 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import SettingsError
from ..schedules import Series, number_schedule

FIELD = "loras"
STRONGEST = 10.0
_MOST = 16
_TAG = re.compile(r"<lora:([^:>]+)(?::([^:>]+))?>")


@dataclass(frozen=True)
class LoraLine:
    """name: as written, of a file in one of the LoRA folders or a path.  strength: as written, "" = 1."""

    name: str
    strength: str
    line: int


def lora_lines(text: str) -> list[LoraLine]:
    """Read the field.  Raises SettingsError naming the line."""
    lines: list[LoraLine] = []
    for number, written in enumerate(text.splitlines(), 1):
        written = written.strip()
        if not written or written.startswith("#"):
            continue
        if tag := _TAG.fullmatch(written):
            name, strength = tag[1], tag[2] or ""
        else:
            name, _, strength = written.partition("=")
        line = LoraLine(name.strip(), strength.strip(), number)
        if not line.name:
            raise _error("names no file", number, written)
        if any(line.name.lower() == other.name.lower() for other in lines):
            raise _error(f'names "{line.name}" a second time', number, written)
        lines.append(line)
    if len(lines) > _MOST:
        raise SettingsError("too many at once", where=FIELD, got=len(lines), allowed=f"up to {_MOST}")
    return lines


def renamed_loras(text: str, rename: Callable[[str], str]) -> str:
    """The field with other names, all else of it as written.  Raises SettingsError."""
    written = text.splitlines()
    for line in lora_lines(text):
        if (name := rename(line.name)) != line.name:
            written[line.line - 1] = f"{name} = {line.strength}" if line.strength else name
    return "\n".join(written) if written != text.splitlines() else text


def lora_strengths(lines: list[LoraLine], max_frames: int, seed: int) -> tuple[dict[str, Series], list[str]]:
    """Name -> strength at each output frame, and notes.  Raises ScheduleError naming field, line and keyframe."""
    series = {
        line.name: number_schedule(
            line.strength, f"{FIELD}, line {line.line}", max_frames, seed, default=1.0, least=-STRONGEST, most=STRONGEST
        )
        for line in lines
    }
    return series, [note for strength in series.values() for note in strength.notes]


def _error(what: str, number: int, written: str) -> SettingsError:
    return SettingsError(
        f"line {number} {what}", where=FIELD, got=written, allowed="NAME, or NAME = strength (a number or a schedule)"
    )
