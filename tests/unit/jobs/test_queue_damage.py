"""A damaged file is set aside and what can be read of it is saved, also when that is killed."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from deforum_helpers.errors import InputError
from deforum_helpers.job_queue import Ending, JobQueue, NewJob, Search
from deforum_helpers.queue_store import salvage
from queue_world import folder_in_memory, made


@pytest.fixture
def tmp_path():
    with folder_in_memory() as folder:
        yield folder


def filled(path: Path, count: int = 300) -> None:
    with closing(JobQueue(path)) as queue:
        queue.set_options(keep_jobs=77)
        queue.add_many(NewJob(made(extra={"filler": "x" * 700}), f"job {n}") for n in range(count))
        job = queue.claim()
        queue.finish(job, Ending("done", files={"video": "/v.mp4"}))
        queue.bookmark(count)  # far behind the pages that are damaged


def asides(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if ".damaged-" in file.name and file.suffix == ".db")


@pytest.mark.parametrize("page", [9, 20, 60])
def test_damaged_pages_lose_only_their_jobs(tmp_path, page):
    path = tmp_path / "jobs.db"
    filled(path)
    data = bytearray(path.read_bytes())
    data[4096 * page : 4096 * (page + 1)] = bytes(4096)
    path.write_bytes(data)
    with closing(JobQueue(path)) as queue:
        assert len(queue.notices()) == 1, "found when it is opened, not in the night"
        total = queue.search(Search()).total
        assert 270 <= total < 300
        assert queue.options.keep_jobs == 77 and queue.job(300).bookmark and queue.job(1).video == "/v.mp4"
        assert len(asides(path)) == 1 and f"Jobs saved: {total}" in queue.notices()[0]["text"]
        assert queue.add(made()).id == 301
        queue.dismiss_notices()
        assert queue.notices() == []
    assert (tmp_path / asides(path)[0]).read_bytes() == bytes(data)
    with closing(JobQueue(path)) as queue:
        assert queue.search(Search()).total == total + 1
    assert len(asides(path)) == 1, "a mended file is not set aside again"


@pytest.mark.parametrize(
    "junk", [b"not a database, but long enough " * 50, bytes(8192), b"SQLite format 3\0" + b"\xff" * 999]
)
def test_a_file_that_is_all_junk_is_set_aside(tmp_path, junk):
    path = tmp_path / "jobs.db"
    path.write_bytes(junk)
    with closing(JobQueue(path)) as queue:
        assert queue.add(made()).state == "pending"
        assert "Jobs saved: 0" in queue.notices()[0]["text"]
    assert (tmp_path / asides(path)[0]).read_bytes() == junk


def test_a_header_without_our_mark_is_damage(tmp_path):
    path = tmp_path / "jobs.db"
    filled(path, 3)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 7")
    with closing(JobQueue(path)) as queue:
        assert queue.search(Search()).total == 3 and len(queue.notices()) == 1


def test_random_damage_never_ends_in_an_error(tmp_path):
    whole = tmp_path / "whole.db"
    filled(whole, 60)
    data, dice = whole.read_bytes(), random.Random(4)
    for round_ in range(40):
        path = tmp_path / f"{round_}.db"
        broken = bytearray(data)
        for _ in range(dice.choice((1, 3, 30))):
            place, length = dice.randrange(len(broken)), dice.choice((1, 8, 300, 5000))
            broken[place : place + length] = dice.randbytes(len(broken[place : place + length]))
        path.write_bytes(broken[: dice.choice((len(broken), dice.randrange(200, len(broken))))])
        with closing(JobQueue(path)) as queue:
            try:
                jobs = queue.search(Search(limit=1000)).jobs
                queue.add(made())
            except InputError as error:  # the damage hit just the header's version or owner
                assert "newer version" in str(error) or "another program's" in str(error)
                continue
            assert len(queue.search(Search(limit=1000)).jobs) == len(jobs) + 1
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_damage_met_at_work_is_mended_without_losing_the_operation(tmp_path):
    path = tmp_path / "jobs.db"
    filled(path)
    with closing(JobQueue(path)) as queue, closing(JobQueue(path)) as other:
        assert queue.counts()["pending"] == other.counts()["pending"] == 299
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("rb+") as file:
            file.seek(4096 * 30)
            file.write(bytes(4096 * 3))
        for job_id in range(1, 301):
            if not queue.search(Search(f"#{job_id}")).total or queue.notices():
                break
        added = queue.add(made())
        assert added.id == 301 and len(asides(path)) == 1
        assert other.job(301) == added, "whoever had the old file open goes on with the new one"
        other.add(made())
        assert queue.job(302).state == "pending"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_row_damaged_inside_stays_in_the_history(tmp_path):
    path = tmp_path / "jobs.db"
    filled(path, 3)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE jobs SET settings = '{\"W\": 8' WHERE id = 2")
        db.commit()
    with closing(JobQueue(path)) as queue:
        assert {job.id: job.state for job in queue.search(Search()).jobs} == {1: "done", 2: "failed", 3: "pending"}
        assert "damaged" in queue.job(2).error
        [notice] = queue.notices()
        assert notice["text"].endswith("Jobs saved: 3, 1 of them without their settings.")


def test_salvage_killed_at_any_point_loses_nothing_more(tmp_path, monkeypatch):
    """The calls that change the folder are counted; each run of the salvage dies at one of them."""
    whole = tmp_path / "whole.db"
    filled(whole, 40)
    data = bytearray(whole.read_bytes())
    data[4096 * 8 : 4096 * 9] = bytes(4096)

    class Killed(BaseException):
        pass

    def interrupted_run(folder: Path, deadly: int) -> bool:
        folder.mkdir()
        path, left = folder / "jobs.db", deadly
        path.write_bytes(data)

        def counted(self: Path, *args: object, **kwargs: object) -> object:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real[counting](self, *args, **kwargs)

        real = {"replace": Path.replace, "unlink": Path.unlink}
        with monkeypatch.context() as patch:
            for counting in ("replace",):
                patch.setattr(Path, counting, counted)
            try:
                with closing(JobQueue(path)) as queue:
                    queue.version()
                return False
            except Killed:
                pass
        with closing(JobQueue(path)) as queue:
            assert queue.search(Search()).total > 20
            assert len(queue.notices()) == 1
        assert len(asides(path)) == 1
        assert sorted(file.name for file in folder.iterdir() if ".salvag" in file.name) == []
        return True

    died = [interrupted_run(tmp_path / f"at {point}", point) for point in range(8)]
    assert died.index(False) >= 2, "the file taken aside and the new one in its place are two steps at least"


def test_salvage_copies_the_write_ahead_log_too(tmp_path):
    path = tmp_path / "jobs.db"
    filled(path, 30)
    copy = tmp_path / "copy" / "jobs.db"
    copy.parent.mkdir()
    with closing(JobQueue(path)) as queue:
        queue.add(made(), name="only in the log")
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).exists()
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    with copy.open("rb+") as file:
        file.seek(4096 * 12)
        file.write(bytes(4096))
    with closing(JobQueue(copy)) as queue:
        assert queue.search(Search("only in the log")).total == 1
        assert asides(copy)


def test_largest_id_is_bounded_when_nothing_can_be_asked(tmp_path):
    with closing(sqlite3.connect(tmp_path / "empty.db")) as db:
        assert salvage._largest_id(db) >= 0
