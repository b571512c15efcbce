"""The service that tab and API share: a queue with a fake in the worker's place, plans, presets, the environment."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from deforum_helpers.errors import InputError, OutOfDeviceMemory, ScheduleError, SettingsError, SetupError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.web import environment, host
from deforum_helpers.web.faults import Conflict, NotFound
from deforum_helpers.web.paths import allowed_folder
from deforum_helpers.web.planning import curve
from deforum_helpers.web.service import Service
from fake_hosts import install
from fake_worker import FakeRenderer

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "prompts": {"0": "a red ball", "16": "a blue ball"}, "W": 32, "H": 16, "max_frames": 24, "seed": 5, "model": "demo",
    "batch_name": "batch", "ffmpeg_preset": "ultrafast",
}  # fmt: skip


class Gated(FakeRenderer):
    """A worker that waits at each clip until it is let on, or cancelled."""

    def __init__(self):
        super().__init__()
        self.gate, self.at = threading.Semaphore(0), 0

    def run(self, request, on_event=None, cancel=None):
        self.at += 1
        while not self.gate.acquire(timeout=0.02):
            if cancel.is_set():
                from deforum_helpers.errors import RenderCancelled

                raise RenderCancelled("cancelled")
        return super().run(request, on_event, cancel)


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DEFORUM_WAN_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("DEFORUM_WAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(environment, "check", lambda: environment_state("ready"))


def environment_state(status):
    from deforum_helpers.wan_isolated_env import EnvironmentState

    return EnvironmentState(status, "", Path("here"), Path("python"), {"python": "3.11", "torch": "2.13"})


@pytest.fixture
def service(tmp_path):
    """service(worker) -> a service on a queue of its own; all are closed at the end."""
    made = []

    def make(worker=None, **options):
        made.append(Service(tmp_path / "data", worker=worker or FakeRenderer(), **options))
        return made[-1]

    yield make
    for one in made:
        one.close(10)
        one.queue.close()


def wait_until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_state(one, job_id, *states):
    wait_until(lambda: one.queue.job(job_id).state in states)
    return one.queue.job(job_id)


# Rendering


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
    one.act(one.queue.cancel, job_id)
    job = in_state(one, job_id, "cancelled")
    assert Path(job.video).is_file()
    assert job.error.startswith("stopped; 16 of 24 frames are kept")
    one.act(one.queue.requeue, job_id)
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
    one.act(one.queue.cancel, job_id)
    before = in_state(one, job_id, "cancelled")
    monkeypatch.setenv("DEFORUM_WAN_OUT", str(tmp_path / "elsewhere"))
    one.act(one.queue.requeue, job_id)
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


def test_a_job_waits_for_the_webuis_own_work(service, monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    fake.lock.acquire()
    one = service()
    job_id = one.add([SETTINGS]).jobs[0].id
    wait_until(lambda: one.log.since(0))
    assert one.queue.job(job_id).state == "running"
    one.act(one.queue.cancel, job_id)
    assert in_state(one, job_id, "cancelled", "done").state == "cancelled"
    fake.lock.release()


def test_the_model_leaves_the_gpu_before_the_host_goes_on(service, monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    one = service(run=False)
    assert one._keep_warm() is False
    one.add([SETTINGS])
    assert one._keep_warm() is True
    fake.tree["modules.progress"].pending_tasks["task(theirs)"] = 1.0
    assert one._keep_warm() is False


# Adding


def test_one_that_cant_be_rendered_keeps_all_out_and_is_named(service):
    one = service(run=False)
    with pytest.raises(SettingsError) as caught:
        one.add([SETTINGS, {**SETTINGS, "W": 33}])
    assert (caught.value.where, caught.value.job_number) == ("width", 2)
    assert one.queue.counts()["pending"] == 0


def test_schedules_are_read_before_anything_is_queued(service):
    with pytest.raises(ScheduleError) as caught:
        service(run=False).add([{**SETTINGS, "cfg_scale_schedule": "0: (5), 9: (sin(t)"}])
    assert (caught.value.field, caught.value.column) == ("guidance_scale", 12)


def test_a_picture_that_isnt_there_is_its_fields_fault(service):
    with pytest.raises(SettingsError) as caught:
        service(run=False).add([{**SETTINGS, "init_image": "no/such.png"}])
    assert caught.value.where == "init_image"


def test_a_model_that_isnt_there_yet_can_be_queued_for(service):
    added = service(run=False).add([{**SETTINGS, "model": "wan2.1-t2v-1.3B", "W": 832, "H": 480}])
    assert any(note.startswith("model:") for note in added.notes)


def test_a_folder_of_settings_files(service, tmp_path):
    folder = tmp_path / "out" / "tonight"
    folder.mkdir(parents=True)
    for name in ("b", "a"):
        (folder / f"{name}.txt").write_text(json.dumps(SETTINGS))
    (folder / "notes.md").write_text("no settings")
    added = service(run=False).add_folder(str(folder))
    assert [(job.name, job.batch) for job in added.jobs] == [("a", "tonight"), ("b", "tonight")]


@pytest.mark.parametrize("folder", ["/etc", "", "..", "~"])
def test_no_other_folder_is_read(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="certain folders"):
        allowed_folder(folder)


def test_a_link_out_of_an_allowed_folder_is_followed_before_it_is_judged(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "private", target_is_directory=True)
    with pytest.raises(InputError, match="certain folders"):
        allowed_folder(str(tmp_path / "out" / "link"))


def test_somebody_elsewhere_may_not_name_any_file(service, tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes(b"x")
    one = service(run=False)
    with pytest.raises(SettingsError, match="another machine"):
        one.add([{**SETTINGS, "init_image": str(private)}], any_path=False)
    (tmp_path / "out").mkdir()
    shared = tmp_path / "out" / "shared.png"
    shared.write_bytes(b"x")
    one.add([{**SETTINGS, "init_image": str(shared)}], any_path=False)


def test_a_grid_over_seeds_and_a_field(service):
    added = service(run=False).add_grid(SETTINGS, {"seed": "7, 9-10", "guidance_scale": ["4", "6"]})
    assert [(job.seed, job.settings["cfg_scale_schedule"]) for job in added.jobs] == [
        (7, "4"), (7, "6"), (9, "4"), (9, "6"), (10, "4"), (10, "6"),
    ]  # fmt: skip


def test_what_cant_be_done_as_things_stand_is_a_conflict(service):
    one = service()
    job_id = one.add([SETTINGS]).jobs[0].id
    in_state(one, job_id, "done")
    for refused in (one.queue.requeue, one.queue.cancel, one.queue.run_next):
        with pytest.raises(Conflict):
            one.act(refused, job_id)
    with pytest.raises(NotFound):
        one.act(one.queue.cancel, 999)


# Plans


def test_every_wrong_field_is_told_and_the_timeline_stays(service):
    shown = service(run=False).plan({**SETTINGS, "fps": "fast", "W": 33, "cfg_scale_schedule": "0: (5", "crf": 99})
    assert not shown["ok"]
    assert {error["field"] for error in shown["errors"]} == {"fps", "width", "guidance_scale", "crf"}
    assert shown["plan"]["clip_count"] == 2
    assert shown["svg"].startswith("<svg")


def test_a_plan_says_what_it_costs_and_how_it_knows(service, monkeypatch):
    from deforum_helpers import progress

    one = service(run=False)
    guessed = one.plan(SETTINGS)
    assert guessed["ok"]
    assert guessed["estimate"]["seconds_basis"] == "guess"
    assert guessed["estimate"]["seconds"] > 0
    assert guessed["estimate"]["disk_bytes"] > 24 * 32 * 16 * 3 * 0.5
    assert guessed["estimate"]["memory_bytes"] > 4_000_000
    progress.save_times(progress.times_key("demo", 32, 16, "auto"), progress.UnitTimes(step=2.0, decode=1.0))
    measured = one.plan(SETTINGS)["estimate"]
    clips = one.plan(SETTINGS)["plan"]["clips"]
    by_hand = sum(2.0 * c["num_inference_steps"] * c["latent_frames"] + c["new_latents"] for c in clips)
    assert (measured["seconds"], measured["seconds_basis"]) == (by_hand, "measured")


def test_times_of_another_size_are_scaled(service):
    from deforum_helpers import progress

    progress.save_times(progress.times_key("demo", 128, 80, "auto"), progress.UnitTimes(step=8.0, decode=8.0))
    one = service(run=False)
    assert one.plan(SETTINGS)["estimate"]["seconds_basis"] == "scaled"
    quarter = one.plan({**SETTINGS, "W": 64, "H": 40 // 16 * 16 + 16})["estimate"]["seconds"]
    assert quarter < one.plan({**SETTINGS, "W": 128, "H": 80})["estimate"]["seconds"]


def test_settings_without_a_prompt_have_no_plan_but_a_reason(service):
    shown = service(run=False).plan({"max_frames": 20, "model": "demo"})
    assert (shown["plan"], shown["estimate"]) == (None, None)
    assert shown["errors"][0]["field"] == "prompts"


def test_a_long_curve_is_thinned_without_losing_its_peaks():
    values = [0.0] * 100_000
    values[70_001] = 9.0
    drawn = curve(values)
    assert len(drawn["frames"]) <= 1210
    assert max(drawn["values"]) == 9.0
    assert drawn["frames"][0] == 0
    assert drawn["frames"][-1] == 99_999


# Presets, settings files


def test_presets_of_both_kinds_apply(service):
    one = service(run=False)
    one.presets.save("mine", {"guidance_scale": "7"})
    assert {"Quick look", "mine"} <= {preset["name"] for preset in one.preset_list("demo")["presets"]}
    assert one.with_preset(SETTINGS, "mine")[0].guidance_scale == "7"
    assert one.with_preset(SETTINGS, "Quick look")[0].ffmpeg_preset == "veryfast"
    with pytest.raises(NotFound):
        one.with_preset(SETTINGS, "no such")


def test_a_settings_file_comes_in_and_goes_out(service):
    one = service(run=False)
    read = one.import_settings("\ufeff" + json.dumps({**SETTINGS, "cadence": 3}))
    assert read["settings"]["width"] == 32
    assert any("cadence" in note for note in read["notes"])
    assert json.loads(one.export_settings(read["settings"]))["W"] == 32


# State


def test_a_page_that_has_seen_it_all_gets_next_to_nothing(service):
    one = service(run=False)
    seen = one.state()
    assert one.state(seen["version"]) == {"version": seen["version"], "changed": False}
    one.add([SETTINGS])
    told = one.state(seen["version"])
    assert told["changed"]
    assert told["waiting"][0]["prompt"] == "a red ball"
    one.log.add("a word")
    assert one.state(told["version"], seen["log"]["next"])["log"]["lines"] == ["a word"]


# The environment


class Builder:
    """Stands in for the build of the environment."""

    def __init__(self, fail=None):
        self.calls, self.go, self.fail = [], threading.Event(), fail

    def __call__(self, *, report, repair, env):
        self.calls.append((repair, env))
        report("[1/5] virtual environment")
        assert self.go.wait(10)
        if self.fail:
            raise self.fail
        report("[2/5] pip")
        return Path("python")


def desk(builder=None, rendering=lambda: False):
    return environment.EnvironmentDesk(rendering, builder=builder or Builder(), worker=FakeRenderer())


def test_installing_tells_its_log_while_it_runs():
    builder = Builder()
    one = desk(builder)
    one.start("install")
    wait_until(lambda: one.log.since(0) == ["[1/5] virtual environment"])
    assert one.state()["work"] == "install"
    with pytest.raises(Conflict):
        one.start("repair")
    builder.go.set()
    one.join(10)
    assert (one.state()["work"], one.state()["last"]["ok"]) == ("", True)
    assert builder.calls[0][0] is False


def test_a_failed_installation_says_why():
    builder = Builder(SetupError("the disk has too little room", next_step="make room"))
    builder.go.set()
    one = desk(builder)
    one.start("repair")
    one.join(10)
    assert one.state()["last"]["ok"] is False
    assert "the disk has too little room" in one.log.since(0)[-1]
    assert builder.calls[0][0] is True


def test_an_installation_can_be_stopped():
    builder = Builder()
    one = desk(builder)
    one.start("install")
    wait_until(lambda: one.log.since(0))
    one.stop()
    builder.go.set()
    one.join(10)
    assert one.state()["last"]["text"] == "stopped"


def test_nothing_is_installed_under_a_running_job():
    with pytest.raises(Conflict, match="a job is being rendered"):
        desk(rendering=lambda: True).start("install")


def test_the_hosts_own_choice_of_torch_is_not_ours(monkeypatch, tmp_path):
    given = {"TORCH_COMMAND": "pip install torch==2.1.2", "PATH": "here"}
    assert environment.builder_variables(given) == given
    install(monkeypatch, tmp_path, "a1111")
    assert environment.builder_variables(given) == {"PATH": "here"}


def test_the_self_test_renders_with_the_demo(tmp_path):
    one = desk()
    one.start("self-test")
    one.join(60)
    assert one.state()["last"]["ok"], one.state()["last"]
    assert one.state()["last"]["text"].startswith("the self-test passed: 17 frames")


def test_jobs_wait_while_the_environment_is_worked_on(service):
    one = service()
    builder = Builder()
    one.environment._builder = builder
    one.environment.start("install")
    job_id = one.add([SETTINGS]).jobs[0].id
    wait_until(lambda: one.queue.job(job_id).progress.get("note", "").startswith("waiting for the install"))
    builder.go.set()
    assert in_state(one, job_id, "done", "failed").state == "done"


# What it costs a WebUI to load


def test_the_face_loads_without_torch_or_a_page(tmp_path):
    code = (
        "import sys, fastapi, numpy, PIL.Image\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "before = set(sys.modules)\n"
        "import deforum_helpers.api\n"
        "print(sorted({'torch', 'gradio', 'transformers', 'uvicorn'} & (set(sys.modules) - before)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert (told.stdout.strip(), told.stderr) == ("[]", "")
