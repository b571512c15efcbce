"""Jobs, models and presets as the JSON that pages and programs get."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..checkpoints import ModelInfo, check_report
from ..job_files import JobFiles
from ..job_queue import Job
from ..model_files import PART_TITLES
from ..presets import Preset
from ..settings import FIELDS, settings_from_dict
from ..variants import Variant
from .render_job import THUMBNAIL, task_name

_LONGEST_PROMPT = 160
# kind of a job's file -> (what its name ends in, media type)
SUFFIXES = {
    "video": (".mp4", "video/mp4"),
    "gif": (".gif", "image/gif"),
    "subtitles": (".srt", "text/plain; charset=utf-8"),
    "settings": ("_settings.txt", "text/plain; charset=utf-8"),
}
_VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}


def job_brief(job: Job) -> dict[str, Any]:
    """A job as a row of a list."""
    settings = job.settings
    prompts = settings.get("prompts")
    first = next(iter(prompts.values()), "") if isinstance(prompts, dict) else str(prompts or "")
    return {
        "id": job.id,
        "name": job.name,
        "title": job.name or _shortened(first) or f"job {job.id}",
        "state": job.state,
        "paused": job.state == "interrupted" and job.error_kind == "paused",
        "stopping": job.stop if job.state == "running" else "",
        "error": {"kind": job.error_kind, "message": job.error} if job.error or job.error_kind else None,
        "progress": {name: value for name, value in job.progress.items() if name != "preview"},
        "bookmark": job.bookmark,
        "batch": job.batch,
        "seed": job.seed,
        "attempts": job.attempts,
        "prompt": _shortened(first),
        "prompt_count": len(prompts) if isinstance(prompts, dict) else 1,
        "width": settings.get("W"),
        "height": settings.get("H"),
        "max_frames": settings.get("max_frames"),
        "fps": settings.get("fps"),
        "model": settings.get("model", ""),
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "updated": job.updated,
        "thumbnail": f"jobs/{job.id}/files/thumbnail" if job.thumbnail else "",
        "video": f"jobs/{job.id}/files/video" if job.video else "",
        "task": task_name(job.id) if job.state == "running" else "",
    }


def job_detail(job: Job) -> dict[str, Any]:
    """All about a job.  files: those that exist, each under jobs/<id>/files/<kind>."""
    return {
        **job_brief(job),
        "settings": job.settings,
        "resume": job.resume,
        "folder": job.folder,
        "timestring": job.timestring,
        "files": job_file_list(job),
        "frames": frames_on_disk(job),
        "settings_file": _settings_file(job),
    }


def _settings_file(job: Job) -> str:
    """What continue_from takes to go on from this job, "" while it isn't finished."""
    files = files_of(job) if job.state == "done" else None
    return str(files.settings) if files and files.settings.is_file() else ""


def _shortened(text: str) -> str:
    text = " ".join(text.split("--neg")[0].split())
    return text if len(text) <= _LONGEST_PROMPT else f"{text[: _LONGEST_PROMPT - 3]}..."


# Files


def files_of(job: Job) -> JobFiles | None:
    """Where the job's files lie, None while it has none."""
    return JobFiles(Path(job.folder), job.timestring) if job.folder and job.timestring else None


def job_file(job: Job, kind: str, name: str = "") -> tuple[Path, str] | None:
    """A file of a job and its media type, None for what no job has.

    kind: video, gif, subtitles, settings, preview, thumbnail; frame, with the frame's number as name.
    Paths are made from the job's record alone: nothing of a request becomes part of one but a frame's number.
    """
    files = files_of(job)
    if files is None:
        return None
    if kind == "video" and job.video:
        path = Path(job.video)
        return (path, _VIDEO_TYPES[path.suffix]) if path.suffix in _VIDEO_TYPES else None
    if kind in SUFFIXES:
        suffix, media_type = SUFFIXES[kind]
        return files.result(suffix), media_type
    if kind == "preview":
        return files.preview, "image/jpeg"
    if kind == "thumbnail":
        return files.work / THUMBNAIL, "image/jpeg"
    if kind == "frame" and name.isascii() and name.isdigit() and len(name) <= 9:
        return files.picture(int(name)), "image/png"
    return None


def job_file_list(job: Job) -> list[dict[str, Any]]:
    listed = []
    for kind in ("video", "gif", "subtitles", "settings", "preview", "thumbnail"):
        found = job_file(job, kind)
        if found and found[0].is_file():
            url = f"jobs/{job.id}/files/{kind}"
            listed.append({"kind": kind, "url": url, "name": found[0].name, "size": found[0].stat().st_size})
    return listed


def frames_on_disk(job: Job) -> int:
    """How many output frames there are so far."""
    files = files_of(job)
    return len(files.pictures()) if files else 0


# Models and presets


def model_facts(model: ModelInfo) -> dict[str, Any]:
    """A model for a picker: what it can do, what it lacks and how to get that, and what its empty fields mean."""
    _, report = check_report(model)
    parts = [
        {"title": PART_TITLES[name].removeprefix("the "), "description": part.describe(), "size": part.size,
         "files": [Path(file).name for file in part.files]}
        for name, part in model.parts.items()
    ]  # fmt: skip
    facts = {"parts": parts, "demo": model.variant == "demo", "reference": model.reference}
    return {**report, **facts, **_variant_facts(model)}


def _variant_facts(model: ModelInfo) -> dict[str, Any]:
    if not model.variant:
        return {"defaults": None, "sizes": [], "takes": {}}
    row: Variant = model.row
    return {
        "defaults": dataclasses.asdict(row.defaults),
        "sizes": [list(size) for size in row.sizes],
        "size_multiple": row.size_multiple,
        "native_fps": row.native_fps,
        "window_frames": row.window_frames,
        "takes": {"text": row.text_input, "image": row.image_input, "last_image": row.last_image_input},
    }


def preset_facts(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "description": preset.description,
        "built_in": preset.built_in,
        "settings": preset.settings,
    }


def ours(settings: dict[str, Any]) -> dict[str, Any]:
    """A job's settings by our own names, as a form fills itself from."""
    parsed, _ = settings_from_dict(settings)
    return {name: getattr(parsed, name) for name in FIELDS}
