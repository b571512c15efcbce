"""Stand-ins for the modules that each WebUI has loaded when an extension runs, as far as an extension sees them."""

import sys
import threading
from types import ModuleType, SimpleNamespace


class FakeState:
    """The host's shared state, with the fields of A1111 1.10."""

    def __init__(self):
        self.calls, self.pictures = [], []
        self.job, self.job_no, self.job_count = "", 0, 0
        self.sampling_step = self.sampling_steps = 0
        self.textinfo = None
        self.interrupted = self.skipped = self.stopping_generation = False

    def begin(self, job="(unknown)"):
        self.calls.append(("begin", job))
        self.job, self.interrupted, self.skipped = job, False, False

    def end(self):
        self.calls.append(("end", self.job))
        self.job, self.job_count = "", 0

    def assign_current_image(self, picture):
        self.pictures.append(picture.size)


class FifoLock:
    """First come, first served, and without a limit to waiting, as the hosts' own is."""

    def __init__(self):
        self._lock, self._inner, self._waiting = threading.Lock(), threading.Lock(), []

    def acquire(self, blocking=True):
        with self._inner:
            if self._lock.acquire(False):
                return True
            if not blocking:
                return False
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()
        return self._lock.acquire()

    def release(self):
        with self._inner:
            if self._waiting:
                self._waiting.pop(0).set()
            self._lock.release()

    def locked(self):
        return self._lock.locked()


class SharedModule(ModuleType):
    """modules.shared; in A1111 reading sd_model loads a model."""

    @property
    def sd_model(self):
        raise AssertionError("shared.sd_model was read")


def install(monkeypatch, tmp_path, name, **flags):
    """Make this process look like that WebUI.  Returns what the tests look at."""
    told, pending, data = [], {}, tmp_path / "webui"
    (data / "models").mkdir(parents=True, exist_ok=True)
    state, lock = FakeState(), FifoLock()
    shared = SharedModule("modules.shared")
    shared.state, shared.opts = state, SimpleNamespace()
    shared.cmd_opts = SimpleNamespace(**flags)
    shared.demo = SimpleNamespace(server=SimpleNamespace(should_exit=False))

    def queued(task):
        told.append(("queued", task))
        pending[task] = 1.0

    tree = {
        "modules": ModuleType("modules"), "modules.shared": shared,
        "modules.call_queue": _module("modules.call_queue", queue_lock=lock),
        "modules.paths_internal": _module(
            "modules.paths_internal", data_path=str(data), models_path=str(data / "models"),
            default_output_dir=str(data / ("output" if name == "forge-classic" else "outputs")),
        ),
        "modules.progress": _module(
            "modules.progress", pending_tasks=pending, add_task_to_queue=queued,
            start_task=lambda task: told.append(("started", task)),
            finish_task=lambda task: told.append(("finished", task)),
        ),
    }  # fmt: skip
    manager = _module(
        "manager", unload_all_models=lambda: told.append("unloaded"), soft_empty_cache=lambda: told.append("emptied")
    )
    if name in ("forge", "forge-neo"):
        tree["backend.memory_management"] = manager
    elif name in ("reforge", "forge-classic"):
        tree["ldm_patched.modules.model_management"] = manager
    else:
        tree["modules.sd_models"] = _module(
            "modules.sd_models", model_data=SimpleNamespace(sd_model="the model"),
            unload_model_weights=lambda model: told.append(("unloaded", model)),
            send_model_to_device=lambda model: told.append(("put back", model)),
        )  # fmt: skip
    version = {"forge": "f2.0.1v1.10.1", "forge-neo": "neo 2.1", "forge-classic": "classic", "reforge": "1.0.0v2"}
    if name in version:
        tree["modules_forge.forge_version"] = _module("modules_forge.forge_version", version=version[name])
    for module, content in tree.items():
        monkeypatch.setitem(sys.modules, module, content)
    return SimpleNamespace(
        state=state, lock=lock, told=told, pending=pending, data=data, shared=shared, tree=tree
    )  # fmt: skip


def _module(name, **content):
    module = ModuleType(name)
    vars(module).update(content)
    return module
