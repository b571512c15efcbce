"""Jobs of the queue rendered by the service, standalone and inside a WebUI."""

import time
from pathlib import Path

import pytest
from deforum_helpers.errors import OutOfDeviceMemory, RenderCancelled, RenderError, SetupError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.web import host
from fake_hosts import install
from fake_worker import FakeRenderer
from service_kit import SETTINGS, Gated, in_state, services, wait_until


@pytest.fixture
def service(tmp_path, monkeypatch):
    with services(tmp_path, monkeypatch) as make:
        yield make


def test_a_job_goes_from_settings_to_its_files(service, tmp_path):
    one = service()
    job = in_state(one, one.add([SETTINGS]).jobs[0].id, "done", "failed")
    assert (job.state, job.error) == ("done", "")
    files = JobFiles(Path(job.folder), job.timestring)
    assert files.folder.parent == tmp_path / "out"
    assert len(files.pictures()) == 24
    assert Path(job.video) == files.result(".mp4")
    assert Path(job.video).stat().st_size > 0
    assert Path(job.thumbnail).is_file()
    assert one.log.since(0)[-1].startswith(f"job {job.id}: done: 24 frames, seed 5")


def test_its_place_is_known_before_its_first_clip_is_done(service):
    worker = Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    wait_until(lambda: worker.at == 1 and one.queue.job(job_id).timestring)
    shown = one.state()["running"][0]
    assert (shown["id"], shown["here"], shown["frames"], shown["so_far"]) == (job_id, True, 0, "")


def test_stop_keeps_what_is_finished_and_retry_goes_on_from_it(service):
    worker = Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    worker.gate.release()
    wait_until(lambda: worker.at == 2)
    one.queue.cancel(job_id)
    job = in_state(one, job_id, "cancelled")
    assert Path(job.video).is_file()
    assert job.error.startswith("stopped; 16 of 24 frames are kept")
    one.queue.requeue(job_id)
    worker.gate.release(10)
    again = in_state(one, job_id, "done", "failed")
    assert (again.state, again.timestring, again.folder) == ("done", job.timestring, job.folder)
    assert len(worker.requests) == 2  # the first clip was not rendered again


def test_pause_after_the_clip_and_resume(service):
    worker = Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    wait_until(lambda: worker.at == 1)
    one.queue.pause(after_clip=True)
    wait_until(lambda: one.queue.job(job_id).stop == "after_clip")
    time.sleep(0.6)  # the runner passes it on
    worker.gate.release()
    job = in_state(one, job_id, "interrupted")
    assert job.error_kind == "paused"
    assert worker.at == 1
    worker.gate.release(10)
    one.queue.resume()
    assert in_state(one, job_id, "done", "failed").state == "done"
    assert worker.at == 2


def test_a_job_resumes_where_its_files_are_though_the_output_folder_was_changed(service, monkeypatch, tmp_path):
    worker = Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    worker.gate.release()
    wait_until(lambda: worker.at == 2)
    one.queue.cancel(job_id)
    before = in_state(one, job_id, "cancelled")
    monkeypatch.setenv("DEFORUM_WAN_OUT", str(tmp_path / "elsewhere"))
    one.queue.requeue(job_id)
    worker.gate.release(10)
    job = in_state(one, job_id, "done", "failed")
    assert (job.state, job.folder) == ("done", before.folder)


def test_a_missing_environment_pauses_the_queue_and_fails_one_job_only(service):
    one = service(FakeRenderer({0: SetupError("the isolated environment is missing")}))
    first, second = (job.id for job in one.add([SETTINGS, SETTINGS]).jobs)
    assert in_state(one, first, "failed", "done").error_kind == "environment"
    time.sleep(0.3)
    assert one.queue.job(second).state == "pending"
    assert one.queue.paused.startswith("the isolated environment is missing")


def test_out_of_memory_is_named(service):
    one = service(FakeRenderer({0: OutOfDeviceMemory("the device ran out of memory")}))
    job = in_state(one, one.add([SETTINGS]).jobs[0].id, "failed", "done")
    assert job.error_kind == "out_of_memory"


def test_the_video_so_far_grows_and_goes(service):
    worker = Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    worker.gate.release()
    wait_until(lambda: worker.at == 2 and one.state()["running"][0]["frames"] == 16)
    job = one.queue.job(job_id)
    small = one.video_so_far(job)
    assert small.stat().st_size > 0
    assert one.video_so_far(job) == small
    worker.gate.release(10)
    in_state(one, job_id, "done", "failed")
    assert not small.exists()


# Inside a WebUI


def test_interrupt_in_the_webui_stops_and_keeps(service, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "_RELOAD_SECONDS", 0.05)
    fake, worker = install(monkeypatch, tmp_path, "a1111"), Gated()
    one = service(worker)
    job_id = one.add([SETTINGS]).jobs[0].id
    worker.gate.release()
    wait_until(lambda: worker.at == 2)
    assert fake.lock.locked()
    assert fake.state.job == f"task(deforum-wan-{job_id})"
    fake.state.interrupted = True
    job = in_state(one, job_id, "cancelled", "done", "failed")
    assert (job.state, Path(job.video).is_file()) == ("cancelled", True)
    assert not fake.lock.locked()
    assert ("put back", "the model") in fake.told
    assert fake.state.interrupted is False


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (None, "done"), (RenderError("nan"), "failed"), (OutOfDeviceMemory("full"), "failed"),
        (SetupError("broken"), "failed"), (RenderCancelled("stopped"), "cancelled"), (ZeroDivisionError(), "failed"),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_the_webui_gets_its_turn_back_whatever_comes(fault, state, service, monkeypatch, tmp_path):
    fake, seen = install(monkeypatch, tmp_path, "forge"), []

    class Watching(FakeRenderer):
        def run(self, request, on_event=None, cancel=None):
            seen.append((fake.lock.locked(), "unloaded" in fake.told, fake.state.job))
            return super().run(request, on_event, cancel)

    one = service(Watching({0: fault} if fault else {}))
    job_id = one.add([SETTINGS]).jobs[0].id
    task = f"task(deforum-wan-{job_id})"
    assert in_state(one, job_id, "done", "failed", "cancelled", "interrupted").state == state
    assert seen[0] == (True, True, task)
    wait_until(lambda: not fake.lock.locked())
    assert fake.state.calls == [("begin", task), ("end", task)]
    assert fake.told[-1] == ("finished", task)


def test_a_job_waits_for_the_webuis_own_work(service, monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    fake.lock.acquire()
    one = service()
    job_id = one.add([SETTINGS]).jobs[0].id
    wait_until(lambda: one.log.since(0))
    assert one.queue.job(job_id).state == "running"
    one.queue.cancel(job_id)
    assert in_state(one, job_id, "cancelled", "done").state == "cancelled"
    fake.lock.release()


def test_the_model_stays_when_nothing_waits_unless_it_shall_not(service):
    one = service(run=False)
    assert one._keep_warm() is True
    one.queue.set_options(release_when_empty=True)
    assert one._keep_warm() is False
    one.add([SETTINGS])
    assert one._keep_warm() is True
    one.queue.pause()
    assert one._keep_warm() is False


def test_the_model_leaves_the_gpu_before_the_host_goes_on(service, monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    one = service(run=False)
    assert one._keep_warm() is False
    one.add([SETTINGS])
    assert one._keep_warm() is True
    fake.tree["modules.progress"].pending_tasks["task(theirs)"] = 1.0
    assert one._keep_warm() is False
