"""What a job is, and the one way its state changes.

pending -> running -> done
   |  ^       +-----> failed, cancelled, interrupted
   |  +-------------- failed, cancelled, interrupted      (asked for again)
   +--> cancelled
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ..errors import Conflict, NotFound, RenderError
from ..planning.seeds import resolve_seed
from ..settings import RenderSettings, settings_from_dict, settings_to_dict
from .order import last_position
from .owners import Owner

State = Literal["pending", "running", "done", "failed", "cancelled", "interrupted"]
Stop = Literal["", "after_clip", "now"]

STATES: tuple[State, ...] = get_args(State)
TRANSITIONS: dict[State, tuple[State, ...]] = {
    "pending": ("running", "cancelled"),
    "running": ("done", "failed", "cancelled", "interrupted"),
    "done": (),
    "failed": ("pending",),
    "cancelled": ("pending",),
    "interrupted": ("pending",),
}
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "interrupted")

LONGEST_NAME = 200
_LONGEST_ERROR = 2000
_COLUMNS = (
    "id", "state", "position", "attempts", "bookmark", "resume", "seed", "batch", "claim", "owner", "heartbeat",
    "stop", "created", "started", "finished", "updated", "name", "error_kind", "error", "progress", "folder",
    "timestring", "video", "thumbnail", "words", "settings",
)  # fmt: skip


class ClaimLost(RenderError):
    """This run of a job is no longer the one that counts: the job was recovered, or its row is gone."""


@dataclass(frozen=True)
class Job:
    """One row.  Times are seconds since 1970, 0.0 for "not yet"; texts are "" for "none".

    seed: resolved, so that every run of the job gives the same frames.  attempts: runs begun since a person last
    asked for it.  resume: the next run goes on from the files of the last.  stop: what the runner is asked to do.
    claim: names the run under way.  folder, timestring: where its files lie; video, thumbnail: paths.
    """

    id: int
    name: str
    state: State
    settings: dict[str, Any]
    seed: int
    position: int
    attempts: int = 0
    error_kind: str = ""
    error: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    bookmark: bool = False
    batch: str = ""
    resume: bool = False
    stop: Stop = ""
    claim: str = ""
    owner: Owner | None = None
    heartbeat: float = 0.0
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    updated: float = 0.0
    folder: str = ""
    timestring: str = ""
    video: str = ""
    thumbnail: str = ""

    def render_settings(self) -> RenderSettings:
        """The settings with the resolved seed.  Raises SettingsError."""
        return replace(settings_from_dict(self.settings)[0], seed=self.seed)


@dataclass(frozen=True)
class NewJob:
    """What somebody adds.

    settings: parsed, or a settings file's object.  seed: None takes that of the settings.
    folder, timestring: files that were prepared for it and that it goes on from; never taken from an import.
    """

    settings: RenderSettings | Mapping[str, Any]
    name: str = ""
    batch: str = ""
    bookmark: bool = False
    seed: int | None = None
    folder: str = ""
    timestring: str = ""


def job_of(row: sqlite3.Row) -> Job:
    """Raises sqlite3.DatabaseError for a row that was damaged inside, which SQLite itself doesn't notice."""
    values = {name: row[name] for name in _COLUMNS if name != "words"}
    try:
        settings, progress = json.loads(row["settings"]), json.loads(row["progress"] or "{}")
    except ValueError as error:
        raise sqlite3.DatabaseError(f"job {row['id']} is malformed: {error}") from error
    values |= {"settings": settings, "progress": progress, "owner": Owner.from_text(row["owner"])}
    values |= {"bookmark": bool(row["bookmark"]), "resume": bool(row["resume"])}
    return Job(**values)


def get(db: sqlite3.Connection, job_id: int) -> Job:
    """Raises NotFound where there is no such job."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such job", got=job_id, next_step="it may have been deleted: reload the queue")
    return job_of(row)


def select(db: sqlite3.Connection, where: str, *values: Any) -> list[Job]:
    return [job_of(row) for row in db.execute(f"SELECT * FROM jobs WHERE {where}", values)]


def insert(db: sqlite3.Connection, new: NewJob, now: float, position: int | None = None) -> Job:
    """Put a job at the end of the queue, or at `position`.  Raises SettingsError."""
    settings = parsed(new.settings)
    row = {
        "state": "pending", "name": clean_name(new.name), "batch": clean_name(new.batch), "bookmark": int(new.bookmark),
        "seed": resolve_seed(settings.seed if new.seed is None else new.seed),
        "position": last_position(db) if position is None else position, "created": now, "updated": now,
        "folder": new.folder, "timestring": new.timestring, "resume": int(bool(new.timestring)),
        **settings_columns(settings, new.name),
    }  # fmt: skip
    marks = ", ".join("?" * len(row))
    cursor = db.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    return get(db, int(cursor.lastrowid or 0))


def update(db: sqlite3.Connection, job_id: int, now: float, **columns: Any) -> None:
    """Change columns of one job; its state never changes here."""
    assert "state" not in columns and set(columns) <= set(_COLUMNS), columns
    _write(db, job_id, {**columns, "updated": now})


def transition(db: sqlite3.Connection, job_id: int, to: State, now: float, *, holder: str = "", **columns: Any) -> Job:
    """The one place where a job's state changes.

    holder: the claim of the run that speaks; only it may end a running job.  columns: what changes with the state.
    Returns the job as it is then.  Raises NotFound, Conflict for a step that the diagram above doesn't have, ClaimLost.
    """
    job = get(db, job_id)
    if to not in TRANSITIONS[job.state]:
        raise Conflict(
            f"a job that is {job.state} can't become {to}", got=f"job {job_id}",
            allowed=", ".join(TRANSITIONS[job.state]) or "nothing: duplicate it to render it again",
        )  # fmt: skip
    if job.state == "running" and holder != job.claim:
        raise ClaimLost("this run of the job was taken for dead and no longer counts", got=f"job {job_id}")
    if job.state == "running":
        columns = {"claim": "", "owner": "", "heartbeat": 0.0, "stop": "", **columns}
    if to in ENDED:
        columns = {"finished": now, **columns}
    if to in ("pending", "running"):
        columns = {"error_kind": "", "error": "", "finished": 0.0, **columns}
    if "error" in columns:
        columns["error"] = " ".join(str(columns["error"]).split())[:_LONGEST_ERROR]
    _write(db, job_id, {**columns, "state": to, "updated": now})
    return get(db, job_id)


def _write(db: sqlite3.Connection, job_id: int, columns: dict[str, Any]) -> None:
    columns = {name: _storable(value) if isinstance(value, str) else value for name, value in columns.items()}
    assignments = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE jobs SET {assignments} WHERE id = ?", (*columns.values(), job_id))


def parsed(settings: RenderSettings | Mapping[str, Any]) -> RenderSettings:
    """Raises SettingsError, naming the field."""
    return settings if isinstance(settings, RenderSettings) else settings_from_dict(settings)[0]


def settings_columns(settings: RenderSettings, name: str) -> dict[str, str]:
    """settings as JSON, and the words that a search finds the job by."""
    words = [name, settings.batch_name, settings.model, *settings.prompts.values()]
    words += [settings.positive_prompt, settings.negative_prompt]
    return {
        "settings": json.dumps(settings_to_dict(settings), allow_nan=False),
        "words": folded("\n".join(words)),
    }


def folded(text: str) -> str:
    """Text as searches compare it: without case, and without ways to write one character differently."""
    return _storable(unicodedata.normalize("NFKC", text).casefold())


def clean_name(name: str) -> str:
    """One line that SQLite and a page can show, at most LONGEST_NAME characters."""
    shown = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in name)
    return " ".join(unicodedata.normalize("NFC", shown).split())[:LONGEST_NAME]


def _storable(text: str) -> str:
    """SQLite keeps neither half characters (a file name can hold them) nor what follows a null."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
