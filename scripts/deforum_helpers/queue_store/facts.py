"""What the queue as a whole remembers: whether it is paused, how it is set, what was said about its file."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError

_MOST_NOTICES = 20


@dataclass(frozen=True)
class QueueOptions:
    """How the queue behaves, for every process that works on it.

    auto_resume: jobs that were interrupted (by a crash, a closed program, a worker that died) run again by themselves,
        going on from their finished clips.
    most_attempts: how often one is begun before it waits for a person, so that a job that kills the program isn't
        run for ever.
    pause_on_out_of_memory: the queue pauses when a job fails for lack of device memory.
    release_when_empty: the model leaves the memory as soon as no job waits, instead of after some idle minutes.  In a
        WebUI it always does.
    at_once: how many jobs run at the same time, over all processes together; one for each GPU.
    keep_jobs: how many finished jobs the history keeps, 0 = all.  keep_days: for how long, 0 = for ever.
        Bookmarked ones always stay.  Files are never deleted, only rows.
    """

    auto_resume: bool = False
    most_attempts: int = 3
    pause_on_out_of_memory: bool = True
    release_when_empty: bool = False
    at_once: int = 1
    keep_jobs: int = 0
    keep_days: float = 0.0

    def __post_init__(self) -> None:
        for name, kind, low, high in (
            ("auto_resume", bool, 0, 1), ("pause_on_out_of_memory", bool, 0, 1), ("release_when_empty", bool, 0, 1),
            ("most_attempts", int, 1, 1000), ("at_once", int, 1, 64), ("keep_jobs", int, 0, 1_000_000),
            ("keep_days", float, 0, 100_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, value := float(value))
            if type(value) is not kind or not low <= value <= high:
                words = "true or false" if kind is bool else f"{low} to {high}"
                raise SettingsError("is not usable", where=name, got=value, allowed=words)


def options(db: sqlite3.Connection) -> QueueOptions:
    """What was set; anything unknown or unusable in the file counts as not set."""
    try:
        stored = json.loads(fact(db, "options") or "{}")
        known = {field.name for field in dataclasses.fields(QueueOptions)}
        return QueueOptions(**{name: value for name, value in stored.items() if name in known})
    except (ValueError, AttributeError, SettingsError):
        return QueueOptions()


def set_options(db: sqlite3.Connection, changes: dict[str, Any]) -> QueueOptions:
    """Raises SettingsError, naming the option."""
    known = {field.name for field in dataclasses.fields(QueueOptions)}
    if unknown := sorted(set(changes) - known):
        raise SettingsError("unknown option of the queue", where=unknown[0], allowed=", ".join(sorted(known)))
    changed = dataclasses.replace(options(db), **changes)
    set_fact(db, "options", json.dumps(dataclasses.asdict(changed)))
    return changed


def pause_reason(db: sqlite3.Connection) -> str:
    """Why no job is begun, "" while the queue is open."""
    return fact(db, "paused")


def set_pause(db: sqlite3.Connection, reason: str) -> None:
    set_fact(db, "paused", reason)


def notices(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """[{"time": .., "text": ..}]: what a person should know about the queue's file, oldest first."""
    return json.loads(fact(db, "notices") or "[]")


def add_notice(db: sqlite3.Connection, text: str, now: float) -> None:
    set_fact(db, "notices", json.dumps([*notices(db), {"time": now, "text": text}][-_MOST_NOTICES:]))


def fact(db: sqlite3.Connection, key: str) -> str:
    row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return row[0] if row else ""


def set_fact(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (key, value))
