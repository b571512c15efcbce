"""Where a job stands in the queue: whole numbers far apart, so that a move touches one row."""

from __future__ import annotations

import sqlite3

GAP = 1 << 20


def last_position(db: sqlite3.Connection) -> int:
    """Behind every job there is, so that one asked for again doesn't overtake those that came after it."""
    return (db.execute("SELECT max(position) FROM jobs").fetchone()[0] or 0) + GAP


def first_position(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT min(position) FROM jobs WHERE state = 'pending'").fetchone()
    return (row[0] or 0) - GAP


def waiting_ids(db: sqlite3.Connection) -> list[int]:
    return [row[0] for row in db.execute("SELECT id FROM jobs WHERE state = 'pending' ORDER BY position, id")]


def position_at(db: sqlite3.Connection, job_id: int, index: int) -> int:
    """The position that makes `job_id` the waiting job number `index` (0 = next; beyond the ends = at the end).

    Where no number is free between its new neighbours, all waiting jobs are spread out first.
    """
    others = [other for other in waiting_ids(db) if other != job_id]
    index = min(max(index, 0), len(others))
    if index == 0:
        return first_position(db)
    if index == len(others):
        return last_position(db)
    before, after = _position(db, others[index - 1]), _position(db, others[index])
    if after - before < 2:
        start = min(before, first_position(db))
        for place, other in enumerate(others):
            db.execute("UPDATE jobs SET position = ? WHERE id = ?", (start + place * GAP, other))
        before, after = _position(db, others[index - 1]), _position(db, others[index])
    return (before + after) // 2


def _position(db: sqlite3.Connection, job_id: int) -> int:
    return db.execute("SELECT position FROM jobs WHERE id = ?", (job_id,)).fetchone()[0]
