"""The WebUI around us, with stand-ins for each of them."""

import sys
import threading
import time

import pytest
from deforum_helpers.errors import RenderCancelled
from deforum_helpers.lora_files import lora_folders
from deforum_helpers.progress import Progress, state_folder
from deforum_helpers.web import host
from fake_hosts import install
from PIL import Image

HOSTS = ("a1111", "forge", "forge-neo", "forge-classic", "reforge")


@pytest.fixture(autouse=True)
def _no_host(monkeypatch):
    for name in ("DEFORUM_WAN_DATA", "DEFORUM_WAN_OUT"):
        monkeypatch.delenv(name, raising=False)


def never():
    return False


def wait_until(true, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", HOSTS)
def test_each_host_is_told_from_the_others(name, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, name)
    assert host.host_name() == name


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_is_imported_to_find_out(name, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, name)
    before = set(sys.modules)
    said = []
    with host.gpu_of_host("task(x)", never, said.append):
        job = host.HostJob("task(x)")
        job.begin()
        job.show(Progress())
        job.wish()
        job.end()
    host.output_folder(), host.data_folder(), host.model_folders(), host.readable_folders()
    assert set(sys.modules) == before
    assert said == []


def test_standalone_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path))
    assert host.host_name() == "standalone"
    assert host.data_folder() == state_folder()
    job = host.HostJob("task(x)")
    with host.gpu_of_host("task(x)", never, pytest.fail):
        job.begin()
        job.show(Progress(clips=2, preview="nothing.jpg"))
        assert job.wish() == ""
        job.end()


def test_flags_and_settings_of_any_host(tmp_path, monkeypatch):
    fake = install(monkeypatch, tmp_path, "forge", api_auth="me:secret")
    assert host.flag("api_auth") == "me:secret"
    assert host.flag("gone_from_this_host", "default") == "default"
    fake.shared.opts.deforum_wan_outputs = str(tmp_path / "mine")
    assert host.output_folder() == tmp_path / "mine"


def test_folders_of_the_hosts(tmp_path, monkeypatch):
    fake = install(monkeypatch, tmp_path, "forge-classic", deforum_wan_models=str(tmp_path / "wan"))
    (tmp_path / "wan").mkdir()
    (fake.data / "models" / "wan").mkdir()
    assert host.data_folder() == fake.data / "deforum-wan"
    assert host.output_folder() == fake.data / "output" / "deforum-wan"
    assert host.model_folders() == [tmp_path / "wan", fake.data / "models" / "wan"]


def test_loras_of_a_host_without_a_folder_for_wan(tmp_path, monkeypatch):
    """Its --lora-dir, and the folder beside where models of any kind would be."""
    fake = install(monkeypatch, tmp_path, "a1111", lora_dir=str(tmp_path / "my-loras"))
    for folder in (tmp_path / "my-loras", fake.data / "models" / "Lora"):
        folder.mkdir(parents=True, exist_ok=True)
    assert host.model_folders() == []
    assert lora_folders(tmp_path / "extension", host.lora_folders()) == [
        tmp_path / "my-loras", fake.data / "models" / "Lora",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["forge", "forge-neo", "forge-classic", "reforge"])
def test_models_leave_the_gpu_under_the_hosts_lock(name, monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, name)
    with host.gpu_of_host("task(x)", never, pytest.fail):
        assert fake.lock.locked()
        assert fake.told == [("queued", "task(x)"), "unloaded", "emptied"]
    assert not fake.lock.locked()


def test_a1111_gets_its_model_back(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    with host.gpu_of_host("task(x)", never, pytest.fail):
        assert fake.told[1:] == [("unloaded", "the model")]
    assert fake.told[1:] == [("unloaded", "the model"), ("put back", "the model")]


def test_a1111_without_a_model_loads_none(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    fake.tree["modules.sd_models"].model_data.sd_model = None
    with host.gpu_of_host("task(x)", never, pytest.fail):
        pass
    assert fake.told == [("queued", "task(x)")]


def test_a_model_that_the_host_dropped_meanwhile_is_not_put_back(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    with host.gpu_of_host("task(x)", never, pytest.fail):
        fake.tree["modules.sd_models"].model_data.sd_model = "another"
    assert ("put back", "the model") not in fake.told


def test_the_lock_is_given_back_when_a_render_fails(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    with pytest.raises(ZeroDivisionError), host.gpu_of_host("task(x)", never, pytest.fail):
        raise ZeroDivisionError
    assert not fake.lock.locked()
    assert fake.told[-1] == ("put back", "the model")


def test_a_fault_of_the_hosts_memory_code_is_said_and_survived(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    fake.tree["backend.memory_management"].unload_all_models = lambda: 1 / 0
    said = []
    with host.gpu_of_host("task(x)", never, said.append):
        pass
    assert said == ["the WebUI's models could not be unloaded: ZeroDivisionError: division by zero"]


def test_it_waits_its_turn_behind_the_hosts_own_work(monkeypatch, tmp_path):
    fake, order, said = install(monkeypatch, tmp_path, "forge"), [], []
    fake.lock.acquire()

    def render():
        with host.gpu_of_host("task(x)", never, said.append):
            order.append("ours")

    thread = threading.Thread(target=render)
    thread.start()
    wait_until(lambda: said)
    assert list(fake.pending) == ["task(x)"]
    order.append("theirs")
    fake.lock.release()
    thread.join(5)
    assert order == ["theirs", "ours"]
    assert fake.pending == {}
    assert said == ["waiting for the WebUI to finish its own work"]
    assert not fake.lock.locked()


def test_a_cancel_ends_the_waiting_and_leaves_the_lock_to_others(monkeypatch, tmp_path):
    fake, cancel, ended = install(monkeypatch, tmp_path, "forge"), threading.Event(), []
    fake.lock.acquire()

    def render():
        try:
            with host.gpu_of_host("task(x)", cancel.is_set, lambda text: None):
                ended.append("rendered")
        except RenderCancelled:
            ended.append("cancelled")

    thread = threading.Thread(target=render)
    thread.start()
    cancel.set()
    thread.join(5)
    assert ended == ["cancelled"]
    assert fake.pending == {}
    fake.lock.release()
    wait_until(lambda: not any(other.name == "deforum-wan-turn" for other in threading.enumerate()))
    assert fake.lock.acquire(False)


def test_progress_reaches_the_hosts_bar(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    picture = tmp_path / "preview.jpg"
    Image.new("RGB", (8, 4)).save(picture)
    job = host.HostJob("task(deforum-wan-7)")
    job.begin()
    job.show(Progress("sampling", 0.4, clip=2, clips=5, step=3, steps=20, eta_seconds=70, preview=str(picture)))
    state = fake.state
    assert (state.job_no, state.job_count, state.sampling_step, state.sampling_steps) == (1, 5, 3, 20)
    assert state.textinfo == "clip 2 of 5, 1 min 10 s left"
    assert state.pictures == [(8, 4)]
    job.end()
    assert state.calls == [("begin", "task(deforum-wan-7)"), ("end", "task(deforum-wan-7)")]
    assert fake.told == [("started", "task(deforum-wan-7)"), ("finished", "task(deforum-wan-7)")]


def test_a_small_call_of_the_hosts_own_leaves_our_job_in_its_state(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    job = host.HostJob("task(deforum-wan-7)")
    job.begin()
    fake.state.begin("merging checkpoints")
    fake.state.end()
    job.show(Progress("sampling", 0.4, clip=2, clips=5, step=3, steps=20))
    assert (fake.state.job, fake.state.job_count) == ("task(deforum-wan-7)", 5)
    job.end()
    assert fake.state.job == ""


def test_a_state_without_these_fields_costs_only_the_display(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "a1111")
    fake.shared.state = object()
    job = host.HostJob("task(x)")
    job.begin()
    job.show(Progress(preview=str(tmp_path / "none.jpg")))
    assert job.wish() == ""
    job.end()


@pytest.mark.parametrize(
    ("field", "wish"), [("interrupted", "now"), ("skipped", "now"), ("stopping_generation", "after_clip")]
)
def test_the_hosts_buttons(field, wish, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "_RELOAD_SECONDS", 0.05)
    fake = install(monkeypatch, tmp_path, "a1111")
    job = host.HostJob("task(x)")
    job.begin()
    assert job.wish() == ""
    setattr(fake.state, field, True)
    assert job.wish() == wish
    job.end()
    assert getattr(fake.state, field) is False


def test_reload_ui_is_no_interrupt(monkeypatch, tmp_path):
    fake = install(monkeypatch, tmp_path, "forge")
    job = host.HostJob("task(x)")
    job.begin()
    fake.state.interrupted = True
    threading.Timer(0.2, lambda: setattr(fake.shared.demo.server, "should_exit", True)).start()
    assert job.wish() == ""
    assert fake.state.interrupted is False
