"""The one exception tree, and how each error is worded.

    DeforumWanError                 exit status 4 unless said otherwise
      InputError                    2  what the user typed or handed in
        SettingsError               2  one field of the settings
        ScheduleError               2  one keyframe of a schedule or a prompt set
        NotFound                    2  what was named isn't there, or not any more
        Conflict                    2  it can't be done as things stand: a job that has ended can't be moved
      SetupError                    3  the isolated environment
      ModelError                    3  weights: missing, truncated, foreign, unsafe
      RenderError                   4  a render that was under way
        OutOfDeviceMemory           4
        WorkerDied                  4
        OutputError                 4  a disk that filled up, a folder that vanished
      RenderCancelled             130  the user's own wish, not a failure

Every message is one line: what is wrong, what was got, what is allowed, what to do next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice

__all__ = [
    "Conflict",
    "DeforumWanError",
    "InputError",
    "ModelError",
    "NotFound",
    "OutOfDeviceMemory",
    "OutputError",
    "RenderCancelled",
    "RenderError",
    "ScheduleError",
    "SettingsError",
    "SetupError",
    "WorkerDied",
    "error_from_kind",
    "first_few",
    "of_job",
]

_LONGEST_SHOWN = 160


def first_few(names: Collection[object], most: int, between: str = ", ") -> str:
    """The first names of many and how many more there are: "a, b, c and 9 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(map(str, islice(names, most))) + more


class DeforumWanError(Exception):
    """An error that a person can act on.

    what: the fault in words.  got: the offending value.  allowed: what would be accepted.
    next_step: what to do now.  where: the field, file or clip it belongs to.
    """

    exit_code = 4
    kind = "error"
    job_number, job_name = 0, ""  # which of several jobs it is about, from 1; see of_job

    def __init__(
        self, what: str, *, got: object = None, allowed: str = "", next_step: str = "", where: str = ""
    ) -> None:
        self.what, self.got, self.allowed, self.next_step, self.where = what, got, allowed, next_step, where
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The whole message on one line, ready for a terminal, a log or a field's hint."""
        job = f"job {self.job_number}" if self.job_number else ""
        job += f" ({self.job_name})" if self.job_name else ""
        parts = [": ".join(part for part in (job, self.where, self.what) if part)]
        if self.got is not None:
            parts.append(f"got {_shown(self.got)}")
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.next_step:
            parts.append(self.next_step)
        return " ".join("; ".join(parts).split())


class InputError(DeforumWanError):
    exit_code = 2
    kind = "input"


class SettingsError(InputError):
    """A value of one settings field.  `where` is the field's name."""

    kind = "settings"


class ScheduleError(InputError):
    """A keyframe of a schedule or prompt set.  column: 1-based position in the text, 0 if unknown."""

    kind = "schedule"

    def __init__(
        self,
        what: str,
        *,
        field: str = "",
        keyframe: str = "",
        column: int = 0,
        got: object = None,
        allowed: str = "",
        next_step: str = "",
    ) -> None:
        self.field, self.keyframe, self.column = field, keyframe, column
        place = [field] if field else []
        if keyframe:
            place.append(f"keyframe {keyframe}")
        if column:
            place.append(f"column {column}")
        super().__init__(what, got=got, allowed=allowed, next_step=next_step, where=", ".join(place))


class NotFound(InputError):
    kind = "not_found"


class Conflict(InputError):
    kind = "conflict"


class SetupError(DeforumWanError):
    exit_code = 3
    kind = "environment"


class ModelError(DeforumWanError):
    exit_code = 3
    kind = "model"


class RenderError(DeforumWanError):
    kind = "render"


class OutOfDeviceMemory(RenderError):
    kind = "out_of_memory"


class WorkerDied(RenderError):
    kind = "worker_died"


class OutputError(RenderError):
    kind = "output"


class RenderCancelled(DeforumWanError):
    exit_code = 130
    kind = "cancelled"


_BY_KIND: dict[str, type[DeforumWanError]] = {
    cls.kind: cls
    for cls in (
        InputError, SettingsError, SetupError, ModelError, RenderError,
        OutOfDeviceMemory, WorkerDied, OutputError, RenderCancelled,
    )
}  # fmt: skip


def error_from_kind(kind: str, message: str) -> DeforumWanError:
    """Rebuild an error that crossed the process boundary as (kind, one-line message)."""
    return _BY_KIND.get(kind, RenderError)(message)


@contextmanager
def of_job(number: int, name: str = "") -> Iterator[None]:
    """Mark what is raised inside as the fault of the so many-th of several jobs."""
    try:
        yield
    except DeforumWanError as error:
        error.job_number, error.job_name = number, name
        raise


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
