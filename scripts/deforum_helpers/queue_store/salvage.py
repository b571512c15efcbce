"""A damaged database is set aside, and what can still be read of it goes into a new one.

A program killed in the middle of this loses nothing more: until the new file is complete the old one stays where it
is, and a complete new file (".salvaged") that has not taken its place yet does so when the queue is next opened.
The caller holds the file's lock and has no connection to it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..atomic_files import sync_directory
from . import facts, schema

DAMAGE = (sqlite3.Error, UnicodeDecodeError)  # as Python shows it: SQLite's message may quote what can't be decoded
_BESIDE = ("-wal", "-journal")  # what SQLite keeps beside a database; useless and dangerous without it
_MOST_FAILURES = 100_000
_NO_SETTINGS = "{}"
_SETTINGS_LOST = "its settings were damaged together with the queue's file"


def finish_salvage(path: Path) -> None:
    """Put a complete new file in place of the damaged one, if there is one waiting."""
    ready = _beside(path, ".salvaged")
    if not ready.exists():
        return
    aside = _aside(path, ready.stat().st_mtime)
    _beside(path, "-shm").unlink(missing_ok=True)  # an index of the -wal, made anew when needed
    for suffix in (*_BESIDE, ""):
        with suppress(FileNotFoundError):
            _beside(path, suffix).replace(_beside(aside, suffix))
    ready.replace(path)
    sync_directory(path.parent)


def salvage(path: Path) -> str:
    """Set the damaged database aside and put what can be read of it in its place.  Returns a word about it."""
    part, ready = _beside(path, ".salvaging"), _beside(path, ".salvaged")
    for suffix in ("", "-shm", *_BESIDE):
        _beside(part, suffix).unlink(missing_ok=True)
    now = float(int(time.time()))
    while _aside(path, now).exists():
        now += 1
    with closing(sqlite3.connect(part, isolation_level=None)) as new:
        schema.migrate(new)
        saved, stripped, lost = _copy(path, new)
        told = f"The queue's file was damaged and set aside as {_aside(path, now).name}. Jobs saved: {saved}"
        told += f", {stripped} of them without their settings" if stripped else ""
        told += f"; places that could not be read: {lost}" if lost else ""
        told += "." if stripped or lost else "; nothing was lost."
        facts.add_notice(new, told, now)
    os.utime(part, (now, now))  # the name of the file set aside follows from it, also after a crash
    part.replace(ready)
    sync_directory(path.parent)
    finish_salvage(path)
    return told


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _aside(path: Path, when: float) -> Path:
    return path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.localtime(when))}{path.suffix}")


def _copy(path: Path, new: sqlite3.Connection) -> tuple[int, int, int]:
    """Returns how many jobs were saved, how many of them without their settings, and how many places that may have
    held one could not be read."""
    saved = stripped = lost = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.row_factory = sqlite3.Row
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        new.execute("BEGIN IMMEDIATE")
        with suppress(*DAMAGE):
            for row in old.execute("SELECT key, value FROM facts WHERE key IN ('paused', 'options', 'notices')"):
                _insert(new, "facts", dict(row))
        for row in _readable_rows(old):
            mended = _mended(dict(row), new) if row is not None else None
            if mended and _insert(new, "jobs", mended):
                saved += 1
                stripped += mended.get("settings") == _NO_SETTINGS
            else:
                lost += 1
        new.execute("COMMIT")
    return saved, stripped, lost


def _readable_rows(old: sqlite3.Connection) -> Iterator[sqlite3.Row | None]:
    """Every job that can be read, None for each number that can't: spans are halved around the damage."""
    failures, spans = 0, [(1, _largest_id(old))]
    while spans and failures < _MOST_FAILURES:
        low, high = spans.pop()
        try:
            rows = old.execute("SELECT * FROM jobs NOT INDEXED WHERE id BETWEEN ? AND ?", (low, high)).fetchall()
        except DAMAGE:
            failures += 1
            if low >= high:
                yield None
            else:
                middle = (low + high) // 2
                spans += [(middle + 1, high), (low, middle)]
        else:
            yield from rows


def _largest_id(old: sqlite3.Connection) -> int:
    for query in ("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", "SELECT max(id) FROM jobs"):
        with suppress(*DAMAGE):
            row = old.execute(query).fetchone()
            if row and row[0]:
                return min(int(row[0]), 10_000_000)
    try:
        return old.execute("PRAGMA page_count").fetchone()[0] * 8
    except DAMAGE:
        return 0  # not even the header can be read


def _mended(row: dict[str, Any], new: sqlite3.Connection) -> dict[str, Any]:
    """A row whose text was damaged inside: kept in the history where it can't be rendered any more."""
    known = {column[1] for column in new.execute("PRAGMA table_info(jobs)")}
    row = {name: value for name, value in row.items() if name in known}
    if not _is_object(row.get("progress") or "{}"):
        row["progress"] = ""
    if not _is_object(row.get("settings", "")):
        row |= {"settings": _NO_SETTINGS, "bookmark": 1}
        if row.get("state") != "done":
            row |= {"state": "failed", "claim": "", "error_kind": "settings", "error": _SETTINGS_LOST}
    return row


def _is_object(text: object) -> bool:
    try:
        return isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False


def _insert(new: sqlite3.Connection, table: str, row: dict[str, Any]) -> bool:
    try:
        marks = ", ".join("?" * len(row))
        new.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    except sqlite3.Error:  # a value that the table's checks refuse
        return False
    return True
