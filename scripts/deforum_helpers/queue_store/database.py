"""The queue's SQLite file: opened, brought up to date, checked, and every change one transaction.

WAL lets pages be read while a job is written; synchronous=FULL puts every change on the disk before it is
acknowledged.  All threads of this process share one connection behind a lock: an operation takes a millisecond.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..errors import OutputError
from . import schema
from .facts import fact, set_fact
from .jobs import select
from .salvage import DAMAGE, finish_salvage, salvage

P, T = ParamSpec("P"), TypeVar("T")

LOCK_SECONDS = 60.0  # how long another process may take to open, check or replace the file


class Database:
    """One file.  Operations are functions f(db, ...) that read() or write() run inside a transaction.

    on_change: called, in the thread that wrote, after each change worth showing.
    """

    def __init__(self, path: str | Path, *, busy_seconds: float = 20.0, on_change: Callable[[], None] | None = None):
        self.path = Path(path).absolute()
        self._busy_seconds, self._on_change = busy_seconds, on_change
        self._one_at_a_time = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock_file: Any = None

    def read(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises OutputError for a file that can't be used, and what `work` raises."""
        return self._mending(lambda db: self._transact(db, "BEGIN", work, *args, **kwargs))

    def write(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """All of `work`'s changes or none; on the disk when this returns.  Raises like read()."""
        result, changed = self._mending(lambda db: self._write(db, True, work, *args, **kwargs))
        if changed and self._on_change:
            self._on_change()
        return result

    def write_lightly(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """A change that a power cut may undo (a heartbeat, a progress bar): whole all the same, but not waited for."""
        return self._mending(lambda db: self._write(db, False, work, *args, **kwargs))[0]

    def version(self) -> str:
        """Another text after every change of the queue, by whichever process."""
        return self.read(lambda db: f"{fact(db, 'epoch')}.{fact(db, 'version')}")

    def close(self) -> None:
        with self._one_at_a_time:
            if self._connection:
                self._connection.close()
            if self._lock_file:
                self._lock_file.close()
            self._connection = self._lock_file = None

    def _write(
        self, db: sqlite3.Connection, durable: bool, work: Callable[..., T], *args: Any, **kwargs: Any
    ) -> tuple[T, bool]:
        def counted(db: sqlite3.Connection) -> tuple[T, bool]:
            before = db.total_changes
            result = work(db, *args, **kwargs)
            changed = db.total_changes != before
            if changed:
                set_fact(db, "version", str(int(fact(db, "version") or 0) + 1))
            return result, changed

        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        with self._in_place():
            return self._transact(db, "BEGIN IMMEDIATE", counted)

    def _transact(self, db: sqlite3.Connection, begin: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        db.execute(begin)
        try:
            result = work(db, *args, **kwargs)
            db.execute("COMMIT")
            return result
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have rolled back already
                db.execute("ROLLBACK")
            raise

    def _mending(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`; if the file turns out to be damaged, set it aside and run `work` once more on what was saved."""
        with self._one_at_a_time, self._worded():
            try:
                return work(self._opened())
            except _Moved:
                return work(self._opened())
            except DAMAGE as error:
                if not _means_damage(error):
                    raise
                self.close()
                with self._alone():
                    if not _sound(self.path):  # it is, if another process met the damage first
                        salvage(self.path)
                return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != _identity(self.path):
            self.close()  # it was set aside by another process, or deleted: what we hold is no longer the queue
        if self._connection is None:
            with self._alone():
                finish_salvage(self.path)
                self._connection = self._connect()
                self._identity = _identity(self.path)
            self._lock_file = self._lock_path().open("a+b")
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        try:
            return _prepared(self.path, self._busy_seconds)
        except DAMAGE as error:
            if not _means_damage(error):
                raise
            salvage(self.path)
            return _prepared(self.path, self._busy_seconds)

    def _lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the file is opened, checked or replaced, no other process does so or writes to it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_path().open("a+b") as file, _locked(file, shared=False):
            yield

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """While we write, no other process sets the file aside; raises _Moved if one just did."""
        with _locked(self._lock_file, shared=True):
            if self._identity != _identity(self.path):
                raise _Moved
            yield

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _in_words(error, self.path) from error
        except OSError as error:
            raise OutputError(
                "the job queue's file can't be used", got=error.strerror or str(error), where=str(self.path),
                next_step="check the folder's permissions and free space",
            ) from error  # fmt: skip


class _Moved(Exception):
    pass


def _prepared(path: Path, busy_seconds: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        schema.check_ours(db)
        db.execute("PRAGMA journal_mode = WAL")  # where a file system can't do it, SQLite goes on without
        schema.migrate(db)
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(f"malformed: {found}")
        db.execute("SELECT id, settings FROM jobs LIMIT 1")
        return db
    except BaseException:
        db.close()
        raise


def _sound(path: Path) -> bool:
    """Whether every page and every job can be read: slower than the check at opening, and complete."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                return False
            select(db, "1")
            return True
    except IndexError:  # a column is missing
        return False
    except DAMAGE as error:
        if not _means_damage(error):
            raise
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _means_damage(error: Exception) -> bool:
    """SQLITE_CORRUPT and SQLITE_NOTADB; Python 3.10 doesn't give the code, but no other error has the plain class."""
    return type(error) in (sqlite3.DatabaseError, UnicodeDecodeError) or any(
        words in str(error) for words in ("malformed", "no such table", "no such column", "Could not decode")
    )


def _in_words(error: sqlite3.Error, path: Path) -> OutputError:
    text = str(error)
    if "locked" in text or "busy" in text:
        what, next_step = "the job queue is held by another program", "close what has the file open, then try again"
    elif "full" in text:
        what, next_step = "the job queue can't be written: the disk is full", "free some space"
    elif "readonly" in text:
        what, next_step = "the job queue can't be written: the file is read-only", "change its permissions"
    else:
        what, next_step = "the job queue's file can't be used", "check the disk and the folder's permissions"
    return OutputError(what, got=text, where=str(path), next_step=next_step)


@contextmanager
def _locked(file: Any, *, shared: bool) -> Iterator[None]:
    """Held by the system, which lets go of it when the process ends, however it ends.  Raises TimeoutError."""
    deadline = time.monotonic() + LOCK_SECONDS
    while not _try_lock(file, shared):
        if time.monotonic() > deadline:
            raise TimeoutError("another program has held its lock for too long")
        time.sleep(0.01)
    try:
        yield
    finally:
        _unlock(file, shared)


if os.name == "nt":
    import msvcrt

    def _try_lock(file: Any, shared: bool) -> bool:
        """Windows refuses to move a file that is open elsewhere, so only opening needs the lock."""
        if shared:
            return True
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

    def _unlock(file: Any, shared: bool) -> None:
        if not shared:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _try_lock(file: Any, shared: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: SQLite's own still guard the contents
            return True
        return True

    def _unlock(file: Any, shared: bool) -> None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
