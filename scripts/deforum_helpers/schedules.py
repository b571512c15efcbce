"""Deforum's schedules: `0: (expression), 30: (expression)` -> one value per frame.

A key is a frame number or an expression of max_f, perhaps in quotes; max_f is the last frame, max_frames - 1, as
Deforum has it.  What holds between keyframes is Deforum's too:

    number -> number          linear in between; the first and the last one hold to the ends of the video
    number -> expression      linear up to the expression's value at its own keyframe
    expression -> anything    computed frame by frame until the next keyframe, no blending

A bare number or expression without a key counts from frame 0.  What the original drops in silence or crashes on is
mended and noted: no key 0, an empty entry or trailing comma, keys outside the video, a frame given twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .errors import ScheduleError, first_few
from .planning.expressions import Expression, Place, parse_expression

LONGEST_SCHEDULE = 200_000
_KEY_NAMES = frozenset({"max_f", "s"})
_MARKS = re.compile(r"[(),:\"']")
_NUMBER = re.compile(r"[\s(]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)[\s)]*")
_MOST_NAMED = 5  # keys that one note lists before it only counts


@dataclass(frozen=True)
class Keyframe:
    """One entry of a schedule.  key, value: as written; place: where the value stands."""

    frame: int
    key: str
    value: str
    place: Place


@dataclass(frozen=True)
class Series:
    """A schedule computed for every frame.  values: float64 [max_frames]; notes: what was mended."""

    values: np.ndarray
    notes: tuple[str, ...] = ()

    def at(self, frame: int) -> float:
        return float(self.values[frame])


def number_schedule(
    text: str,
    field: str,
    max_frames: int,
    seed: int,
    *,
    default: float,
    least: float = -np.inf,
    most: float = np.inf,
    clamp: bool = False,
) -> Series:
    """Compute a schedule of numbers.

    default: the value throughout if the text is empty.  least, most: the range; outside it a value is
    brought back with a note (clamp) or refused.  Raises ScheduleError naming field, keyframe, column and frame.
    """
    if not text.strip():
        return Series(np.full(max_frames, float(default)))
    keyframes, notes = keyframes_in(text, field, max_frames, seed)
    with np.errstate(all="ignore"):  # two numbers may lie too far apart to blend: caught below
        values = _between(keyframes, max_frames, seed)
    outside = ~((values >= least) & (values <= most))  # NaN is outside, too
    if outside.any():
        frame = int(np.argmax(outside))
        if not clamp:
            raise _out_of_range(keyframes, frame, values[frame], least, most)
        notes.append(f"{field}: {values[frame]:g} at frame {frame} brought back into {least:g} to {most:g}")
        values = np.clip(values, least, most)
    return Series(values, tuple(notes))


def text_schedule(
    text: str, field: str, max_frames: int, seed: int
) -> tuple[list[tuple[int, str, Place]], tuple[str, ...]]:
    """Read a schedule of words, such as `0: ("euler"), 48: ("unipc")`; each holds until the next.

    Returns (frame, word, place) in order, the first at frame 0, and notes.  Raises ScheduleError.
    """
    keyframes, notes = keyframes_in(text, field, max_frames, seed)
    words = [(keyframe.frame, _unquoted(keyframe), keyframe.place) for keyframe in keyframes]
    return [(0, *words[0][1:]), *words[1:]], tuple(notes)


def keyframes_in(text: str, field: str, max_frames: int, seed: int) -> tuple[list[Keyframe], list[str]]:
    """Split a schedule into keyframes, sorted, one per frame, all inside the video unless none is.

    Returns them and the notes.  Raises ScheduleError.
    """
    if len(text) > LONGEST_SCHEDULE:
        raise ScheduleError(
            "the schedule is too long", field=field, got=f"{len(text)} characters", allowed=f"up to {LONGEST_SCHEDULE}"
        )
    notes: list[str] = []
    found = []
    entries = _entries(text, field)
    written = [entry for entry in entries if text[entry[0] : entry[2]].strip()]
    if 0 < len(written) < len(entries):
        notes.append(f"{field}: {len(entries) - len(written)} comma(s) too many skipped")
    for start, colon, end in written:
        if colon >= 0:
            found.append(_keyframe(text, field, start, colon, end, max_frames, seed))
        elif len(written) == 1:
            found.append(Keyframe(0, "0", text[start:end], Place(field, "0", start + 1)))
        else:
            raise Place(field, "", start + 1).error(
                "an entry without a key", got=text[start:end].strip(), allowed="frame: (value)"
            )
    if not found:
        raise ScheduleError("the schedule holds no keyframe", field=field, got=text, next_step="write 0: (value)")
    return inside_video(found, field, max_frames, notes), notes


def inside_video(keyframes: list[Keyframe], field: str, max_frames: int, notes: list[str]) -> list[Keyframe]:
    """Sort keyframes, keep the last of each frame and those inside the video, and note what was done.

    If none is inside, the nearest one stays: the last before frame 0, else the first past the end.
    """
    by_frame: dict[int, Keyframe] = {}
    for keyframe in keyframes:
        if keyframe.frame in by_frame:
            notes.append(
                f"{field}: frame {keyframe.frame} is given twice ({by_frame[keyframe.frame].key} and {keyframe.key});"
                " the later entry counts"
            )
        by_frame[keyframe.frame] = keyframe
    ordered = [by_frame[frame] for frame in sorted(by_frame)]
    kept = [keyframe for keyframe in ordered if 0 <= keyframe.frame < max_frames]
    outside = [keyframe for keyframe in ordered if not 0 <= keyframe.frame < max_frames]
    if outside:
        names = first_few([_named(keyframe) for keyframe in outside], _MOST_NAMED)
        notes.append(f"{field}: outside the video's frames 0 to {max_frames - 1}, so without effect: {names}")
    if not kept:
        before = [keyframe for keyframe in ordered if keyframe.frame < 0]
        kept = [before[-1] if before else ordered[0]]
        notes.append(f"{field}: no keyframe lies inside the video; {_named(kept[0])} holds throughout")
    elif kept[0].frame > 0:
        notes.append(f"{field}: no keyframe at frame 0; the first one, {_named(kept[0])}, holds from the start")
    return kept


def key_frame(key: str, place: Place, max_frames: int, seed: int) -> int:
    """The frame that a key names: a number, or an expression of max_f, cut down to a whole number."""
    key = key.strip().strip("\"'").strip()
    if key.isascii() and key.isdigit() and len(key) <= 15:
        return int(key)
    return int(parse_expression(key, place, _KEY_NAMES).value(0, seed, max_frames - 1))


def _named(keyframe: Keyframe) -> str:
    return keyframe.key if keyframe.key == str(keyframe.frame) else f"{keyframe.key} (frame {keyframe.frame})"


def _entries(text: str, field: str) -> list[tuple[int, int, int]]:
    """Split at the commas outside parentheses and quotes: (start, position of the colon or -1, end)."""
    entries, start, colon, quote = [], 0, -1, ""
    opened: list[int] = []
    for mark in _MARKS.finditer(text):
        at, sign = mark.start(), mark.group()
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote, quoted_at = sign, at
        elif sign == "(":
            opened.append(at)
        elif sign == ")":
            if not opened:
                raise Place(field).error("a closing parenthesis without an opening one", at)
            opened.pop()
        elif not opened and sign == ",":
            entries.append((start, colon, at))
            start, colon = at + 1, -1
        elif not opened and sign == ":":
            if colon >= 0:
                raise Place(field, text[start:colon].strip()).error(
                    "a second colon in one entry", at, next_step="put a comma between keyframes"
                )
            colon = at
    if quote:
        raise Place(field).error("a quote is not closed", quoted_at)
    if opened:
        raise Place(field).error("a parenthesis is not closed", opened[-1])
    return [*entries, (start, colon, len(text))]


def _keyframe(text: str, field: str, start: int, colon: int, end: int, max_frames: int, seed: int) -> Keyframe:
    key = text[start:colon].strip().strip("\"'").strip()
    lead = len(text[start:colon]) - len(text[start:colon].lstrip(" \t\r\n\"'"))
    frame = key_frame(key, Place(field, key, start + lead + 1), max_frames, seed)
    return Keyframe(frame, key, text[colon + 1 : end], Place(field, key, colon + 2))


def _between(keyframes: list[Keyframe], max_frames: int, seed: int) -> np.ndarray:
    """Fill every frame from keyframes that are sorted and inside the video, or from a single one outside it."""
    parsed = [_number_or_expression(keyframe) for keyframe in keyframes]
    values = np.empty(max_frames)
    if keyframes[0].frame >= max_frames:
        values[:] = _own_value(keyframes[0], parsed[0], max_frames, seed)
        return values
    starts = [max(keyframe.frame, 0) for keyframe in keyframes]
    for index, (start, end) in enumerate(pairwise([*starts, max_frames])):
        value = parsed[index]
        if isinstance(value, Expression):
            values[start:end] = value.values(np.arange(start, end), seed, max_frames - 1)
        elif index + 1 < len(keyframes):
            after = _own_value(keyframes[index + 1], parsed[index + 1], max_frames, seed)
            values[start:end] = value + (after - value) * (np.arange(end - start) / (end - start))
        else:
            values[start:end] = value
    values[: starts[0]] = values[starts[0]]
    return values


def _own_value(keyframe: Keyframe, value: float | Expression, max_frames: int, seed: int) -> float:
    return value.value(keyframe.frame, seed, max_frames - 1) if isinstance(value, Expression) else value


def _number_or_expression(keyframe: Keyframe) -> float | Expression:
    plain = _NUMBER.fullmatch(keyframe.value)
    if plain and np.isfinite(number := float(plain.group(1))):
        return number
    expression = parse_expression(keyframe.value, keyframe.place)
    return expression if expression.number is None else expression.number


def _unquoted(keyframe: Keyframe) -> str:
    word = keyframe.value.strip()
    while word.startswith("(") and word.endswith(")"):
        word = word[1:-1].strip()
    word = word.strip("\"'").strip()
    if not word:
        raise keyframe.place.error("the value is missing", next_step='write it in quotes, such as ("euler")')
    return word


def _out_of_range(keyframes: list[Keyframe], frame: int, value: float, least: float, most: float) -> ScheduleError:
    active = [keyframe for keyframe in keyframes if keyframe.frame <= frame] or keyframes[:1]
    allowed = f"{least:g} to {most:g}" if np.isfinite(most) else f"{least:g} or more"
    return active[-1].place.error(f"the value at frame {frame} is out of range", got=float(value), allowed=allowed)
