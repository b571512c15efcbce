"""The one object per process that the tab and the API ask: queue and runner, models, presets, plans, environment.

It lives as long as the process: a WebUI's "Reload UI" makes a new app, which finds the same service with its running
job.  Methods may be called from any thread, and raise DeforumWanError.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import ModelInfo
from ..errors import Conflict, InputError, ModelError, NotFound, SettingsError, of_job
from ..job_files import JobFiles
from ..job_queue import Job, NewJob, Search, new_batch, open_queue
from ..planning.picture import WIDTH, timeline_svg
from ..presets import Preset, PresetFolder, apply_preset, builtin_presets
from ..queue_runner import start_runner
from ..queue_store import exchange
from ..queue_store.jobs import parsed
from ..retake import retake
from ..settings import FIELDS, RenderSettings, apply_overrides, load_settings, settings_from_dict, settings_to_text
from ..settings_fields import json_object
from ..variants import DEMO, VARIANTS
from ..wan_integration import model_search_folders
from ..worker_client import ClipRenderer
from . import host
from .environment import EnvironmentDesk
from .models import ModelShelf
from .paths import allowed_folder, foreign_paths, refuse_foreign_paths
from .planning import check_planned, estimate, preview, preview_to_dict
from .render_job import JobRenderer, LiveLog
from .so_far import SoFar
from .views import files_of, job_brief, model_facts, preset_facts

QUEUE_FILE = "queue.sqlite3"
PRESETS_FOLDER = "presets"
_MOST_FILES, _MOST_WAITING, _MOST_AT_ONCE = 500, 100, 1000
_FRAMES_SECONDS = 2.0


@dataclass(frozen=True)
class Added:
    """What came of adding.  notes: on what was mended or has no meaning here, each with its job's number in front
    where several were added."""

    jobs: tuple[Job, ...]
    notes: tuple[str, ...]


class Service:
    """data: folder of the queue and the presets.  worker: for tests, in place of the shared one.

    out_dir: where new jobs go, asked for each.  run: whether this process renders jobs, or only keeps the queue.
    """

    def __init__(
        self,
        data: Path,
        *,
        out_dir: Callable[[], Path] = host.output_folder,
        worker: ClipRenderer | None = None,
        run: bool = True,
    ) -> None:
        self.data, self.out_dir = data, out_dir
        self.queue = open_queue(data / QUEUE_FILE)
        self.presets = PresetFolder(data / PRESETS_FOLDER)
        self.log, self.so_far = LiveLog(), SoFar()
        self.environment = EnvironmentDesk(self.is_rendering, worker=worker)
        self._models = ModelShelf()
        self._one_snapshot, self._last_snapshot = threading.Lock(), {"version": ""}
        self._frames: dict[Path, tuple[float, int]] = {}
        render = JobRenderer(
            self.queue,
            self.log,
            self.so_far,
            out_dir=out_dir,
            worker=worker,
            keep_warm=self._keep_warm,
            hold=self._hold,
        )
        self.runner = start_runner(self.queue, render) if run else None

    def close(self, timeout: float = 30.0) -> None:
        """End the runner in good order: a job in work becomes interrupted and can be resumed."""
        self.environment.stop()
        if self.runner is not None:
            self.runner.stop(timeout)

    def is_rendering(self) -> bool:
        return self.runner is not None and self.runner.current is not None

    def _hold(self) -> str:
        """Why a render has to wait before it begins."""
        desk = self.environment
        return f"waiting for the {desk.work} of the environment" if desk.needs_the_environment else ""

    def _keep_warm(self) -> bool:
        """Whether the model may stay in memory: if the next job comes at once, or where nobody else wants it."""
        if getattr(host.host_module("modules.progress"), "pending_tasks", None):
            return False
        if self.queue.counts()["pending"] and not self.queue.paused:
            return True
        return host.host_name() == "standalone" and not self.queue.options.release_when_empty

    # Jobs

    def add(
        self, wanted: Sequence[Mapping[str, Any]], *, name: str = "", batch: str = "", first: bool = False,
        any_path: bool = True,
    ) -> Added:  # fmt: skip
        """Queue settings, one job each; all of them or, where one can't be used, none.

        any_path: whether pictures, sounds and models may lie anywhere on this machine.  Raises SettingsError,
        ScheduleError, naming the field, and with several the job's number.
        """
        if not wanted:
            raise SettingsError("there is nothing to add", where="settings", allowed="at least one settings object")
        if len(wanted) > _MOST_AT_ONCE:
            raise SettingsError("too many at once", where="settings", got=len(wanted), allowed=f"up to {_MOST_AT_ONCE}")
        jobs, notes = [], []
        for number, raw in enumerate(wanted, 1):
            several = len(wanted) > 1
            with of_job(number) if several else nullcontext():
                settings, more = self._checked(raw, any_path)
            jobs.append(NewJob(settings, name, batch))
            notes += [f"job {number}: {note}" if several else note for note in more]
        return Added(tuple(self.queue.add_many(jobs, first=first)), tuple(notes))

    def add_folder(self, folder: str, *, batch: str = "", first: bool = False) -> Added:
        """Queue every settings file (.txt, .json) of a folder, by name.  Raises InputError where that isn't allowed."""
        place = allowed_folder(folder)
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in (".txt", ".json") and path.is_file())
        if not files or len(files) > _MOST_FILES:
            raise InputError("the folder has no fitting number of settings files", where="folder", got=len(files),
                             allowed=f"1 to {_MOST_FILES} files ending in .txt or .json")  # fmt: skip
        jobs, notes = [], []
        for number, file in enumerate(files, 1):
            with of_job(number, file.name):
                read, more = load_settings(file)
                settings, checked = self._checked(read, any_path=True)
            jobs.append(NewJob(settings, file.stem, batch or place.name))
            notes += [f"{file.name}: {note}" for note in [*more, *checked]]
        return Added(tuple(self.queue.add_many(jobs, first=first)), tuple(notes))

    def add_grid(
        self, raw: Mapping[str, Any], axes: Mapping[str, Any], *, name: str = "", batch: str = "",
        any_path: bool = True,
    ) -> Added:  # fmt: skip
        """Queue one job for each combination.  axes: as exchange.read_axes takes them."""
        settings, notes = self._checked(raw, any_path)
        values = exchange.read_axes(axes)
        jobs = exchange.grid(NewJob(settings, name, batch or new_batch()), values)
        for field, given in values.items():  # each value once; all their combinations would take long
            for value in given:
                self._checked(apply_overrides(settings, {field: value}), any_path)
        return Added(tuple(self.queue.add_many(jobs)), tuple(notes))

    def import_jobs(self, text: str, *, batch: str = "", any_path: bool = True) -> Added:
        """Queue the jobs of an exported queue as new, waiting ones."""
        jobs, notes = exchange.from_json(text, batch), []
        for number, job in enumerate(jobs, 1):
            with of_job(number, job.name):
                notes += [f"job {number}: {note}" for note in self._checked(parsed(job.settings), any_path)[1]]
        return Added(tuple(self.queue.add_many(jobs)), tuple(notes))

    def edit(self, job_id: int, raw: Mapping[str, Any], *, resume: bool = False, any_path: bool = True) -> Added:
        self.queue.job(job_id)
        settings, notes = self._checked(raw, any_path)
        return Added((self.queue.edit(job_id, settings, resume=resume),), tuple(notes))

    def retake(self, job_id: int, clip: int, *, seed: int = -1) -> Added:
        """Queue a job once more from one of its clips on, counted from 1; the old one stays as it is."""
        job = self.queue.job(job_id)
        files = files_of(job)
        if job.state in ("pending", "running") or files is None:
            raise Conflict("a job can be made again once it has ended", got=f"job {job_id}, {job.state}")
        settings, claimed = retake(job.render_settings(), files, clip, self.out_dir(), seed)
        name = f"{job_brief(job)['title']} · again from clip {clip}"
        new = NewJob(settings, name, job.batch, folder=str(claimed.folder), timestring=claimed.timestring)
        return Added(tuple(self.queue.add_many([new])), ())

    def delete(self, *job_ids: int) -> None:
        """Remove jobs from queue and history, with the small video that was made of one while it ran."""
        jobs = [self.queue.job(job_id) for job_id in job_ids]
        self.queue.delete(*job_ids)
        for job in jobs:
            if files := files_of(job):
                self.so_far.forget(files)

    def video_so_far(self, job: Job) -> Path | None:
        """A small video of a job's finished frames, made now if there are new ones."""
        files = files_of(job)
        return self.so_far.video(files, job.render_settings().fps) if files else None

    def _checked(self, given: Mapping[str, Any] | RenderSettings, any_path: bool) -> tuple[RenderSettings, list[str]]:
        settings, notes = (given, []) if isinstance(given, RenderSettings) else settings_from_dict(given)
        if not any_path:
            refuse_foreign_paths(settings)
        return settings, [*notes, *check_planned(settings, self.find_model)]

    # Plans, models, presets

    def find_model(self, settings: RenderSettings) -> ModelInfo:
        """The model that these settings mean.  Raises ModelError."""
        return self._models.find(settings)

    def model_named(self, name: str) -> ModelInfo:
        """One of those that models() lists, complete or not.  Raises NotFound."""
        for model in self._models.all(refresh=False):
            if name in (model.name, model.reference):
                return model
        raise NotFound("no such model", where="model", got=name[:200], next_step="look for models again")

    def plan(self, raw: Mapping[str, Any], *, any_path: bool = True, width: int = WIDTH) -> dict[str, Any]:
        """What would be rendered: see planning.preview_to_dict.  Never raises for what someone typed.

        width: of the timeline's picture in pixels.
        """
        shown = preview(raw, self.find_model, (lambda settings: []) if any_path else foreign_paths)
        cost = estimate(shown, self.out_dir(), self._models.gpu_memory())
        return {**preview_to_dict(shown, cost), "svg": timeline_svg(shown.plan, width=width) if shown.plan else ""}

    def models(self, *, refresh: bool = False) -> dict[str, Any]:
        """Every model there is, what it can do, what it lacks, and where models were looked for."""
        found = self._models.all(refresh=refresh)
        return {
            "models": [model_facts(model) for model in found],
            "folders": [str(folder) for folder in model_search_folders(host.model_folders())],
            "default": self._default_model(),
            "known": [
                {"name": row.name, "title": row.title, "repository": row.repository}
                for row in VARIANTS.values() if row.name != DEMO
            ],
        }  # fmt: skip

    def _default_model(self) -> str:
        try:
            return self.find_model(RenderSettings()).name
        except ModelError:
            return ""

    def preset_list(self, model: str = "") -> dict[str, Any]:
        """The built-in presets as they apply to a model, and the user's own."""
        try:
            variant = self.find_model(RenderSettings(model=model)).row
        except ModelError:
            variant = VARIANTS.get(model, VARIANTS[DEMO])
        own = self.presets.presets()
        return {
            "presets": [preset_facts(preset) for preset in (*builtin_presets(variant), *own)],
            "default": self.presets.default,
            "notices": self.presets.notices,
        }

    def preset(self, name: str, model: str = "") -> Preset:
        """A preset of the list.  Raises NotFound."""
        try:
            variant = self.find_model(RenderSettings(model=model)).row
        except ModelError:
            variant = VARIANTS[DEMO]
        for preset in builtin_presets(variant):
            if preset.name == name:
                return preset
        return self.presets.get(name)

    def with_preset(self, raw: Mapping[str, Any], name: str) -> tuple[RenderSettings, list[str]]:
        """Settings with a preset's fields in place, and notes."""
        settings, notes = settings_from_dict(raw)
        settings, more = apply_preset(settings, self.preset(name, settings.model))
        return settings, [*notes, *more]

    # Settings files

    def import_settings(self, text: str) -> dict[str, Any]:
        """A settings file's text, ours or Deforum's -> settings under our names, and notes.  Raises SettingsError."""
        raw, notes = json_object(text.removeprefix("\ufeff"), "text")
        settings, more = settings_from_dict(raw)
        values = {name: getattr(settings, name) for name in FIELDS}
        return {"settings": values, "notes": [*notes, *more], "text": settings_to_text(settings)}

    def export_settings(self, raw: Mapping[str, Any]) -> str:
        """Settings as a file's text.  Raises SettingsError."""
        return settings_to_text(parsed(raw))

    # State

    def version(self) -> str:
        """Another text after every change that a page would show."""
        desk = self.environment
        trouble = self.runner.trouble if self.runner else ""
        parts = [self.queue.version(), str(self.log.next), str(desk.log.next), desk.work]
        return "/".join([*parts, str(len(trouble))])

    def state(self, since: str = "", log_from: int = 0) -> dict[str, Any]:
        """What a page that watches needs; next to nothing if it has seen `since`.

        log_from: the first line of the log that the page hasn't.
        """
        version = self.version()
        if since and since == version:
            return {"version": version, "changed": False}
        log = {"next": self.log.next, "lines": self.log.since(log_from)}
        return {**self._snapshot(version), "time": time.time(), "log": log, "environment": self.environment.state()}

    def _snapshot(self, version: str) -> dict[str, Any]:
        """The part that all pages get alike: read once for each version, however many watch."""
        with self._one_snapshot:
            if self._last_snapshot["version"] != version:
                self._last_snapshot = self._read_snapshot(version)
            return self._last_snapshot

    def _read_snapshot(self, version: str) -> dict[str, Any]:
        current = self.runner.current if self.runner else None
        waiting = self.queue.search(Search(states=("pending",), order="queue", limit=_MOST_WAITING))
        return {
            "version": version,
            "changed": True,
            "queue": self.queue_facts(),
            "running": [self._running_facts(job, current) for job in self.queue.running()],
            "waiting": [job_brief(job) for job in waiting.jobs],
            "waiting_count": waiting.total,
            "host": {"name": host.host_name(), "title": host.host_title()},
        }

    def queue_facts(self) -> dict[str, Any]:
        return {
            "paused": self.queue.paused,
            "counts": self.queue.counts(),
            "options": vars(self.queue.options),
            "notices": self.queue.notices(),
            "trouble": self.runner.trouble if self.runner else "",
        }

    def _running_facts(self, job: Job, current: Job | None) -> dict[str, Any]:
        """A running job.  frames: finished so far; so_far: their video; here: whether this process renders it."""
        files = files_of(job)
        has_preview = bool(files and files.preview.is_file())
        finished = self._frames_finished(files) if files else 0
        return {
            **job_brief(job),
            "here": current is not None and current.id == job.id,
            "frames": finished,
            "preview": f"jobs/{job.id}/files/preview" if has_preview else "",
            "so_far": f"jobs/{job.id}/files/so_far" if finished else "",
        }

    def _frames_finished(self, files: JobFiles) -> int:
        """Counted again only now and then: a long video has tens of thousands of files."""
        key, now = files.result(""), time.monotonic()
        counted = self._frames.get(key)
        if counted is None or now - counted[0] > _FRAMES_SECONDS:
            self._frames = {key: (counted := (now, len(files.pictures())))}
        return counted[1]

    def environment_facts(self) -> dict[str, Any]:
        """All about the environment: state, GPUs, folders."""
        return {
            **self.environment.state(),
            "gpus": self._models.gpus(),
            "output_folder": str(self.out_dir()),
            "data_folder": str(self.data),
            "model_folders": [str(folder) for folder in model_search_folders(host.model_folders())],
            "host": {"name": host.host_name(), "title": host.host_title()},
        }


# The one of this process

_service: Service | None = None
_making = threading.Lock()


def the_service() -> Service:
    """The service of this process, made at the first call.  Raises DeforumWanError where its folder can't be used."""
    global _service
    with _making:
        if _service is None:
            _service = Service(host.data_folder())
        return _service
