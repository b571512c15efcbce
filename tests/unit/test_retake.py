"""A job once more from one of its clips on."""

from pathlib import Path

import pytest
from deforum_helpers.errors import Conflict, InputError, SettingsError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.settings import load_settings
from deforum_helpers.web.views import job_detail
from fake_worker import FakeRenderer
from service_kit import SETTINGS, Gated, in_state, services, wait_until

THREE = {**SETTINGS, "prompts": {"0": "a red ball", "16": "a blue ball", "20": "a boat"}}


@pytest.fixture
def service(tmp_path, monkeypatch):
    with services(tmp_path, monkeypatch) as make:
        yield make


def ended(one, job_id):
    job = in_state(one, job_id, "done", "failed", "cancelled")
    assert (job.state, job.error) == ("done", "")
    return job


def test_the_clips_before_stay_and_the_others_are_made_with_other_seeds(service):
    worker = FakeRenderer()
    one = service(worker)
    job = ended(one, one.add([THREE]).jobs[0].id)
    first, worker.requests = worker.requests, []
    made = one.retake(job.id, 2, seed=70).jobs[0]
    again = ended(one, made.id)
    assert [request.seed for request in first] == [5, 6, 7]
    assert [request.seed for request in worker.requests] == [5, 70, 71]
    assert [a.fingerprint() == b.fingerprint() for a, b in zip(first, worker.requests, strict=True)] == [
        True, False, False,
    ]  # fmt: skip
    assert (again.folder, again.timestring) != (job.folder, job.timestring)
    assert Path(job.video).is_file() and Path(again.video).is_file()
    assert made.name == "a red ball · again from clip 2"


def test_the_latents_that_stay_are_there_before_it_runs(service):
    one = service()
    job = ended(one, one.add([THREE]).jobs[0].id)
    one.queue.pause()
    made = one.retake(job.id, 3).jobs[0]
    old, new = (JobFiles(Path(j.folder), j.timestring) for j in (job, made))
    assert [new.latents(index).is_file() for index in range(3)] == [True, True, False]
    assert new.latents(1).read_bytes() == old.latents(1).read_bytes()
    assert made.resume


def test_its_settings_alone_give_the_same_clips(service):
    worker = FakeRenderer()
    one = service(worker)
    job = ended(one, one.add([THREE]).jobs[0].id)
    worker.requests = []
    again = ended(one, one.retake(job.id, 2).jobs[0].id)
    wanted, worker.requests = [request.fingerprint() for request in worker.requests], []
    files = JobFiles(Path(again.folder), again.timestring)
    ended(one, one.add([load_settings(files.settings)[0]]).jobs[0].id)
    assert [request.fingerprint() for request in worker.requests] == wanted


def test_a_job_that_goes_on_from_another_can_be_made_again_too(service):
    worker = FakeRenderer()
    one = service(worker)
    job = ended(one, one.add([THREE]).jobs[0].id)
    detail = job_detail(job)
    following = ended(one, one.add([{**THREE, "continue_from": detail["settings_file"]}]).jobs[0].id)
    worker.requests = []
    again = ended(one, one.retake(following.id, 2).jobs[0].id)
    assert worker.requests[0].stream and again.seed == following.seed


def test_what_cant_be_made_again(service):
    worker = Gated()
    one = service(worker)
    job_id = one.add([THREE]).jobs[0].id
    worker.gate.release()
    wait_until(lambda: worker.at == 2)
    with pytest.raises(Conflict, match="once it has ended"):
        one.retake(job_id, 1)
    one.queue.cancel(job_id)
    in_state(one, job_id, "cancelled")
    assert job_detail(one.queue.job(job_id))["settings_file"] == ""  # nothing to go on from yet
    for clip in (0, 4):
        with pytest.raises(SettingsError) as error:
            one.retake(job_id, clip)
        assert (error.value.where, error.value.allowed) == ("clip", "1 to 3")
    with pytest.raises(InputError, match="clip 2"):
        one.retake(job_id, 3)
    worker.gate.release(10)
    assert ended(one, one.retake(job_id, 2).jobs[0].id).video
