"""What the tab does besides rendering, with a live log: install and repair the isolated environment, test it, check a
model's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..checkpoints import ModelInfo, check_report
from ..errors import Conflict, DeforumWanError, ModelError, RenderCancelled
from ..progress import Progress, words_for_reading, words_for_seconds
from ..render_wan import render_wan
from ..settings import RenderSettings
from ..variants import DEMO, VARIANTS
from ..wan_integration import close_shared_worker, shared_worker
from ..wan_isolated_env import check, environment_root, install_command
from ..worker_client import ClipRenderer
from . import host
from .faults import problem
from .render_job import IDLE_SECONDS, LiveLog

Work = Literal["", "install", "repair", "self-test", "file check"]

# What WebUIs set for a torch of their own, which isn't ours to follow.
_OF_THE_HOST = ("TORCH_COMMAND", "TORCH_INDEX_URL")
_STATE_SECONDS = 5.0
_TELL_SECONDS = 2.0
_GPU_QUERY = ("name", "memory.total", "memory.free", "driver_version")
_TEST_SETTINGS = {"max_frames": 17, "num_inference_steps": "6", "seed": 7}


class EnvironmentDesk:
    """State of the environment, and at most one piece of work at a time, in a thread of its own.

    is_rendering: whether a job is in work.  builder, worker: for tests, instead of the real ones.
    """

    def __init__(
        self,
        is_rendering: Callable[[], bool],
        *,
        builder: Callable[..., Path] | None = None,
        worker: ClipRenderer | None = None,
    ) -> None:
        self.log = LiveLog(2000)
        self._is_rendering, self._builder, self._worker = is_rendering, builder, worker
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._work: Work = ""
        self._began = 0.0
        self._last: dict[str, Any] = {}
        self._seen: tuple[float, dict[str, Any]] | None = None
        self._thread: threading.Thread | None = None

    @property
    def work(self) -> Work:
        """What is being done, "" for nothing."""
        return self._work

    @property
    def needs_the_environment(self) -> bool:
        """Whether what is being done keeps jobs from starting; files can be read beside a job."""
        return self._work not in ("", "file check")

    def state(self) -> dict[str, Any]:
        """Cheap enough to be asked for with every page: looked up again only every few seconds."""
        now = time.monotonic()
        if self._seen is None or now - self._seen[0] > _STATE_SECONDS:
            self._seen = now, _state_facts()
        elapsed = round(now - self._began, 1) if self._work else 0.0
        return {**self._seen[1], "work": self._work, "seconds": elapsed, "last": self._last, "log_next": self.log.next}

    def start(self, work: Work, model: ModelInfo | None = None) -> None:
        """Begin it.  model: whose files are to be checked.  Raises Conflict while something is under way."""
        with self._lock:
            if self._work:
                raise Conflict(f"the {self._work} is still under way", next_step="wait for it, or stop it")
            if work != "file check" and self._is_rendering():
                raise Conflict("a job is being rendered", next_step="wait for its end, or pause the queue")
            self._work, self._began, self._last = work, time.monotonic(), {}
            self._stop.clear()
            self._thread = threading.Thread(target=self._do, args=(work, model), name="deforum-wan-desk", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End what is under way; an installation goes on from there the next time."""
        self._stop.set()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def _do(self, work: Work, model: ModelInfo | None) -> None:
        began = time.monotonic()
        try:
            if model is not None:
                words = self._check_files(model)
            else:
                words = self._self_test() if work == "self-test" else self._install(repair=work == "repair")
            self._last = {"work": work, "ok": True, "text": words}
        except RenderCancelled:
            self._last = {"work": work, "ok": False, "text": "stopped"}
        except DeforumWanError as error:
            self._last = {"work": work, "ok": False, "text": error.one_line(), "error": problem(error)}
        except Exception as error:  # it must not end in silence: the page shows it
            found = problem(error)
            self._last = {"work": work, "ok": False, "text": found["message"], "error": found}
        self.log.add(f"{self._last['text']} ({words_for_seconds(time.monotonic() - began)})")
        self._seen = None
        self._work = ""

    def _say(self, line: str) -> None:
        self.log.add(line)
        if self._stop.is_set():
            raise RenderCancelled("stopped")

    def _install(self, *, repair: bool) -> str:
        """Build the environment; its Python's files can't be replaced while a worker runs on them."""
        from ..environment.build import build  # not paid for at a WebUI's launch

        close_shared_worker()
        python = (self._builder or build)(report=self._say, repair=repair, env=builder_variables())
        return f"the environment is ready: {python}"

    def _check_files(self, model: ModelInfo) -> str:
        """Read every file of a model whole.  Returns what came of it; raises ModelError for one that isn't right."""
        told_at = 0.0

        def tell(file: str, done: int, *, size: int) -> None:
            nonlocal told_at
            if self._stop.is_set():
                raise RenderCancelled("stopped")
            if done == size or time.monotonic() - told_at > _TELL_SECONDS:
                told_at = time.monotonic()
                self.log.add(f"  {words_for_reading(Path(file).name, done, size)}")

        text, report = check_report(model, hashes=True, on_bytes=tell)
        for line in text.splitlines():
            self.log.add(line)
        if report["problems"]:
            raise ModelError(report["problems"][0], where=model.name)
        model.require()
        verdicts = [entry["verdict"] for entry in report["hashes"]]
        known = sum(verdict == "as published" for verdict in verdicts)
        told = f"{known} as published" if known else "no published sha256 at hand"
        return f"{model.name}: {len(verdicts)} files read, {told}"

    def _self_test(self) -> str:
        """Render a second of video with the demo, in a folder that goes afterwards."""
        row = VARIANTS[DEMO].defaults
        settings = RenderSettings(
            prompts={"0": "a red ball rolls over a meadow"}, width=row.width, height=row.height, model=DEMO,
            batch_name="self-test", **_TEST_SETTINGS,
        )  # fmt: skip
        shown = ""

        def tell(progress: Progress) -> None:
            nonlocal shown
            words = f"{progress.phase} {progress.note}".strip()
            if words != shown:
                shown = words
                self.log.add(f"  {words}")

        with tempfile.TemporaryDirectory(prefix="deforum_wan_", ignore_cleanup_errors=True) as folder:
            with host.gpu_of_host("task(deforum-wan-self-test)", self._stop.is_set, self.log.add):
                worker = self._worker or shared_worker(idle_seconds=IDLE_SECONDS)
                try:
                    done = render_wan(
                        settings, Path(folder), worker=worker, on_progress=tell, say=self.log.add, cancel=self._stop
                    )
                finally:
                    if self._worker is None and host.host_name() != "standalone":
                        close_shared_worker()
            if done.cancelled:
                raise RenderCancelled("stopped")
        hello = getattr(worker, "hello", None)
        where = f" on {hello.device_name or hello.device}" if hello else ""
        return f"the self-test passed: {done.frames} frames{where} in {words_for_seconds(done.seconds)}"


def builder_variables(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables for a build: inside a WebUI without those that it sets for its own torch."""
    if host.host_name() == "standalone":
        return dict(env)
    return {name: value for name, value in env.items() if name.upper() not in _OF_THE_HOST}


def _state_facts() -> dict[str, Any]:
    state, named = check(), os.environ.get("DEFORUM_WAN_WORKER_PYTHON", "").strip()
    return {
        "status": "ready" if named else state.status,
        "ready": state.ready or bool(named),
        "text": f"renders run on {named}, as DEFORUM_WAN_WORKER_PYTHON says" if named else state.one_line(),
        "reason": state.reason,
        "folder": str(environment_root()),
        "python": str(state.stamp.get("python", "")),
        "torch": str(state.stamp.get("torch", "")),
        "command": install_command(),
        "needs_text": "about 3 GB without CUDA and 10 GB with it; 5 to 20 minutes on a fast line",
    }


def gpus() -> list[dict[str, Any]]:
    """The NVIDIA GPUs that the driver's own tool sees: name, memory in bytes, driver.  [] where there is none."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    command = [tool, f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in told.stdout.splitlines()]
    return [_gpu(row) for row in rows if told.returncode == 0 and len(row) == len(_GPU_QUERY)]


def _gpu(row: list[str]) -> dict[str, Any]:
    total, free = (int(cell) * 1024**2 if cell.isdigit() else 0 for cell in row[1:3])
    return {"name": row[0], "memory": total, "free": free, "driver": row[3]}
