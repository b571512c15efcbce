"""The WebUI around us: its folders and flags, its models in the GPU, its progress bar and its Interrupt button.

Only what the WebUI has imported by itself is looked at (sys.modules), and each name with getattr: flags and functions
vanish between hosts, and an import of ours could load torch or a model.  shared.sd_model is never read, because in
A1111 reading it loads the model.  Standalone, all of this finds nothing and does nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from PIL import Image

from ..errors import RenderCancelled
from ..progress import Progress, state_folder, words_for_seconds
from ..wan_isolated_env import EXTENSION_ROOT

log = logging.getLogger(__name__)

HostName = Literal["a1111", "forge", "forge-neo", "forge-classic", "reforge", "standalone"]
Wish = Literal["", "now", "after_clip"]

_TITLES: dict[HostName, str] = {
    "a1111": "Stable Diffusion WebUI", "forge": "Forge", "forge-neo": "Forge Neo", "forge-classic": "Forge Classic",
    "reforge": "reForge", "standalone": "standalone",
}  # fmt: skip
_OUR_FOLDER = "deforum-wan"
_PREVIEW_SECONDS = 1.0
_RELOAD_SECONDS = 1.0  # how soon after its wish to reload a WebUI tells its server to end
_POLL_SECONDS = 0.1


def host_module(name: str) -> ModuleType | None:
    """A module that the WebUI has imported, None if it hasn't."""
    return sys.modules.get(name)


def host_name() -> HostName:
    """Which WebUI this process is, told by what it has loaded."""
    if host_module("modules.shared") is None:
        return "standalone"
    version = str(getattr(host_module("modules_forge.forge_version"), "version", "")).lower()
    if host_module("backend.memory_management") is not None:
        return "forge-neo" if "neo" in version else "forge"
    if host_module("ldm_patched.modules.model_management") is not None:
        return "forge-classic" if "classic" in version else "reforge"
    return "a1111"


def host_title() -> str:
    return _TITLES[host_name()]


def flag(name: str, default: Any = None) -> Any:
    """A flag of the WebUI's command line, `default` where it has none of that name."""
    for module in ("modules.shared", "modules.shared_cmd_options"):
        options = getattr(host_module(module), "cmd_opts", None)
        if options is not None and hasattr(options, name):
            return getattr(options, name)
    return default


def option(name: str, default: Any = None) -> Any:
    """A value of the WebUI's own settings page."""
    return getattr(getattr(host_module("modules.shared"), "opts", None), name, default)


# Folders


def _path(name: str) -> Path | None:
    """A folder that modules.paths or its inner module names."""
    for module in ("modules.paths_internal", "modules.paths"):
        if value := getattr(host_module(module), name, None):
            return Path(str(value)).absolute()
    return None


def data_folder() -> Path:
    """Where the queue and the presets lie: DEFORUM_WAN_DATA, else in the WebUI's data, else in the user's state."""
    if chosen := os.environ.get("DEFORUM_WAN_DATA", "").strip():
        return Path(chosen).expanduser().absolute()
    data = _path("data_path")
    return data / _OUR_FOLDER if data else state_folder()


def output_folder() -> Path:
    """Where results go: the setting, else DEFORUM_WAN_OUT, else the WebUI's outputs, else the extension's."""
    chosen = str(option("deforum_wan_outputs", "") or "").strip() or os.environ.get("DEFORUM_WAN_OUT", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    outputs, data = _path("default_output_dir"), _path("data_path")
    if outputs is None and data is not None:
        outputs = data / "outputs"
    return outputs / _OUR_FOLDER if outputs else EXTENSION_ROOT / "outputs"


def model_folders() -> list[Path]:
    """Where the WebUI keeps what could be a Wan model, those folders that exist, most particular first."""
    named = str(flag("deforum_wan_models", "") or "").strip()
    places = [Path(named).expanduser().absolute()] if named else []
    if models := _path("models_path"):
        places += [models / name for name in ("wan", "Wan", "diffusion_models", "text_encoder", "VAE")]
        if host_name() == "forge-neo":  # it renders Wan itself, and keeps it where the checkpoints are
            places.append(models / "Stable-diffusion")
    return [place for place in places if place.is_dir()]


def lora_folders() -> list[Path]:
    """Where the WebUI's LoRAs may be: its own folder for them, and folders of models that one may lie in or beside."""
    named = str(flag("lora_dir", "") or "").strip()
    own = [Path(named).expanduser().absolute()] if named else []
    models = _path("models_path")
    return [*own, *model_folders(), *([models] if models else [])]


def readable_folders() -> list[Path]:
    """Folders whose settings files may be queued by name through the API."""
    folders = [output_folder(), data_folder(), EXTENSION_ROOT / "examples"]
    folders += [folder for name in ("data_path", "default_output_dir") if (folder := _path(name))]
    allowed = flag("gradio_allowed_path", None) or []
    folders += [Path(str(folder)).absolute() for folder in ([allowed] if isinstance(allowed, str) else allowed)]
    return folders


# The GPU


@contextmanager
def gpu_of_host(task: str, wanted_off: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """Wait for the WebUI's own work to end, keep it waiting meanwhile, and have its models out of the GPU.

    task: our name among its tasks.  wanted_off: asked while waiting.  Raises RenderCancelled when that turns true.
    """
    lock = getattr(host_module("modules.call_queue"), "queue_lock", None)
    if lock is None:
        yield
        return
    tell_progress("add_task_to_queue", task)
    try:
        _acquire(lock, wanted_off, say)
    finally:
        getattr(host_module("modules.progress"), "pending_tasks", {}).pop(task, None)
    try:
        put_back = free_gpu(say)
        try:
            yield
        finally:
            put_back()
    finally:
        lock.release()


def _acquire(lock: Any, wanted_off: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Take our turn at the WebUI's lock.  It is first come, first served, but can't be waited for with a limit, so a
    thread waits for it, and gives it back at once if nobody wants it any more."""
    if lock.acquire(False):
        return
    say("waiting for the WebUI to finish its own work")
    decided, has_it, given_up = threading.Lock(), threading.Event(), threading.Event()

    def wait() -> None:
        lock.acquire()
        with decided:
            if given_up.is_set():
                lock.release()
            else:
                has_it.set()

    threading.Thread(target=wait, name="deforum-wan-turn", daemon=True).start()
    while not has_it.wait(_POLL_SECONDS):
        if wanted_off():
            with decided:
                if not has_it.is_set():
                    given_up.set()
                    raise RenderCancelled("cancelled while it waited for the WebUI")
            break
    if wanted_off():
        lock.release()
        raise RenderCancelled("cancelled while it waited for the WebUI")


def free_gpu(say: Callable[[str], None]) -> Callable[[], None]:
    """Move the WebUI's models out of the GPU.  Returns what puts back those that it wouldn't fetch by itself.

    What fails is said, not raised: the render may fit beside them.
    """
    for name in ("backend.memory_management", "ldm_patched.modules.model_management"):
        manager = host_module(name)
        if manager is not None and callable(getattr(manager, "unload_all_models", None)):
            with _said(say, "the WebUI's models could not be unloaded"):
                manager.unload_all_models()
                getattr(manager, "soft_empty_cache", lambda: None)()
            return lambda: None  # these hosts load again what they need
    return _move_a1111_model(say)


def _move_a1111_model(say: Callable[[str], None]) -> Callable[[], None]:
    models = host_module("modules.sd_models")
    # Not shared.sd_model: that would load one.
    loaded = getattr(getattr(models, "model_data", None), "sd_model", None)
    if loaded is None or not callable(getattr(models, "unload_model_weights", None)):
        return lambda: None
    with _said(say, "the WebUI's model could not be unloaded"):
        models.unload_model_weights(loaded)  # type: ignore[union-attr]

    def put_back() -> None:
        # It goes on with the model it had, wherever that lies: unless it forgot it, it must lie in the GPU again.
        if getattr(models.model_data, "sd_model", None) is loaded:  # type: ignore[union-attr]
            with _said(say, "the WebUI's model could not be put back; switch the checkpoint once"):
                getattr(models, "send_model_to_device", lambda model: None)(loaded)

    return put_back


@contextmanager
def _said(say: Callable[[str], None], what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the host's code, of any version: its faults are its own
        log.warning("%s", what, exc_info=True)
        say(f"{what}: {type(error).__name__}: {error}")


def tell_progress(function: str, task: str) -> None:
    """Call one of modules.progress's functions about a task, where there is one."""
    with suppress(Exception):
        getattr(host_module("modules.progress"), function, lambda task: None)(task)


# Progress bar and Interrupt


class HostJob:
    """One job in the WebUI's shared state, from begin() to end().

    A host whose state lacks a field loses that part of the display, never the render.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._state = getattr(host_module("modules.shared"), "state", None)
        self._shown, self._shown_at = "", 0.0

    def begin(self) -> None:
        self._do("begin", job=self.task)
        tell_progress("start_task", self.task)
        self._set(job_count=-1)

    def end(self) -> None:
        tell_progress("finish_task", self.task)
        self._do("end")
        self._set(interrupted=False, skipped=False, stopping_generation=False)

    def show(self, progress: Progress) -> None:
        """job_no of job_count clips, sampling_step of sampling_steps, and a picture."""
        if self._state is None:
            return
        eta = "" if progress.eta_seconds is None else f", {words_for_seconds(progress.eta_seconds)} left"
        # The task's name again: a small call of the host's, which waits for no lock, begins and ends a job of its own.
        self._set(
            job=self.task, job_count=max(1, progress.clips), job_no=max(0, progress.clip - 1),
            sampling_step=progress.step, sampling_steps=progress.steps,
            textinfo=f"clip {progress.clip} of {progress.clips}{eta}",
        )  # fmt: skip
        now = time.monotonic()
        if progress.preview and now - self._shown_at >= _PREVIEW_SECONDS:
            self._shown_at = now
            self._show_picture(progress.preview)

    def wish(self) -> Wish:
        """What the WebUI's buttons ask for: Interrupt and Skip stop now, "stop after this image" after the clip."""
        state = self._state
        if state is None:
            return ""
        if getattr(state, "interrupted", False) is True or getattr(state, "skipped", False) is True:
            if self._is_reload():
                self._set(interrupted=False, skipped=False)
                return ""
            return "now"
        return "after_clip" if getattr(state, "stopping_generation", False) is True else ""

    def _is_reload(self) -> bool:
        """Whether the interrupt is that of "Reload UI", which says it on its way and means no job of ours: the
        page goes, this process and the worker stay."""
        deadline = time.monotonic() + _RELOAD_SECONDS
        demo = getattr(host_module("modules.shared"), "demo", None)
        while time.monotonic() < deadline:
            if getattr(getattr(demo, "server", None), "should_exit", False) is True:
                return True
            time.sleep(_POLL_SECONDS / 2)
        return False

    def _show_picture(self, path: str) -> None:
        with suppress(Exception), Image.open(path) as picture:  # the next one may be taking its place
            self._do("assign_current_image", picture.convert("RGB"))

    def _do(self, name: str, *args: Any, **kwargs: Any) -> None:
        with _said(lambda text: None, f"the WebUI's state refused {name}"):
            getattr(self._state, name, lambda *_, **__: None)(*args, **kwargs)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            if hasattr(self._state, name):
                with suppress(Exception):
                    setattr(self._state, name, value)
