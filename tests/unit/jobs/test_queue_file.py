"""The queue's file: versions, migrations, what is refused, what several processes see of each other."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from deforum_helpers import job_queue
from deforum_helpers.errors import InputError, OutputError
from deforum_helpers.job_queue import JobQueue, Search
from deforum_helpers.queue_store import database, schema
from queue_world import add, made

# The file


def test_version_changes_with_every_change_and_only_then(queue, tmp_path):
    seen = [queue.version()]

    def changed() -> bool:
        seen.append(queue.version())
        return seen[-1] not in seen[:-1]

    [first] = add(queue, 1)
    assert changed() and not changed()
    queue.search(Search())
    queue.recover()
    queue.prune()
    assert not changed()
    job = queue.claim()
    assert changed()
    queue.beat(job, '{"a": 1}')
    assert changed()
    with closing(JobQueue(queue.path)) as other:
        other.pause()
        assert other.version() == queue.version()
    assert changed()
    with pytest.raises(InputError):
        queue.delete(first)
    assert not changed()


def test_listeners_hear_of_changes(queue):
    heard: list[int] = []
    listener = lambda: heard.append(1)  # noqa: E731
    queue.listen(listener)
    add(queue, 1)
    job = queue.claim()
    assert len(heard) == 2
    queue.beat(job, '{"a": 1}')
    queue.waiting()
    assert len(heard) == 2
    queue.unlisten(listener)
    queue.pause()
    assert len(heard) == 2


def test_two_processes_never_get_one_job(queue):
    """Each thread has a connection of its own, as another process has."""
    queue.set_options(at_once=64)
    add(queue, 60)
    claimed: list[int] = []
    together = threading.Barrier(6)

    def work() -> None:
        with closing(JobQueue(queue.path)) as other:
            other.version()
            together.wait(30)
            while job := other.claim():
                claimed.append(job.id)

    with ThreadPoolExecutor(6) as threads:
        for thread in [threads.submit(work) for _ in range(6)]:
            thread.result(60)
    assert sorted(claimed) == list(range(1, 61))


def test_migrations_run_once_each_and_in_order(tmp_path, monkeypatch):
    path = tmp_path / "jobs.db"
    with closing(JobQueue(path)) as queue:
        queue.add(made(), name="old")
    added = ("ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",)
    more = ("UPDATE jobs SET colour = 'blue' WHERE name = 'old'",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added, more))
    monkeypatch.setattr(schema.migrate, "__defaults__", (schema.MIGRATIONS,))
    with closing(JobQueue(path)) as queue:
        assert queue.job(1).name == "old"
        queue.add(made())
    with closing(JobQueue(path)) as queue, closing(sqlite3.connect(path)) as db:
        assert queue.counts()["pending"] == 2
        assert db.execute("SELECT colour FROM jobs").fetchall() == [("blue",), ("red",)]
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "jobs.db"
    with closing(JobQueue(path)) as queue:
        queue.add(made())
    broken = ("ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'", "CREATE TABLE jobs (x)")
    with monkeypatch.context() as patch:
        patch.setattr(schema.migrate, "__defaults__", ((*schema.MIGRATIONS, broken),))
        with closing(JobQueue(path)) as queue, pytest.raises(OutputError):
            queue.counts()
    with closing(JobQueue(path)) as queue, closing(sqlite3.connect(path)) as db:
        assert queue.counts()["pending"] == 1
        assert "colour" not in db.execute("SELECT sql FROM sqlite_master WHERE name = 'jobs'").fetchone()[0]


def test_a_foreign_or_newer_file_is_refused_and_untouched(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE holiday (photo)")
    before = path.read_bytes()
    with closing(JobQueue(path)) as queue, pytest.raises(InputError, match="another program's"):
        queue.version()
    assert path.read_bytes() == before
    newer = tmp_path / "newer.db"
    with closing(JobQueue(newer)) as queue:
        queue.add(made())
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 99")
    with closing(JobQueue(newer)) as queue, pytest.raises(InputError, match="newer version"):
        queue.version()
    assert sorted(file.name for file in tmp_path.iterdir() if "damaged" in file.name) == []


def test_the_table_s_own_checks(queue):
    add(queue, 1)
    with closing(sqlite3.connect(queue.path)) as db:
        for wrong in (
            "state = 'lost'", "state = 'running'", "claim = 'c'", "attempts = 'many'", "name = x'00'", "seed = -1",
            "bookmark = 2", "created = 'now'", "settings = NULL",
        ):  # fmt: skip
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(f"UPDATE jobs SET {wrong}")


def test_a_locked_file_is_said_so(tmp_path):
    path = tmp_path / "jobs.db"
    with closing(JobQueue(path)) as queue:
        queue.add(made())
        queue._db._connection.execute("PRAGMA busy_timeout = 50")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(OutputError, match="held by another program"):
                queue.add(made())
            assert queue.counts()["pending"] == 1, "reading goes on"


def test_a_process_that_hangs_while_opening_is_said_so(queue, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    add(queue, 1)
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    with queue.path.with_name("jobs.db.lock").open() as hanging:
        fcntl.flock(hanging, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="held its lock for too long"):
            queue.add(made())
        with closing(JobQueue(queue.path)) as other, pytest.raises(OutputError, match="held its lock"):
            other.version()
        assert queue.counts()["pending"] == 1, "reading goes on"
    assert queue.add(made()).id == 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_so(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="can't be used"):
            JobQueue(tmp_path / "jobs.db").version()
    finally:
        tmp_path.chmod(0o700)


def test_a_path_that_is_a_folder_is_said_so(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="can't be used"):
        JobQueue(tmp_path / "folder").version()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files")
def test_a_deleted_file_is_made_anew_and_polls_notice(queue):
    add(queue, 3)
    before = queue.version()
    with closing(JobQueue(queue.path)) as other:
        other.version()
        queue.path.unlink()
        assert other.counts()["pending"] == 0
        add(queue, 1)
        assert other.counts()["pending"] == queue.counts()["pending"] == 1
        assert queue.version() != before
    with closing(sqlite3.connect(queue.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_one_object_for_a_file_in_a_process(tmp_path):
    queue = job_queue.open_queue(tmp_path / "jobs.db")
    try:
        assert job_queue.open_queue(tmp_path / "jobs.db") is queue
    finally:
        del job_queue._open_queues[queue.path]
        queue.close()
