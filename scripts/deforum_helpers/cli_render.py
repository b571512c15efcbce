"""The command `render`: settings files in, videos out, with progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoints import ModelInfo
from .cli_progress import ProgressPrinter
from .errors import DeforumWanError, InputError, RenderCancelled, RenderError, SettingsError
from .lora_files import lora_beside
from .planning.loras import renamed_loras
from .preflight import beside, check_render, find_model
from .progress import words_for_seconds
from .render_wan import RenderResult, earlier_job, render_wan
from .settings import RenderSettings, apply_overrides, load_settings
from .settings_fields import named_files
from .wan_integration import (
    close_shared_worker,
    kill_shared_worker,
    lora_search_folders,
    model_search_folders,
    shared_worker,
)
from .worker_client import ClipRenderer, Worker

if TYPE_CHECKING:
    from .cli import StopSignal


@dataclass(frozen=True)
class Wanted:
    """One settings file, read and ready to render."""

    file: Path
    settings: RenderSettings
    model: ModelInfo
    notes: list[str]

    @property
    def source(self) -> str:
        return str(self.file.resolve())


def render_files(arguments: argparse.Namespace, stop: StopSignal) -> int:
    """Render every settings file, one after the other.  Returns the exit status, the first failure's if any.

    All files are read and checked before the first is rendered.  A render that fails doesn't keep the next ones from
    theirs; a stop ends them all.
    """
    if arguments.resume_job and len(arguments.settings) > 1:
        raise InputError("--resume-job goes with one settings file", got=len(arguments.settings))
    printer = ProgressPrinter(sys.stderr, quiet=arguments.quiet)
    jobs = [_wanted(file, arguments) for file in arguments.settings]
    for wanted in jobs:
        if arguments.resume:
            earlier_job(wanted.settings, arguments.out, arguments.resume_job, wanted.source)
        check_render(wanted.settings, arguments.out, model=wanted.model, lora_places=lora_search_folders())
    worker = shared_worker()
    stop.at_second = kill_shared_worker
    status = 0
    try:
        if isinstance(worker, Worker):
            hello = worker.start(stop.cancel)
            printer.say("; ".join((f"{hello.device_name or hello.device}, torch {hello.torch}", *hello.choices)))
        for wanted in jobs:
            try:
                done = _render(wanted, arguments, worker, stop, printer)
            except RenderError as error:
                printer.clear()
                if len(jobs) == 1:
                    raise _with_advice(error) from error
                print(f"error: {wanted.file}: {_with_advice(error).one_line()}", file=sys.stderr)
                status = status or error.exit_code
                continue
            if done.cancelled:
                return RenderCancelled.exit_code
    finally:
        printer.clear()
        close_shared_worker()
    return status


def _render(
    wanted: Wanted, arguments: argparse.Namespace, worker: ClipRenderer, stop: StopSignal, printer: ProgressPrinter
) -> RenderResult:
    for note in wanted.notes:
        printer.say(f"note: {note}")
    printer.say(f"{wanted.file}: {wanted.model.name}, {wanted.settings.max_frames} frames")
    done = render_wan(
        wanted.settings, arguments.out, worker=worker, model=wanted.model, on_progress=printer, say=printer.say,
        cancel=stop.cancel,
        resume=arguments.resume or bool(arguments.resume_job), timestring=arguments.resume_job,
        source=wanted.source,
    )  # fmt: skip
    for note in done.notes:
        printer.say(f"note: {note}")
    printer.clear()
    shown = f"{done.frames} of {wanted.settings.max_frames} frames" if done.cancelled else f"{done.frames} frames"
    printer.say(f"{shown} in {words_for_seconds(done.seconds)}, seed {done.seed}")
    if done.cancelled:
        print("error: stopped; --resume goes on with this job", file=sys.stderr)
    if done.video or done.frames:
        print(done.video or done.folder, flush=True)
    return done


def _wanted(file: Path, arguments: argparse.Namespace) -> Wanted:
    settings, notes = read_settings(file, arguments)
    folders = model_search_folders()
    return Wanted(file, settings, find_model(settings.model, folders, picture=settings.starts_from_picture), notes)


def read_settings(file: Path, arguments: argparse.Namespace) -> tuple[RenderSettings, list[str]]:
    """A settings file with the changes of the command line.  Raises SettingsError.

    Pictures, sounds, LoRAs and model folders that it names are looked for beside it as well.
    """
    settings, notes = load_settings(file)
    settings = apply_overrides(settings, dict(_change(text) for text in arguments.changes))
    paths = {name: beside(getattr(settings, name), file.parent) for name in ("init_image", "init_video", "soundtrack")}
    images = named_files(settings.init_images, "init_images")
    pictures = {key: beside(path, file.parent) for key, path in images.items()}
    paths["init_images"] = json.dumps(pictures) if pictures else ""
    paths["loras"] = renamed_loras(settings.loras, lambda name: lora_beside(name, file.parent))
    model = arguments.model or settings.model
    if not arguments.model and len(Path(model).parts) > 1:  # a bare word is a model's name first
        model = beside(model, file.parent)
    return replace(settings, **paths, model=model), notes


def _change(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError("is no change of a setting", where="--set", got=text, allowed="KEY=VALUE")
    return key.strip(), value


def _with_advice(error: RenderError) -> DeforumWanError:
    """The same error, ending in how to go on."""
    if "--resume" not in error.one_line():
        error.next_step = "; ".join(filter(None, (error.next_step, "the same command with --resume goes on from here")))
    return error
