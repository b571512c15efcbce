"""The queue's operations: adding, order, states, pause, and what each refuses."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing

import pytest
from deforum_helpers.errors import Conflict, NotFound, SettingsError
from deforum_helpers.job_queue import STATES, TRANSITIONS, ClaimLost, Ending, Job, JobQueue, NewJob
from deforum_helpers.queue_store import order, owners
from deforum_helpers.queue_store.exchange import grid, read_axes, seed_list
from deforum_helpers.queue_store.jobs import transition
from queue_world import PROMPTS, add, end, made, put_into_state, waiting

# Adding


def test_a_job_keeps_its_settings_and_resolves_its_seed_once(queue):
    job = queue.add(made(width=640, extra={"cn_1_model": "0: (1)"}), name="  hills\n", batch="b1")
    assert (job.state, job.name, job.batch, job.attempts, job.timestring) == ("pending", "hills", "b1", 0, "")
    assert job.render_settings() == made(width=640, extra={"cn_1_model": "0: (1)"}, seed=job.seed)
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
    jobs = queue.add_many(grid(NewJob(made(), "hills"), read_axes({"seed": "1-2", "steps": ["10", 20]})))
    assert [(job.seed, job.render_settings().num_inference_steps) for job in jobs] == [
        (1, "10"), (1, "20"), (2, "10"), (2, "20"),
    ]  # fmt: skip
    assert jobs[1].name == "hills · seed 1, steps 20"


@pytest.mark.parametrize(
    ("axes", "field"),
    [
        ({"stepz": [1]}, "stepz"), ({"width": [640, 641]}, "width"), ({"seed": []}, "seed"), ({"seed": "x"}, "seed"),
        ({"seed": "5-1"}, "seed"), ({"crf": "12"}, "crf"), ({"W": [64], "width": [80]}, "width"), ({}, "axes"),
        ({"seed": list(range(32)), "crf": list(range(32))}, "axes"), ({"seed": "1-5000"}, "seed"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_names_its_field(axes, field):
    with pytest.raises(SettingsError) as caught:
        grid(NewJob(made()), read_axes(axes))
    assert caught.value.where == field


def test_seed_list():
    assert seed_list("7, 20-22 -1") == [7, 20, 21, 22, -1]
    for text in ("x", "5-3", "1-", "99999999999", "0-4000000000", "1--2"):
        with pytest.raises(SettingsError, match="seed: "):
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
        with pytest.raises((Conflict, NotFound)):
            queue.move(a, **wrong)


def test_a_thousand_moves_into_one_place(queue):
    ids = add(queue, 5)
    for turn in range(1000):
        queue.move(ids[3 + turn % 2], after=ids[0])
    assert waiting(queue) == [ids[0], ids[4], ids[3], ids[1], ids[2]]


def test_positions_run_out_of_room_and_are_spread(tmp_path):
    with closing(JobQueue(tmp_path / "jobs.db")) as queue:
        a, b, c = add(queue, 3)
        with closing(sqlite3.connect(queue.path)) as db:
            db.execute("UPDATE jobs SET position = id")
            db.commit()
        queue.move(c, after=a)
        assert waiting(queue) == [a, c, b]
        assert queue._db.read(order.last_position) >= 3


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
        with pytest.raises(Conflict, match="can't become"):
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
    with pytest.raises(Conflict):
        end(queue, job)
    queue.requeue(job.id)
    with pytest.raises(ClaimLost):
        end(queue, job, "cancelled", "cancelled")
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
    with pytest.raises(Conflict, match="cancelled can't become cancelled"):
        queue.cancel(a)


def test_an_operation_on_several_is_all_or_nothing(queue):
    a, b = add(queue, 2)
    for attempt in (lambda: queue.cancel(a, b, 99), lambda: queue.delete(a, 99), lambda: queue.requeue(a)):
        with pytest.raises((Conflict, NotFound)):
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
    with pytest.raises(Conflict, match="duplicate it"):
        queue.edit(job.id, made())
    assert queue.rename(job.id, "while running").name == "while running"


def test_delete_spares_the_running(queue):
    a, b = add(queue, 2)
    queue.claim()
    with pytest.raises(Conflict, match="cancel it first"):
        queue.delete(b, a)
    assert waiting(queue) == [b]
    queue.delete(b)
    with pytest.raises(NotFound, match="no such job"):
        queue.job(b)
    assert queue.add(made()).id > b, "numbers are never given twice"


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
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            queue.set_options(**wrong)


class JobQueueIn:
    """The same file through a second connection, as another process has it."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str):
        with closing(JobQueue(self._queue.path)) as other:
            return getattr(other, name)
