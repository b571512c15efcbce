"""Errors as the JSON that pages and programs get, and the HTTP status each one has."""

from __future__ import annotations

import re
from typing import Any

from ..errors import (
    Conflict,
    DeforumWanError,
    InputError,
    ModelError,
    NotFound,
    OutputError,
    RenderError,
    ScheduleError,
    SettingsError,
    SetupError,
)

_IN_TEXT = re.compile(r", line \d+(, column \d+)?$")  # where in a field's text


class Refused(InputError):
    """The request itself is not accepted: too large, not JSON, from a foreign page, without a password.

    status: of the answer; headers: that go with it.
    """

    kind = "refused"

    def __init__(self, what: str, status: int, *, headers: dict[str, str] | None = None, **words: Any) -> None:
        super().__init__(what, **words)
        self.status, self.headers = status, headers or {}


def problem(error: BaseException) -> dict[str, Any]:
    """One error.  field: of the settings or of the request, "" if it belongs to none; keyframe, column: in a schedule.

    job, job_name: which of several jobs it is about, from 1; 0 = there is only one.
    message: the whole in one line.  what, got, allowed, next_step: its parts, for a field's hint.
    """
    if not isinstance(error, DeforumWanError):
        words = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"unexpected, a fault of this program: {words}"
        return _entry(kind="unexpected", message=message, what=message)
    keyframe, column = "", 0
    field = _IN_TEXT.sub("", error.where) if isinstance(error, InputError) else ""
    if isinstance(error, ScheduleError):
        field, keyframe, column = _IN_TEXT.sub("", error.field), error.keyframe, error.column
    return _entry(
        kind=error.kind, message=error.one_line(), what=error.what, allowed=error.allowed, next_step=error.next_step,
        got="" if error.got is None else str(error.got)[:200], field=field, keyframe=keyframe, column=column,
        job=error.job_number, job_name=error.job_name,
    )  # fmt: skip


def _entry(**known: Any) -> dict[str, Any]:
    blank = {"kind": "", "field": "", "keyframe": "", "column": 0, "message": "", "what": "", "got": "", "allowed": ""}
    return {**blank, "next_step": "", "job": 0, "job_name": "", **known}


def status_of(error: BaseException) -> int:
    """The HTTP status of an answer that carries this error."""
    if isinstance(error, Refused):
        return error.status
    table = (
        (NotFound, 404), (Conflict, 409), ((SettingsError, ScheduleError, InputError), 422), (ModelError, 409),
        ((SetupError, OutputError), 503), (RenderError, 500),
    )  # fmt: skip
    return next((status for kind, status in table if isinstance(error, kind)), 500)
