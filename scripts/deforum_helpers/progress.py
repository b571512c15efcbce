"""How far a render is and how long the rest will take, from the worker's events.

The estimate stands on measured times: those of this render, and before its first step those that earlier renders
left in a small file in the user's own state folder.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .atomic_files import write_json
from .errors import OutputError
from .protocol import ClipDone, Decoding, Event, Loading, Step

Phase = Literal["preparing", "loading", "sampling", "decoding", "writing", "done"]

_DECODE_PER_STEP = 2.0  # decoding a latent against one sampling step of it, until both have been measured
_MOST_RECORDS = 200


@dataclass(frozen=True)
class Progress:
    """One moment of a render, for a bar, a tab or a log.

    fraction: of the whole job, 0 to 1.  clip: 1-based, of clips.  step: done, of steps.
    eta_seconds: None while nothing has been measured.  preview: a picture file of this moment, or "".
    """

    phase: Phase = "preparing"
    fraction: float = 0.0
    clip: int = 0
    clips: int = 0
    step: int = 0
    steps: int = 0
    seconds_per_step: float = 0.0
    eta_seconds: float | None = None
    preview: str = ""
    note: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class UnitTimes:
    """Seconds for one latent frame: of one sampling step, and of its decode."""

    step: float
    decode: float


@dataclass(frozen=True)
class ClipWork:
    """What a clip costs.  latents: of its window; new: those to decode."""

    steps: int
    latents: int
    new: int


@dataclass
class Meter:
    """Turns events into Progress.

    work: one entry per clip.  times: measured before, None if never.  report: called at every change.
    """

    work: Sequence[ClipWork]
    report: OnProgress
    times: UnitTimes | None = None
    state: Progress = field(init=False)
    _finished: set[int] = field(default_factory=set)
    _clip: int = 0

    def __post_init__(self) -> None:
        self.state = Progress(clips=len(self.work))

    def skip(self, clip: int) -> None:
        """A clip that an earlier run has done."""
        self._finished.add(clip)

    def begin(self, clip: int) -> None:
        """0-based clip is next."""
        self._clip = clip
        work = self.work[clip]
        self._tell(phase="preparing", clip=clip + 1, step=0, steps=work.steps, note="", preview="")

    def say(self, phase: Phase, note: str = "") -> None:
        self._tell(phase=phase, note=note)

    def on_event(self, event: Event) -> None:
        work = self.work[self._clip]
        if isinstance(event, Loading):
            self._tell(phase="loading", note=": ".join(filter(None, (event.part, event.note))))
        elif isinstance(event, Step):
            if event.step > 1 or self.times is None:  # the first step of a process warms things up
                self._measured(step=event.seconds / work.latents)
            self._tell(
                phase="sampling", step=event.step, seconds_per_step=event.seconds, note="",
                preview=event.preview or self.state.preview,
            )  # fmt: skip
        elif isinstance(event, Decoding):
            self._tell(phase="decoding", step=work.steps, note=f"{event.latent} of {event.latents}")
        elif isinstance(event, ClipDone):
            if event.seconds.get("decode"):
                self._measured(decode=event.seconds["decode"] / work.new)
            self._finished.add(self._clip)
            self._tell(phase="writing", step=work.steps)

    def _measured(self, *, step: float = 0.0, decode: float = 0.0) -> None:
        """Follow the machine, half old and half new, so that a busy moment doesn't throw the estimate about."""
        old = self.times or UnitTimes(step, step * _DECODE_PER_STEP)
        self.times = UnitTimes((old.step + (step or old.step)) / 2, (old.decode + (decode or old.decode)) / 2)

    def _tell(self, **changes: object) -> None:
        state = replace(self.state, **changes)  # type: ignore[arg-type]
        total = sum(self._cost(k) for k in range(len(self.work)))
        left = sum(self._cost(k) for k in range(len(self.work)) if k not in self._finished)
        if self._clip not in self._finished:
            left -= self._cost_done(state)
        fraction = 1.0 if state.phase == "done" or not total else 1 - left / total
        fraction = max(fraction, self.state.fraction)  # a new measurement moves the estimate, never the bar back
        self.state = replace(state, fraction=fraction, eta_seconds=left if self.times else None)
        self.report(self.state)

    def _cost(self, clip: int) -> float:
        work, times = self.work[clip], self.times or UnitTimes(1.0, _DECODE_PER_STEP)
        return work.steps * work.latents * times.step + work.new * times.decode

    def _cost_done(self, state: Progress) -> float:
        work, times = self.work[self._clip], self.times or UnitTimes(1.0, _DECODE_PER_STEP)
        decoded = int(state.note.split()[0]) if state.phase == "decoding" and state.note else 0
        return state.step * work.latents * times.step + decoded * times.decode


def estimate_seconds(work: Sequence[ClipWork], times: UnitTimes | None) -> float | None:
    """How long clips will take on a machine where this was measured; None where nothing was."""
    if times is None:
        return None
    return sum(clip.steps * clip.latents * times.step + clip.new * times.decode for clip in work)


def state_folder() -> Path:
    """Where this user's logs and measured times lie: DEFORUM_WAN_STATE, else the system's usual place."""
    if chosen := os.environ.get("DEFORUM_WAN_STATE", "").strip():
        return Path(chosen).expanduser().absolute()
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "deforum-wan"


def times_key(variant: str, width: int, height: int, device: str) -> str:
    return f"{variant} {width}x{height} on {device}"


def load_times(key: str) -> UnitTimes | None:
    """Times that an earlier render measured under the same circumstances."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        step, decode = json.loads(_times_file().read_text(encoding="utf-8"))[key]
        return UnitTimes(float(step), float(decode))
    return None


def save_times(key: str, times: UnitTimes) -> None:
    """Keep measured times for the next estimate.  They are a comfort: where they can't be kept, a render goes on."""
    records: dict[str, list[float]] = {}
    with _times_lock:
        with suppress(OSError, ValueError):
            records = dict(json.loads(_times_file().read_text(encoding="utf-8")))
        records.pop(key, None)
        records[key] = [times.step, times.decode]
        with suppress(OSError, OutputError):
            _times_file().parent.mkdir(parents=True, exist_ok=True)
            write_json(_times_file(), dict(list(records.items())[-_MOST_RECORDS:]))


_times_lock = threading.Lock()


def _times_file() -> Path:
    return state_folder() / "times.json"


def words_for_reading(file: str, done: int, size: int) -> str:
    """How far the reading of a file has come.  done, size: bytes."""
    return f"{file}: {done / 1e9:.2f} of {size / 1e9:.2f} GB"


def words_for_seconds(seconds: float) -> str:
    """ "45 s", "4 min 10 s", "3 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


