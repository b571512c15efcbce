"""Deforum's prompts: frame -> `positive --neg negative`, with numbers computed inside backticks.

A key is a frame number or an expression of max_f ("max_f/2", "max_f-20").  The global positive prompt goes in front
of every prompt, the global negative behind every negative, after a comma.  `(a fox:1.2)` is the text encoder's business
and stays as it is, but in (a fox:`0.5+0.5*sin(t/10)`) the backticks become the number of the clip's first frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..errors import ScheduleError
from ..schedules import Keyframe, inside_video, key_frame
from .expressions import Expression, Place, parse_expression

_FIELD = "prompts"
_NEGATIVE_MARK = re.compile(r"--neg\b")
_Part = str | Expression


@dataclass(frozen=True)
class PromptSegment:
    """One prompt and the frame it starts at.  Parts are text, or an expression from between backticks."""

    start_frame: int
    key: str
    positive: tuple[tuple[_Part, ...], ...]
    negative: tuple[tuple[_Part, ...], ...]

    @cached_property
    def changes(self) -> bool:
        """Whether the text depends on the frame."""
        return any(isinstance(part, Expression) for text in (*self.positive, *self.negative) for part in text)

    def texts(self, frame: int, seed: int, max_frames: int) -> tuple[str, str]:
        """(positive, negative) as they read at a frame.  Raises ScheduleError."""
        return self._written((frame, seed, max_frames - 1)) if self.changes else self._fixed

    @cached_property
    def _fixed(self) -> tuple[str, str]:
        return self._written((0, 0, 0))

    def _written(self, at: tuple[int, int, int]) -> tuple[str, str]:
        return _joined(self.positive, " ", at), _joined(self.negative, ", ", at)


def prompt_segments(
    prompts: Mapping[str, str], positive_prompt: str, negative_prompt: str, max_frames: int, seed: int
) -> tuple[list[PromptSegment], list[str]]:
    """Read a prompt set.

    Returns the segments in order, the first at frame 0, all inside the video; and notes on what was mended.
    Raises ScheduleError naming the keyframe for a key or a backtick expression that can't be read.
    """
    if not prompts:
        raise ScheduleError(
            "the prompt set is empty", field=_FIELD, next_step='give at least one, such as {"0": "a red ball at sea"}'
        )
    notes: list[str] = []
    keyframes = []
    for key, text in prompts.items():
        place = Place(_FIELD, key)
        keyframes.append(Keyframe(key_frame(key, place, max_frames, seed), key.strip(), text, place))
    kept = inside_video(keyframes, _FIELD, max_frames, notes)
    in_front = _split(positive_prompt, Place("positive_prompt"), notes)
    behind = _parts(negative_prompt, Place("negative_prompt"), notes)
    segments = []
    for index, keyframe in enumerate(kept):
        positive, negative = _split(keyframe.value, keyframe.place, notes)
        segments.append(
            PromptSegment(
                0 if index == 0 else keyframe.frame,
                keyframe.key,
                (in_front[0], positive),
                (in_front[1], negative, behind),
            )
        )
    if not any(any(segment.positive) for segment in segments):
        raise ScheduleError("every prompt is empty", field=_FIELD, next_step="say what the video shows")
    return segments, notes


def _split(text: str, place: Place, notes: list[str]) -> tuple[tuple[_Part, ...], tuple[_Part, ...]]:
    """Split `positive --neg negative`; a second --neg only goes on with the negative."""
    first = _NEGATIVE_MARK.search(text)
    if not first:
        return _parts(text, place, notes), ()
    behind = Place(place.field, place.keyframe, place.column + first.end())
    negative = _NEGATIVE_MARK.sub(lambda mark: " " * len(mark.group()), text[first.end() :])
    return _parts(text[: first.start()], place, notes), _parts(negative, behind, notes)


def _parts(text: str, place: Place, notes: list[str]) -> tuple[_Part, ...]:
    """Text and backtick expressions in turn; () if there is neither."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        notes.append(f"{place.field}: keyframe {place.keyframe or '-'}: a single backtick is left as it is")
        pieces[-2:] = ["`".join(pieces[-2:])]
    parts: list[_Part] = []
    column = place.column
    for index, piece in enumerate(pieces):
        if index % 2:
            parts.append(parse_expression(piece, Place(place.field, place.keyframe, column)))
        elif piece:
            parts.append(piece)
        column += len(piece) + 1
    return tuple(parts) if any(isinstance(part, Expression) or part.strip() for part in parts) else ()


def _joined(texts: tuple[tuple[_Part, ...], ...], between: str, at: tuple[int, int, int]) -> str:
    written = ("".join(part if isinstance(part, str) else _number(part.value(*at)) for part in text) for text in texts)
    return between.join(" ".join(text.split()) for text in written if text.strip())


def _number(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
