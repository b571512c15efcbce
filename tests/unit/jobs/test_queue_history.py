"""Recovery after a crash, search, retention, export and import."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.job_queue import JobQueue, NewJob, Search
from deforum_helpers.queue_store.exchange import from_json
from deforum_helpers.settings import RenderSettings
from queue_world import add, end, made, put_into_state

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


def test_a_clock_that_goes_back_years_loses_no_run_and_no_order(queue):
    a, b = add(queue, 2)
    job = queue.claim()
    seen = queue.version()
    queue._clock.now -= 1e9
    assert queue.beat(job, '{"fraction": 0.5}') == "" and queue.version() != seen
    assert queue.recover() == [] and queue.claim() is None
    assert end(queue, job).finished < job.started
    assert queue.claim().id == b
    assert [found.id for found in queue.search(Search(states=("done",))).jobs] == [a]


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
    assert list(queue.batches().items()) == [("b", [1, 4]), ("a", [2])]
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
    queue.add(made(seed=3, extra={"cn_1_model": "0: (1)"}), name="日の出")
    job = queue.claim()
    queue.record_files(job, {"folder": "/secret", "timestring": "t", "video": "/etc/passwd"})
    end(queue, job, "interrupted")
    queue.add(made())
    text = queue.export_jobs()
    with closing(JobQueue(tmp_path / "other.db")) as other:
        jobs = other.add_many(from_json(text, "in"))
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
    ("data", "where", "number"),
    [
        ("[1]", "text", 0), ("{", "text, line 1, column 2", 0), ("[" * 100_000, "text", 0),
        ({"format": "other", "jobs": []}, "text", 0), ({**GOOD, "version": 9, "jobs": [{}]}, "text", 0),
        ({**GOOD, "version": True, "jobs": [{}]}, "text", 0), ({**GOOD, "version": 0, "jobs": [{}]}, "text", 0),
        ({**GOOD, "jobs": {}}, "text", 0), ({**GOOD, "jobs": []}, "text", 0), ({**GOOD, "jobs": [3]}, "jobs", 1),
        ({**GOOD, "jobs": [{"settings": {}}, {"settings": []}]}, "jobs", 2),
        ({**GOOD, "jobs": [{"settings": {"W": 99}}]}, "width", 1),
        ({**GOOD, "jobs": [{"settings": {}, "seed": 2**32}]}, "seed", 1),
        ({**GOOD, "jobs": [{"settings": {}, "seed": True}]}, "seed", 1),
        ({**GOOD, "jobs": [{"settings": {}, "name": 5}]}, "name", 1),
        ({**GOOD, "jobs": [{"settings": {}, "bookmark": "yes"}]}, "bookmark", 1),
        (json.dumps({**GOOD, "jobs": "deep"}).replace('"deep"', "[" * 200 + "]" * 200), "text", 0),
        ({**GOOD, "jobs": [{"settings": {}}] * 1001}, "text", 0),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named(data, where, number):
    with pytest.raises(SettingsError) as caught:
        from_json(data if isinstance(data, str) else json.dumps(data))
    assert (caught.value.where, caught.value.job_number) == (where, number)
