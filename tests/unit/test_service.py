"""The service that tab and API share: adding, plans, presets, state."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deforum_helpers import progress
from deforum_helpers.errors import Conflict, InputError, NotFound, ScheduleError, SettingsError
from deforum_helpers.web.faults import problem
from deforum_helpers.web.paths import allowed_folder
from deforum_helpers.web.planning import curve
from service_kit import SETTINGS, in_state, services

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def service(tmp_path, monkeypatch):
    """service(worker) -> a service on a queue of its own."""
    with services(tmp_path, monkeypatch) as make:
        yield make


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


def test_a_file_of_the_folder_that_cant_be_rendered_is_named(service, tmp_path):
    folder = tmp_path / "out" / "tonight"
    folder.mkdir(parents=True)
    for name, width in (("a", 32), ("b", 33)):
        (folder / f"{name}.txt").write_text(json.dumps({**SETTINGS, "W": width}))
    one = service(run=False)
    with pytest.raises(SettingsError) as caught:
        one.add_folder(str(folder))
    assert (caught.value.where, caught.value.job_name) == ("width", "b.txt")
    assert problem(caught.value)["message"].startswith("job 2 (b.txt): width: must be a multiple")
    assert one.queue.counts()["pending"] == 0


def test_a_value_of_a_grid_that_cant_be_planned_keeps_all_out(service):
    one = service(run=False)
    with pytest.raises(ScheduleError, match="guidance_scale"):
        one.add_grid(SETTINGS, {"guidance_scale": ["4", "0: (5"]})
    assert one.queue.counts()["pending"] == 0


@pytest.mark.parametrize("folder", ["/etc", "", "..", "~", "~nobody-of-this-name", "x" * 5000])
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
    export = one.queue.export_jobs().replace(str(shared), str(private))
    for refused in (
        lambda: one.add_grid(SETTINGS, {"init_image": [str(shared), str(private)]}, any_path=False),
        lambda: one.import_jobs(export, any_path=False),
        lambda: one.edit(1, {**SETTINGS, "init_image": str(private)}, any_path=False),
        lambda: one.add([{**SETTINGS, "model": str(tmp_path)}], any_path=False),
    ):
        with pytest.raises(SettingsError, match="another machine"):
            refused()
    assert one.queue.counts()["pending"] == 1


def test_a_plan_for_somebody_elsewhere_doesnt_tell_which_files_there_are(service, tmp_path):
    (tmp_path / "private.png").write_bytes(b"x")
    one = service(run=False)

    def errors(name):
        shown = one.plan(
            {**SETTINGS, "init_image": str(tmp_path / name), "model": str(tmp_path / name)}, any_path=False
        )
        return [{**error, "message": "", "got": ""} for error in shown["errors"]]

    assert errors("private.png") == errors("nothing.png")
    assert {error["field"] for error in errors("nothing.png")} == {"init_image", "model"}


def test_a_grid_over_seeds_and_a_field(service):
    added = service(run=False).add_grid(SETTINGS, {"seed": "7, 9-10", "guidance_scale": ["4", "6"]})
    assert [(job.seed, job.settings["cfg_scale_schedule"]) for job in added.jobs] == [
        (7, "4"), (7, "6"), (9, "4"), (9, "6"), (10, "4"), (10, "6"),
    ]  # fmt: skip


def test_a_home_folder_that_nobody_has_is_its_fields_fault(service):
    one = service(run=False)
    for field in ("init_image", "model", "soundtrack"):
        raw = {**SETTINGS, field: "~nobody-of-this-name/x"}
        assert [error["field"] for error in one.plan(raw)["errors"]] == [field]
        with pytest.raises(SettingsError, match="home folder"):
            one.add([raw])
    with pytest.raises(SettingsError, match="home folder"):
        one.preset_list("~nobody-of-this-name")


def test_what_cant_be_done_as_things_stand_is_a_conflict(service):
    one = service()
    job_id = one.add([SETTINGS]).jobs[0].id
    in_state(one, job_id, "done")
    for refused in (one.queue.requeue, one.queue.cancel, one.queue.run_next):
        with pytest.raises(Conflict):
            refused(job_id)
    with pytest.raises(NotFound):
        one.queue.cancel(999)


# Plans


def test_every_wrong_field_is_told_and_the_timeline_stays(service):
    shown = service(run=False).plan({**SETTINGS, "fps": "fast", "W": 33, "cfg_scale_schedule": "0: (5", "crf": 99,
                                    "soundtrack": "no/such.mp3"})  # fmt: skip
    assert not shown["ok"]
    assert {error["field"] for error in shown["errors"]} == {"fps", "width", "guidance_scale", "crf", "soundtrack"}
    assert shown["plan"]["clip_count"] == 2
    assert shown["svg"].startswith("<svg")


def test_a_plan_says_what_it_costs_and_how_it_knows(service):
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


def test_there_is_one_service_in_a_process(service, monkeypatch):
    from deforum_helpers.web import service as module

    monkeypatch.setattr(module, "_service", None)
    one = module.the_service()
    try:
        assert module.the_service() is one
        assert service().runner is one.runner  # whoever makes another finds the runner at work
    finally:
        one.close(10)


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
