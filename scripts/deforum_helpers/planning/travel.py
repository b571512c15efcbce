"""Prompt travel: how one prompt gives way to the next, and so what each latent of a clip hears.

hard     the next prompt starts at its keyframe, with a clip of its own
blend    from its keyframe on, over some frames, the text's embedding turns evenly into the next one's
relay    over the same frames both prompts speak, the old one ever fainter: each one's attention is held back by the
         square of the distance from its span, which makes their shares a logistic curve

A transition is over before the next keyframe or hard cut: where it has no room for its frames it is shortened.

Source of the penalty by distance: Prompt Relay, arXiv 2604.10030.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import first_few
from ..protocol import TextMix
from ..schedules import number_schedule, text_schedule
from ..settings import FIELDS, RenderSettings
from .prompts import PromptSegment

MODES = FIELDS["prompt_travel"].choices
_STEEPNESS = math.log(1000)  # of relay: a prompt begins and ends with a share of one thousandth
_DIGITS = 6  # of a weight: the same on every machine
_MOST_NAMED = 5


@dataclass(frozen=True)
class Transition:
    """Output frames [start, end), end perhaps between two, in which a segment's prompt takes over from the former's."""

    start: float
    end: float
    mode: str

    def share(self, times: np.ndarray) -> np.ndarray:
        """How much of what is heard the new prompt is, 0 to 1, at times in output frames."""
        if self.mode == "hard":
            return np.ones(len(times))
        way = np.clip((times - self.start) / (self.end - self.start), 0.0, 1.0)
        if self.mode == "relay":
            logistic = 1 / (1 + np.exp(-_STEEPNESS * (2 * way - 1)))
            way = np.where((way > 0) & (way < 1), logistic, way)
        return np.round(way, _DIGITS)


@dataclass(frozen=True)
class Span:
    """Output frames [start_frame, end_frame) under one prompt, or in which it gives way to `then`, in a mode."""

    start_frame: int
    end_frame: int
    prompt: str
    negative_prompt: str
    then: str = ""
    mode: str = ""

    @property
    def said(self) -> str:
        """What is heard, for people."""
        return f"{self.prompt} → {self.then}" if self.mode else self.prompt


@dataclass(frozen=True)
class Travel:
    """The transitions of a video, one for each segment of its prompts.

    hard: frames at which everything starts anew, ascending, 0 and max_frames among them: hard keyframes and cuts.
    ring: the last prompt gives way to the first.
    """

    starts: tuple[int, ...]
    transitions: tuple[Transition, ...]
    hard: tuple[int, ...]
    ring: bool

    @property
    def goes(self) -> bool:
        """Whether any prompt gives way to another inside a clip."""
        return any(transition.mode != "hard" for transition in self.transitions)

    def segment(self, frame: float) -> int:
        """The segment whose prompt is there, or coming in, at a time."""
        return bisect_right(self.starts, frame) - 1

    def heard(self, times: np.ndarray, clip_start: int) -> list[TextMix]:
        """What is heard at times of one clip, by segment.  It never reaches over a hard frame."""
        here = bisect_right(self.hard, clip_start)
        low, high = self.hard[here - 1], self.hard[min(here, len(self.hard) - 1)]
        least, most = self.segment(low), self.segment(high - 1)
        times = np.clip(times, low, high)
        segments = np.clip(np.searchsorted(self.starts, times, "right") - 1, least, most)
        mixes: list[TextMix] = []
        for index in dict.fromkeys(segments.tolist()):
            transition = self.transitions[index]
            before = (index - 1) % len(self.starts)
            for share in transition.share(times[segments == index]).tolist():
                if share in (0, 1):
                    mixes.append(TextMix((index if share else before,), (1.0,)))
                else:
                    weights = (round(1 - share, _DIGITS), share)
                    mixes.append(TextMix((before, index), weights, transition.mode == "relay"))
        return mixes

    def stretches(self, start: int, end: int) -> list[tuple[int, int, int, bool]]:
        """Output frames [start, end) divided: (first, behind the last, segment, whether its prompt is coming in)."""
        found = []
        while start < end:
            index = self.segment(start)
            transition = self.transitions[index]
            over = math.ceil(transition.end)
            following = self.starts[index + 1] if index + 1 < len(self.starts) else end
            comes = start < over
            last = min(end, following, over if comes else end)
            found.append((start, last, index, comes))
            start = last
        return found


def plan_travel(
    settings: RenderSettings, segments: Sequence[PromptSegment], cuts: np.ndarray, shots: set[int], seed: int,
    notes: list[str], *, ring: bool = False,
) -> Travel:  # fmt: skip
    """Decide how every prompt comes in.

    cuts: whether a clip that starts at an output frame starts a shot; shots: frames at which one must start.
    ring: the video is one ring, in which the last prompt gives way to the first.
    Raises ScheduleError.
    """
    starts = tuple(segment.start_frame for segment in segments)
    modes = _modes(settings, starts, seed, notes)
    ring = ring and len(starts) > 1
    if not ring:
        modes[0] = "hard"
    at_cuts = [start for start, mode in zip(starts, modes, strict=True) if mode != "hard" and cuts[start]]
    _note(notes, at_cuts, "a prompt that comes with a hard cut is there at once, at frame")
    modes = ["hard" if cuts[start] else mode for start, mode in zip(starts, modes, strict=True)]
    transitions = [Transition(start, start, "hard") for start in starts]
    if any(mode != "hard" for mode in modes):
        lengths = _lengths(settings, seed, notes)
        transitions = _fitted(transitions, modes, lengths, sorted({*starts, *shots}), ring, notes)
    firm = [] if ring else [start for start, mode in zip(starts, modes, strict=True) if mode == "hard"]
    return Travel(starts, tuple(transitions), tuple(sorted({0, *firm, *shots, settings.max_frames})), ring)


def _fitted(
    transitions: Sequence[Transition], modes: Sequence[str], lengths: np.ndarray, fixed: Sequence[int], ring: bool,
    notes: list[str],
) -> list[Transition]:  # fmt: skip
    """Transitions of the wanted lengths, or as long as there is room for.  fixed: where they must be over."""
    fitted, shortened = [], []
    for transition, mode in zip(transitions, modes, strict=True):
        start = int(transition.start)
        behind = bisect_right(fixed, start)
        ends = ring or behind < len(fixed)  # otherwise it may run on past the last frame
        room = (fixed[behind] if behind < len(fixed) else len(lengths)) - start
        length = float(lengths[start]) or room
        if mode != "hard" and ends and length > room:
            shortened.append(start)
            length = room
        fitted.append(Transition(start, start + length, mode) if mode != "hard" else transition)
    _note(notes, shortened, "shortened, because the next prompt or cut comes before its end, at frame")
    return fitted


def _modes(settings: RenderSettings, starts: Sequence[int], seed: int, notes: list[str]) -> list[str]:
    """hard, blend or relay for each keyframe."""
    if not settings.prompt_travel_schedule.strip():
        return [settings.prompt_travel] * len(starts)
    field = "prompt_travel_schedule"
    words, more = text_schedule(settings.prompt_travel_schedule, field, settings.max_frames, seed)
    notes += more
    for _, word, place in words:
        if word.lower() not in MODES:
            raise place.error("unknown way for a prompt to come in", got=word, allowed=", ".join(MODES))
    frames = [frame for frame, _, _ in words]
    return [words[bisect_right(frames, start) - 1][1].lower() for start in starts]


def _lengths(settings: RenderSettings, seed: int, notes: list[str]) -> np.ndarray:
    """Frames of a transition that starts at a frame, one per output frame; 0 = all there is room for."""
    field = FIELDS["prompt_travel_frames"]
    series = number_schedule(
        settings.prompt_travel_frames, field.name, settings.max_frames, seed, default=16.0,
        least=field.minimum, most=field.maximum,
    )  # fmt: skip
    notes += series.notes
    return series.values


def _note(notes: list[str], frames: Sequence[int], what: str) -> None:
    if frames:
        notes.append(f"prompt_travel: {what} {first_few(frames, _MOST_NAMED)}")
