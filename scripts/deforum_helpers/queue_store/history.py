"""Finding jobs again, and forgetting old ones."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from .jobs import STATES, Job, State, folded, select

_FINISHED = "state IN ('done', 'failed', 'cancelled') AND bookmark = 0"  # an interrupted one can still be resumed
_LONGEST_TEXT = 200
_ORDERS = {
    "newest": "CASE WHEN finished > 0 THEN finished ELSE created END DESC, id DESC",
    "oldest": "CASE WHEN finished > 0 THEN finished ELSE created END, id",
    "queue": "position, id",
}


@dataclass(frozen=True)
class Search:
    """text: words that all occur in a job's name, prompts, model or batch_name, or its "#number".

    states: () = all.  bookmarked: None = either.  batch: "" = any.
    """

    text: str = ""
    states: tuple[State, ...] = ()
    bookmarked: bool | None = None
    batch: str = ""
    order: Literal["newest", "oldest", "queue"] = "newest"
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True)
class Page:
    """jobs: from offset on.  total: how many the search finds."""

    jobs: tuple[Job, ...]
    total: int


def find(db: sqlite3.Connection, search: Search) -> Page:
    terms: list[str] = ["1"]
    values: list[Any] = []
    for word in folded(search.text[:_LONGEST_TEXT]).split():
        pattern = "%" + "".join(f"\\{c}" if c in "\\%_" else c for c in word) + "%"
        terms.append("(words LIKE ? ESCAPE '\\' OR ('#' || id) = ?)")
        values += [pattern, word]
    if search.states:
        terms.append(f"state IN ({', '.join('?' * len(search.states))})")
        values += search.states
    if search.bookmarked is not None:
        terms.append("bookmark = ?")
        values.append(int(search.bookmarked))
    if search.batch:
        terms.append("batch = ?")
        values.append(search.batch)
    where = " AND ".join(terms)
    total = db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()[0]
    order = _ORDERS[search.order]  # of numbers first: sorting whole rows takes ten times as long
    page = f"id IN (SELECT id FROM jobs WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?) ORDER BY {order}"
    return Page(tuple(select(db, page, *values, max(0, search.limit), max(0, search.offset))), total)


def counts(db: sqlite3.Connection) -> dict[State, int]:
    """How many jobs are in each state; every state is a key."""
    found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    return {state: found.get(state, 0) for state in STATES}


def batches(db: sqlite3.Connection) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for batch, job_id in db.execute("SELECT batch, id FROM jobs WHERE batch <> '' ORDER BY id"):
        found.setdefault(batch, []).append(job_id)
    return found


def prune(db: sqlite3.Connection, now: float, keep_jobs: int, keep_days: float) -> list[int]:
    """Delete the rows of finished jobs beyond the newest keep_jobs or older than keep_days; 0 = no limit."""
    old: set[int] = set()
    if keep_jobs:
        rows = db.execute(f"SELECT id FROM jobs WHERE {_FINISHED} ORDER BY finished DESC, id DESC")
        old |= {row[0] for row in rows.fetchall()[keep_jobs:]}
    if keep_days:
        rows = db.execute(f"SELECT id FROM jobs WHERE {_FINISHED} AND finished < ?", (now - keep_days * 86_400,))
        old |= {row[0] for row in rows}
    db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in old])
    return sorted(old)
