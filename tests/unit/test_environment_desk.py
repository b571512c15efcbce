"""Install, repair and self-test as the tab starts them."""

import shutil
import threading
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.errors import Conflict, SetupError
from deforum_helpers.hashing import sha256_of
from deforum_helpers.web import environment
from fake_hosts import install
from fake_worker import FakeRenderer
from service_kit import SETTINGS, in_state, services, wait_until

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(autouse=True)
def service(tmp_path, monkeypatch):
    with services(tmp_path, monkeypatch) as make:
        yield make


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


def test_the_gpus_that_the_driver_sees(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 80994, 550.54.15'\necho 'GB10, [N/A], [N/A], 580.1'\n"
    )
    tool.chmod(0o755)
    assert environment.gpus() == [
        {"name": "NVIDIA H100 80GB HBM3", "memory": 81559 << 20, "free": 80994 << 20, "driver": "550.54.15"},
        {"name": "GB10", "memory": 0, "free": 0, "driver": "580.1"},
    ]
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert environment.gpus() == []


def test_a_worker_that_was_named_counts_as_an_environment(monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_WORKER_PYTHON", "my/python")
    state = desk().state()
    assert (state["ready"], "my/python" in state["text"]) == (True, True)


def model_copy(tmp_path):
    """The demo in a folder of its own, with the sums of its files as they were published."""
    folder = tmp_path / "models" / "mine"
    shutil.copytree(DEMO_FOLDER, folder)
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".safetensors", ".json")]
    sums = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}" for file in files]
    (folder / "SHA256SUMS").write_text("\n".join(sums), "utf-8")
    return folder


def checked(folder):
    one = desk(rendering=lambda: True)  # files can be read beside a job
    one.start("file check", inspect_model(folder))
    assert one.work != "" and not one.needs_the_environment
    one.join(20)
    return one.state()["last"], one.log.since(0)


def test_a_models_files_are_compared_with_what_was_published(tmp_path):
    last, lines = checked(model_copy(tmp_path))
    assert last["ok"] and last["text"].endswith("files read, 3 as published")
    assert sum("as published" in line for line in lines) >= 3
    assert any("vae.safetensors: 0.00 of 0.00 GB" in line for line in lines)


def test_a_byte_that_changed_is_found(tmp_path):
    folder = model_copy(tmp_path)
    weights = bytearray((folder / "vae.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "vae.safetensors").write_bytes(weights)
    last, _ = checked(folder)
    assert not last["ok"]
    assert "vae.safetensors" in last["text"] and "download it again" in last["text"]
