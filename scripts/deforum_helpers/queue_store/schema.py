"""The tables, as numbered migrations: a file that any earlier version made is brought up to date when it is opened.

Column types are enforced by CHECKs.  SQLite's own STRICT tables would do it too, but a file that one WebUI's Python
made with them can't be opened by another's whose SQLite is older than 3.37 (Python 3.10 on Ubuntu 20.04 has 3.31).
"""

from __future__ import annotations

import secrets
import sqlite3

from ..errors import InputError

APPLICATION_ID = 0x44665751  # "DfWQ", in the file's header: whose database this is


def _column(name: str, kind: str, rule: str = "") -> str:
    """kind: text, integer or real.  No column holds NULL: '', 0 and 0.0 mean "none" or "not yet"."""
    default = {"text": "''", "integer": "0", "real": "0.0"}[kind]
    return f"{name} {kind} NOT NULL DEFAULT {default} CHECK (typeof({name}) = '{kind}'{rule and f' AND {rule}'})"


# Never edit a migration that was released: add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            {_column("state", "text", "state IN ('pending','running','done','failed','cancelled','interrupted')")},
            {_column("position", "integer")},
            {_column("attempts", "integer", "attempts >= 0")},
            {_column("bookmark", "integer", "bookmark IN (0, 1)")},
            {_column("resume", "integer", "resume IN (0, 1)")},
            {_column("seed", "integer", "seed >= 0")},
            {_column("batch", "text")},
            {_column("claim", "text")},
            {_column("owner", "text")},
            {_column("heartbeat", "real")},
            {_column("stop", "text", "stop IN ('', 'after_clip', 'now')")},
            {_column("created", "real")},
            {_column("started", "real")},
            {_column("finished", "real")},
            {_column("updated", "real")},
            {_column("name", "text")},
            {_column("error_kind", "text")},
            {_column("error", "text")},
            {_column("progress", "text")},
            {_column("folder", "text")},
            {_column("timestring", "text")},
            {_column("video", "text")},
            {_column("thumbnail", "text")},
            {_column("words", "text")},
            {_column("settings", "text")},
            CHECK ((state = 'running') = (claim <> ''))
        )""",
        "CREATE INDEX jobs_in_order ON jobs (state, position)",
        f"CREATE TABLE facts (key TEXT PRIMARY KEY NOT NULL, {_column('value', 'text')}) WITHOUT ROWID",
    ),
)


def check_ours(db: sqlite3.Connection) -> None:
    """Raise InputError for another program's database and for one that a newer version made."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    if application != APPLICATION_ID and {"jobs", "jobs_in_order", "facts"} <= tables:
        raise sqlite3.DatabaseError("malformed header: it has the queue's tables and not its mark")
    if application != APPLICATION_ID and not (not tables and application == version == 0):
        raise InputError(
            "this file is another program's database, not a job queue", next_step="choose another file for the queue"
        )
    if version > len(MIGRATIONS):
        raise InputError(
            "this job queue was made by a newer version of Deforum Wan", got=f"version {version}",
            allowed=f"up to {len(MIGRATIONS)}", next_step="update the extension or choose another file for the queue",
        )  # fmt: skip


def migrate(db: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Run the migrations that the file has not had, all of them or none.  It is a new file if it has had none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        done = db.execute("PRAGMA user_version").fetchone()[0]
        for statements in migrations[done:]:
            for statement in statements:
                db.execute(statement)
        if done == 0:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            facts = [("epoch", secrets.token_hex(6)), ("version", "0")]
            db.executemany("INSERT OR IGNORE INTO facts (key, value) VALUES (?, ?)", facts)
        if done < len(migrations):
            db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
