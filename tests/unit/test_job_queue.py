"""The queue's store: every operation, its guards, recovery, damage; and a machine of random operations."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from deforum_helpers import job_queue
from deforum_helpers.errors import InputError, OutputError, SettingsError
from deforum_helpers.job_queue import STATES, TRANSITIONS, ClaimLost, Ending, Job, JobQueue, NewJob, Search, seed_list
from deforum_helpers.queue_store import database, order, owners, salvage, schema
from deforum_helpers.queue_store.jobs import transition
from deforum_helpers.queue_store.owners import Owner, Witness
from deforum_helpers.settings import RenderSettings, settings_to_dict
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

MEMORY = Path("/dev/shm")
PROMPTS = {"0": "a red balloon --neg rain", "40": "日の出"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Deaths(Witness):
    """A witness that believes what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: set[str] = set()

    def lives(self, owner: Owner | None, claim: str, heartbeat: float) -> bool:
        return claim not in self.dead


@pytest.fixture
def tmp_path():
    """In memory where the system has such a folder: thousands of transactions wait for the disk otherwise."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


@pytest.fixture
def queue(tmp_path: Path, deaths: Deaths):
    queue = JobQueue(tmp_path / "queue" / "jobs.db", clock=Clock(), witness=deaths)
    yield queue
    queue.close()


def made(**fields: object) -> RenderSettings:
    return RenderSettings(prompts=PROMPTS, **fields)


def add(queue: JobQueue, count: int) -> list[int]:
    return [job.id for job in queue.add_many(NewJob(made(), f"job {n}") for n in range(count))]


def waiting(queue: JobQueue) -> list[int]:
    return [job.id for job in queue.waiting()]


def end(queue: JobQueue, job: Job, state: str = "done", kind: str = "", error: str = "") -> Job:
    return queue.finish(job, Ending(state, kind, error))


def put_into_state(queue: JobQueue, state: str) -> Job:
    job = queue.add(made(), first=True)
    if state == "pending":
        return job
    running = queue.claim()
    assert running and running.id == job.id
    return running if state == "running" else end(queue, running, state)


# Adding


def test_a_job_keeps_its_settings_and_resolves_its_seed_once(queue):
    job = queue.add(made(width=640, extra={"angle": "0: (1)"}), name="  hills\n", batch="b1")
    assert (job.state, job.name, job.batch, job.attempts, job.timestring) == ("pending", "hills", "b1", 0, "")
    assert job.render_settings() == made(width=640, extra={"angle": "0: (1)"}, seed=job.seed)
    assert job == queue.job(job.id) and job.seed >= 0
    assert queue.add(made(seed=7)).seed == 7
    assert queue.add(made(seed=7), seed=9).seed == 9
    assert len({queue.add(made()).seed for _ in range(5)}) == 5


def test_settings_may_come_as_a_file_s_object(queue):
    assert queue.add({"W": 640, "prompts": PROMPTS}).render_settings().width == 640
    with pytest.raises(SettingsError, match="width"):
        queue.add_many([NewJob(made()), NewJob({"W": "wide"})])
    assert queue.counts()["pending"] == 1


def test_many_are_added_in_order_also_in_front(queue):
    first = add(queue, 3)
    front = [job.id for job in queue.add_many([NewJob(made()) for _ in range(2)], first=True)]
    assert waiting(queue) == front + first


@pytest.mark.parametrize("name", ["\ud800half", "a\0b", "tab\there", "x" * 5000, "\u202egnp"])
def test_any_name_can_be_kept(queue, name):
    kept = queue.add(made(), name=name).name
    assert len(kept) <= 200 and kept.isprintable()


def test_grid_is_every_combination(queue):
    jobs = queue.add_grid(made(), {"seed": [1, 2], "steps": ["10", 20]}, name="hills")
    assert [(job.seed, job.render_settings().num_inference_steps) for job in jobs] == [
        (1, "10"), (1, "20"), (2, "10"), (2, "20"),
    ]  # fmt: skip
    assert jobs[1].name == "hills · seed 1, steps 20"
    assert len({job.batch for job in jobs}) == 1 and jobs[0].batch


@pytest.mark.parametrize(
    ("axes", "field"),
    [({"stepz": [1]}, "stepz"), ({"width": [640, 641]}, "width"), ({"seed": []}, "seed"), ({"seed": "12"}, "seed")],
)
def test_a_grid_that_cannot_be_names_its_field(queue, axes, field):
    with pytest.raises(InputError, match=field):
        queue.add_grid(made(), axes)
    assert queue.counts()["pending"] == 0


def test_a_grid_has_a_limit(queue):
    with pytest.raises(InputError, match="1024 jobs"):
        queue.add_grid(made(), {"seed": list(range(32)), "crf": list(range(32))})


def test_seed_list():
    assert seed_list("7, 20-22 -1") == [7, 20, 21, 22, -1]
    for text in ("x", "5-3", "1-", "99999999999", "0-4000000000", "1--2"):
        with pytest.raises(InputError, match="seeds"):
            seed_list(text)


# Order


def test_moves(queue):
    a, b, c, d = add(queue, 4)
    queue.move(d, before=b)
    assert waiting(queue) == [a, d, b, c]
    queue.move(a, after=b)
    assert waiting(queue) == [d, b, a, c]
    queue.run_next(c)
    queue.move_by(d, +99)
    assert waiting(queue) == [c, b, a, d]
    queue.move_by(a, -1)
    assert waiting(queue) == [c, a, b, d]
    for wrong in ({"before": a}, {}, {"before": b, "after": c}, {"before": 99}):
        with pytest.raises(InputError):
            queue.move(a, **wrong)


def test_a_thousand_moves_into_one_place(queue):
    ids = add(queue, 5)
    for turn in range(1000):
        queue.move(ids[3 + turn % 2], after=ids[0])
    assert waiting(queue) == [ids[0], ids[4], ids[3], ids[1], ids[2]]


# States


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("to", STATES)
def test_only_the_diagram_s_transitions_pass(queue, state, to):
    job = put_into_state(queue, state)
    columns = {"claim": "c"} if to == "running" else {}

    def step() -> Job:
        return queue._db.write(transition, job.id, to, 1.0, holder=job.claim, **columns)

    if to in TRANSITIONS[state]:
        assert step().state == to
    else:
        with pytest.raises(InputError, match="can't become"):
            step()
        assert queue.job(job.id) == job


def test_a_run_from_claim_to_end(queue):
    [first, second] = add(queue, 2)
    job = queue.claim()
    assert (job.id, job.state, job.attempts, job.owner) == (first, "running", 1, owners.this_process())
    assert queue.claim() is None, "one at a time is the default"
    queue.set_options(at_once=2)
    assert queue.claim().id == second
    assert queue.claim() is None
    assert queue.record_files(job, {"folder": "/out/a", "timestring": "20260101"})
    assert queue.beat(job, '{"fraction": 0.5}') == ""
    assert queue.job(first).progress == {"fraction": 0.5}
    done = queue.finish(job, Ending("done", files={"video": "/out/a/20260101.mp4"}))
    assert (done.state, done.folder, done.video, done.claim, done.owner) == (
        "done", "/out/a", "/out/a/20260101.mp4", "", None,
    )  # fmt: skip
    assert done.finished >= done.started > done.created


def test_a_run_that_was_given_up_can_change_nothing(queue, deaths):
    add(queue, 1)
    job = queue.claim()
    deaths.dead.add(job.claim)
    assert [lost.state for lost in queue.recover()] == ["interrupted"]
    assert queue.beat(job, '{"fraction": 1}') is None
    assert not queue.record_files(job, {"folder": "/x"})
    with pytest.raises(InputError):
        end(queue, job)
    queue.requeue(job.id)
    again = queue.claim()
    with pytest.raises(ClaimLost):
        end(queue, job)
    assert queue.job(job.id) == again


def test_cancel(queue):
    a, b = add(queue, 2)
    job = queue.claim()
    assert [found.state for found in queue.cancel(a, b)] == ["running", "cancelled"]
    assert queue.beat(job) == "now"
    assert end(queue, job, "cancelled", "cancelled").stop == ""
    with pytest.raises(InputError, match="cancelled can't become cancelled"):
        queue.cancel(a)


def test_an_operation_on_several_is_all_or_nothing(queue):
    a, b = add(queue, 2)
    for attempt in (lambda: queue.cancel(a, b, 99), lambda: queue.delete(a, 99), lambda: queue.requeue(a)):
        with pytest.raises(InputError):
            attempt()
    assert waiting(queue) == [a, b]


def test_requeue_goes_on_or_starts_over(queue):
    [first, other] = add(queue, 2)
    for resume, kept in ((True, "/out"), (False, "")):
        job = queue.claim()
        assert job.id == first
        queue.record_files(job, {"folder": "/out", "timestring": "2026"})
        assert end(queue, job, "failed", "render", "it\nbroke").error == "it broke"
        again = queue.requeue(first, resume=resume)[0]
        assert (again.state, again.attempts, again.error) == ("pending", 0, "")
        assert waiting(queue) == [other, first]
        queue.run_next(first)
        job = queue.claim()
        assert (job.resume, job.folder, job.attempts) == (resume, kept, 1)
        end(queue, job, "failed")
        queue.requeue(first, first=True, resume=False)
        assert waiting(queue) == [first, other]


def test_requeue_failed_keeps_the_order_and_spares_the_others(queue):
    failed = [put_into_state(queue, "failed").id for _ in range(3)]
    put_into_state(queue, "cancelled")
    expected = sorted(failed, key=lambda job_id: queue.job(job_id).position)
    assert [job.id for job in queue.requeue_failed()] == expected == waiting(queue)


def test_edit_rename_bookmark_duplicate(queue):
    job = queue.add(made())
    edited = queue.edit(job.id, made(width=640))
    assert (edited.render_settings().width, edited.seed) == (640, job.seed)
    assert queue.edit(job.id, made(seed=5)).seed == 5
    assert queue.rename(job.id, "new").name == "new" and queue.bookmark(job.id).bookmark
    copy = queue.duplicate(job.id)
    assert (copy.seed, copy.settings, copy.bookmark, copy.name) == (5, queue.job(job.id).settings, False, "new")
    assert queue.duplicate(job.id, seed=6).seed == 6
    assert queue.duplicate(job.id, seed=-1).seed not in (5, 6)
    queue.claim()
    with pytest.raises(InputError, match="duplicate it"):
        queue.edit(job.id, made())
    assert queue.rename(job.id, "while running").name == "while running"


def test_delete_spares_the_running(queue):
    a, b = add(queue, 2)
    queue.claim()
    with pytest.raises(InputError, match="cancel it first"):
        queue.delete(b, a)
    assert waiting(queue) == [b]
    queue.delete(b)
    with pytest.raises(InputError, match="no such job"):
        queue.job(b)
    assert queue.add(made()).id > b, "numbers are never given twice"


# Recovery


def test_recovery_without_auto_resume_waits_for_a_person(queue, deaths):
    [first] = add(queue, 1)
    job = queue.claim()
    assert queue.recover() == []
    deaths.dead.add(job.claim)
    [found] = queue.recover()
    assert (found.state, found.error_kind, found.attempts) == ("interrupted", "interrupted", 1)
    assert queue.resume_interrupted()[0].state == "interrupted" and queue.claim() is None
    assert queue.requeue(first)[0].attempts == 0


def test_a_job_that_kills_the_program_is_not_run_for_ever(queue, deaths):
    queue.set_options(auto_resume=True, most_attempts=3)
    bad, good = add(queue, 2)
    for attempt in (1, 2, 3):
        job = queue.claim()
        assert (job.id, job.attempts) == (bad, attempt), "it keeps its place in front"
        deaths.dead.add(job.claim)
        queue.recover()
    assert queue.job(bad).state == "interrupted" and "3 times" in queue.job(bad).error
    queue.resume_interrupted()
    assert queue.claim().id == good


def test_a_run_ended_in_good_order_costs_no_attempt(queue):
    queue.set_options(auto_resume=True, most_attempts=1)
    add(queue, 1)
    for _ in range(3):
        job = queue.claim()
        assert end(queue, job, "interrupted", "shutdown").state == "interrupted"
        assert [found.state for found in queue.resume_interrupted()] == ["pending"]


def test_cancelled_before_the_crash_stays_cancelled(queue, deaths):
    queue.set_options(auto_resume=True)
    [first] = add(queue, 1)
    job = queue.claim()
    queue.cancel(first)
    deaths.dead.add(job.claim)
    assert queue.recover()[0].state == "cancelled"


def test_worker_death_interrupts_and_resumes_if_set(queue):
    add(queue, 1)
    assert end(queue, queue.claim(), "interrupted", "worker_died", "killed").state == "interrupted"
    queue.set_options(auto_resume=True)
    queue.resume_interrupted()
    assert end(queue, queue.claim(), "interrupted", "worker_died", "killed").state == "pending"


# Pause


def test_pause_and_resume(queue):
    a, b = add(queue, 2)
    queue.pause()
    assert queue.claim() is None and queue.paused == "paused"
    assert queue.resume() == [] and queue.paused == ""
    job = queue.claim()
    queue.pause(after_clip=True)
    assert queue.beat(job) == "after_clip"
    assert end(queue, job, "interrupted", "paused").state == "interrupted"
    queue.run_next(b)
    assert [found.id for found in queue.resume()] == [a]
    assert queue.claim().attempts == 1


def test_resume_before_the_clip_has_ended(queue):
    add(queue, 1)
    job = queue.claim()
    queue.pause(after_clip=True)
    queue.resume()
    assert queue.beat(job) == ""
    assert end(queue, job, "interrupted", "paused").state == "pending", "the render had stopped all the same"


def test_out_of_memory_pauses_where_set(queue):
    for wanted in (True, False):
        queue.resume()
        queue.set_options(pause_on_out_of_memory=wanted)
        add(queue, 1)
        end(queue, queue.claim(), "failed", "out_of_memory", "no room")
        assert bool(queue.paused) is wanted


def test_options_are_checked_and_kept(queue, tmp_path):
    queue.set_options(keep_days=3, most_attempts=5)
    assert JobQueueIn(queue).options == dataclasses.replace(queue.options, keep_days=3.0, most_attempts=5)
    for wrong in ({"most_attempts": 0}, {"auto_resume": 1}, {"nonsense": 1}, {"keep_days": float("nan")}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            queue.set_options(**wrong)


class JobQueueIn:
    """The same file through a second connection, as another process has it."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str):
        with closing(JobQueue(self._queue.path)) as other:
            return getattr(other, name)


# History


def test_search_finds_words_anywhere_in_any_case(queue):
    queue.add(made(model="wan2.1"), name="Straße")
    queue.add(RenderSettings(prompts={"0": "100% _done_ \\ fast"}), name="two")
    for text, found in (
        ("STRASSE", [1]), ("balloon wan2.1", [1]), ("balloon two", []), ("日の", [1]), ("100%", [2]), ("_d", [2]),
        ("%", [2]), ("\\", [2]), ("#2", [2]), ("", [2, 1]), ("x" * 100_000, []),
    ):  # fmt: skip
        assert [job.id for job in queue.search(Search(text)).jobs] == found, text


def test_search_filters_pages_and_orders(queue):
    ids = [put_into_state(queue, state).id for state in ("done", "failed", "done", "cancelled", "done")]
    queue.bookmark(ids[2])
    page = queue.search(Search(states=("done",), limit=2, offset=1))
    assert ([job.id for job in page.jobs], page.total) == ([ids[2], ids[0]], 3)
    assert [job.id for job in queue.search(Search(bookmarked=True)).jobs] == [ids[2]]
    assert queue.search(Search(states=("done",), bookmarked=False)).total == 2
    assert [job.id for job in queue.search(Search(order="oldest")).jobs] == ids
    assert queue.counts() == {"pending": 0, "running": 0, "done": 3, "failed": 1, "cancelled": 1, "interrupted": 0}


def test_batches(queue):
    queue.add_many([NewJob(made(), batch=batch) for batch in ("b", "a", "", "b")])
    assert queue.batches() == ["b", "a"]
    assert [job.id for job in queue.search(Search(batch="b", order="queue")).jobs] == [1, 4]


def test_retention_spares_bookmarks_and_what_is_not_finished(queue):
    done = [put_into_state(queue, "done").id for _ in range(5)]
    kept = [put_into_state(queue, state).id for state in ("interrupted", "pending")]
    queue.bookmark(done[0])
    assert queue.prune() == []
    queue.set_options(keep_jobs=2)
    assert queue.prune() == done[1:3]
    queue.set_options(keep_jobs=0, keep_days=1.0)
    assert queue.prune() == []
    queue._clock.now += 2 * 86_400
    assert queue.prune() == done[3:]
    assert {job.id for job in queue.search(Search()).jobs} == {done[0], *kept}


# Exchange


def test_export_and_import(queue, tmp_path):
    queue.add(made(seed=3, extra={"angle": "0: (1)"}), name="日の出")
    job = queue.claim()
    queue.record_files(job, {"folder": "/secret", "timestring": "t", "video": "/etc/passwd"})
    end(queue, job, "interrupted")
    queue.add(made())
    text = queue.export_jobs()
    with closing(JobQueue(tmp_path / "other.db")) as other:
        jobs = other.import_jobs(text.encode(), batch="in")
        assert [(job.state, job.seed, job.name) for job in jobs] == [
            ("pending", old.seed, old.name) for old in (queue.job(1), queue.job(2))
        ]
        assert jobs[0].render_settings() == queue.job(1).render_settings()
        assert {(job.folder, job.video, job.timestring, job.resume, job.batch) for job in jobs} == {
            ("", "", "", False, "in")
        }
    assert json.loads(queue.export_jobs([1]))["jobs"][0]["name"] == "日の出"


GOOD = {"format": "deforum-wan-queue", "version": 1}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\x00", "not JSON"), ("[1]", "no exported queue"), ("{", "not JSON"), ("[" * 100_000, "not JSON"),
        ({"format": "other", "jobs": []}, "no exported queue"), ({**GOOD, "version": 9, "jobs": []}, "newer"),
        ({**GOOD, "jobs": {}}, "no exported queue"), ({**GOOD, "jobs": [3]}, "job 1"),
        ({**GOOD, "jobs": [{"settings": {}}, {"settings": []}]}, "job 2"),
        ({**GOOD, "jobs": [{"settings": {"W": 99}}]}, "job 1, width"),
        ({**GOOD, "jobs": [{"settings": {}, "seed": 2**32}]}, "job 1, seed"),
        ({**GOOD, "jobs": [{"settings": {}, "seed": True}]}, "job 1, seed"),
        ({**GOOD, "jobs": [{"settings": {}, "name": 5}]}, "job 1, name"),
        ({**GOOD, "jobs": [{"settings": {}, "bookmark": "yes"}]}, "job 1, bookmark"),
        ({**GOOD, "jobs": [{"settings": {"x": float("inf")}}]}, "job 1"),
        ({**GOOD, "jobs": [{"settings": {}}] * 1001}, "too many"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named(queue, data, words):
    with pytest.raises(InputError, match=words):
        queue.import_jobs(data if isinstance(data, str | bytes) else json.dumps(data))
    assert queue.counts()["pending"] == 0


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
    with pytest.raises(OutputError, match="can't be used"):
        JobQueue(tmp_path).version()


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


# Damage


def filled(path: Path, count: int = 300) -> None:
    with closing(JobQueue(path)) as queue:
        queue.set_options(keep_jobs=77)
        queue.add_many(NewJob(made(extra={"filler": "x" * 700}), f"job {n}") for n in range(count))
        job = queue.claim()
        queue.finish(job, Ending("done", files={"video": "/v.mp4"}))
        queue.bookmark(min(5, count))


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
        assert queue.options.keep_jobs == 77 and queue.job(5).bookmark and queue.job(1).video == "/v.mp4"
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
        assert "damaged" in queue.job(2).error and len(queue.notices()) == 1


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


# Owners


def test_a_process_is_its_pid_and_its_start():
    here = owners.this_process()
    witness = Witness()
    assert here.started and witness.lives(here, "c", 0.0)
    assert not witness.lives(dataclasses.replace(here, started="another boot:1"), "c", 0.0)
    assert not witness.lives(dataclasses.replace(here, pid=2**22 + 1), "c", 0.0)
    assert Owner.from_text(here.to_text()) == here
    assert Owner.from_text("") is None and Owner.from_text("[]") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_zombie_is_dead():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert owners.start_of_process(pid) == ""
    os.waitpid(pid, 0)


def test_ps_tells_the_same_as_proc():
    assert owners._start_by_ps(os.getpid())
    assert owners._start_by_ps(2**22 + 1) == ""


def test_a_foreign_process_is_judged_by_its_heartbeat_and_our_clock():
    now = [0.0]
    witness = Witness(lease_seconds=60, clock=lambda: now[0])
    far = Owner("elsewhere", 1, "x")
    beats = [(0, 5.0, True), (59, 5.0, True), (61, 5.0, False)]
    for now[0], heartbeat, alive in beats:
        assert witness.lives(far, "a", heartbeat) is alive
    for now[0], heartbeat, alive in [(100, 9.0, True), (150, -3.0, True), (200, -3.0, True), (211, -3.0, False)]:
        assert witness.lives(far, "b", heartbeat) is alive
    witness.forget_all_but({"a"})
    assert witness.lives(far, "b", -3.0)


def test_an_owner_the_system_tells_nothing_of_is_judged_by_its_heartbeat():
    now = [0.0]
    witness = Witness(lease_seconds=60, clock=lambda: now[0], start_of=lambda pid: None)
    assert witness.lives(owners.this_process(), "a", 1.0)
    now[0] = 61
    assert not witness.lives(owners.this_process(), "a", 1.0)


# Anything in any order


class QueueMachine(RuleBasedStateMachine):
    """The queue against a plain list: order, states and attempts agree after any sequence of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.deaths = Deaths()
        self.queue = JobQueue(Path(self.folder.name) / "jobs.db", clock=Clock(), witness=self.deaths)
        self.queue.set_options(at_once=3)
        self.states: dict[int, str] = {}
        self.attempts: dict[int, int] = {}
        self.order: list[int] = []
        self.runs: dict[int, Job] = {}
        self.paused = False
        self.finished: set[int] = set()

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    def some(self, number: int, *states: str) -> int | None:
        ids = [job_id for job_id in sorted(self.states) if not states or self.states[job_id] in states]
        return ids[number % len(ids)] if ids else None

    @rule(count=strategies.integers(1, 3), first=strategies.booleans())
    def add(self, count: int, first: bool) -> None:
        new = [job.id for job in self.queue.add_many([NewJob(SETTINGS) for _ in range(count)], first=first)]
        self.states |= dict.fromkeys(new, "pending")
        self.attempts |= dict.fromkeys(new, 0)
        self.order = new + self.order if first else self.order + new

    @rule()
    def claim(self) -> None:
        job = self.queue.claim()
        if self.paused or not self.order or len(self.runs) >= 3:
            assert job is None
            return
        expected = self.order.pop(0)
        assert job is not None and job.id == expected
        assert expected not in self.finished and expected not in self.runs
        self.attempts[expected] += 1
        assert job.attempts == self.attempts[expected]
        self.states[expected] = "running"
        self.runs[expected] = job

    @precondition(lambda self: self.runs)
    @rule(number=strategies.integers(0, 9), state=strategies.sampled_from(["done", "failed", "cancelled"]))
    def finish(self, number: int, state: str) -> None:
        job = self.runs.pop(self.some(number, "running"))
        assert self.queue.finish(job, Ending(state)).state == state
        self.states[job.id] = state
        self.finished |= {job.id} if state == "done" else set()

    @precondition(lambda self: self.runs)
    @rule(number=strategies.integers(0, 9), auto=strategies.booleans())
    def die(self, number: int, auto: bool) -> None:
        self.queue.set_options(auto_resume=auto, most_attempts=2)
        job = self.runs.pop(self.some(number, "running"))
        self.deaths.dead.add(job.claim)
        stopped = self.queue.job(job.id).stop == "now"
        [found] = self.queue.recover()
        again = auto and self.attempts[job.id] < 2
        self.states[job.id] = "cancelled" if stopped else "pending" if again else "interrupted"
        assert found.state == self.states[job.id]
        if found.state == "pending":
            self.order = waiting(self.queue)
        with pytest.raises((ClaimLost, InputError)):
            self.queue.finish(job, Ending("done"))

    @rule(number=strategies.integers(0, 9), other=strategies.integers(0, 9), after=strategies.booleans())
    def move(self, number: int, other: int, after: bool) -> None:
        one, two = self.some(number, "pending"), self.some(other, "pending")
        if one is None or one == two:
            return
        self.queue.move(one, **{"after" if after else "before": two})
        self.order.remove(one)
        self.order.insert(self.order.index(two) + after, one)

    @rule(number=strategies.integers(0, 9), places=strategies.integers(-3, 3))
    def move_by(self, number: int, places: int) -> None:
        if (one := self.some(number, "pending")) is not None:
            self.queue.move_by(one, places)
            index = self.order.index(one)
            self.order.remove(one)
            self.order.insert(max(0, index + places), one)

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9))
    def cancel(self, number: int) -> None:
        job_id = self.some(number)
        if self.states[job_id] not in ("pending", "running"):
            with pytest.raises(InputError):
                self.queue.cancel(job_id)
            return
        self.queue.cancel(job_id)
        if self.states[job_id] == "pending":
            self.states[job_id] = "cancelled"
            self.order.remove(job_id)

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9), first=strategies.booleans())
    def requeue(self, number: int, first: bool) -> None:
        job_id = self.some(number)
        if self.states[job_id] not in ("failed", "cancelled", "interrupted"):
            with pytest.raises(InputError):
                self.queue.requeue(job_id)
            return
        self.queue.requeue(job_id, first=first)
        self.states[job_id], self.attempts[job_id] = "pending", 0
        self.order = [job_id, *self.order] if first else [*self.order, job_id]

    @precondition(lambda self: self.states)
    @rule(number=strategies.integers(0, 9))
    def delete(self, number: int) -> None:
        job_id = self.some(number)
        if self.states[job_id] == "running":
            with pytest.raises(InputError):
                self.queue.delete(job_id)
            return
        self.queue.delete(job_id)
        del self.states[job_id], self.attempts[job_id]
        if job_id in self.order:
            self.order.remove(job_id)

    @rule(paused=strategies.booleans())
    def pause(self, paused: bool) -> None:
        self.queue.pause() if paused else self.queue.resume()
        self.paused = paused

    @rule()
    def reopen(self) -> None:
        self.queue.close()

    @invariant()
    def agrees(self) -> None:
        jobs = self.queue.search(Search(limit=10_000)).jobs
        assert {job.id: job.state for job in jobs} == self.states
        assert {job.id: job.attempts for job in jobs} == self.attempts
        assert waiting(self.queue) == self.order
        assert {job.id for job in jobs if job.claim} == set(self.runs)
        assert sum(self.queue.counts().values()) == len(self.states)


SETTINGS = settings_to_dict(RenderSettings(seed=1))
QueueMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = QueueMachine.TestCase


def test_positions_run_out_of_room_and_are_spread(tmp_path):
    with closing(JobQueue(tmp_path / "jobs.db")) as queue:
        a, b, c = add(queue, 3)
        with closing(sqlite3.connect(queue.path)) as db:
            db.execute("UPDATE jobs SET position = id")
            db.commit()
        queue.move(c, after=a)
        assert waiting(queue) == [a, c, b]
        assert queue._db.read(order.last_position) >= 3
