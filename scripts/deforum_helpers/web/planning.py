"""Settings as typed -> what would be rendered, what is wrong with which field, and what it would cost.

A field that can't be used takes its default, so that a page can go on showing the timeline while someone types.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoints import ModelInfo
from ..clips import clip_work
from ..deforum_files import names_of_fields
from ..errors import ModelError, ScheduleError, SettingsError, SetupError
from ..init_video import init_video, notes_on
from ..lead import lead_of
from ..lora_files import used_loras
from ..planning.prompts import prompt_segments
from ..planning.seeds import resolve_seed
from ..preflight import bytes_needed, isolated_ffmpeg
from ..progress import UnitTimes, estimate_seconds, load_times, times_key, words_for_seconds
from ..settings import FIELDS, RenderSettings, settings_from_dict, settings_to_dict
from ..timeline import Clip, Plan, plan
from ..variants import DEMO, VARIANTS, Variant
from ..wan_integration import lora_search_folders
from . import host
from .faults import problem

_MOST_CLIPS, _MOST_POINTS = 2000, 1200
_MOST_ERRORS = 40
_CLIP_FACTS = (
    "index", "shot", "start_frame", "end_frame", "num_frames", "latent_frames", "new_latents", "prompt",
    "negative_prompt", "guidance_scale", "seed", "num_inference_steps", "shift", "strength", "solver", "start",
    "prefix_latents", "carried_frames", "overlap_latents",
)  # fmt: skip
# What a machine that was never measured is taken to do, floating-point operations a second.
_GUESSED_SPEED = {"cuda": 40e12, "mps": 4e12, "cpu": 0.15e12}
_WORKING_MEMORY = 1.2  # of the weights in use: activations, caches, fragments
_BYTES_PER_PIXEL = 320  # that decoding holds at once, for each pixel of a latent's four frames


@dataclass(frozen=True)
class Preview:
    """settings: with defaults in place of what can't be used.  plan: None where nothing can be planned.

    errors: as problem() gives them, those of the settings' fields first.  model: None where it isn't there.
    """

    settings: RenderSettings
    plan: Plan | None
    model: ModelInfo | None
    notes: tuple[str, ...]
    errors: tuple[dict[str, Any], ...]


def preview(
    raw: Mapping[str, Any],
    find: Callable[[RenderSettings], ModelInfo],
    forbidden: Callable[[RenderSettings], list[SettingsError]] = lambda settings: [],
) -> Preview:
    """Read and plan settings, gathering every error instead of stopping at the first.

    find: the model that settings mean; raises ModelError.  forbidden: errors for files that may not be named; they
    aren't even looked for.
    """
    settings, notes, errors = _forgiving(raw)
    for error in forbidden(settings):
        errors.append(problem(error))
        settings = replace(settings, **{error.where: ""})
    model: ModelInfo | None = None
    try:
        model = find(settings)
        variant = model.row
    except ModelError as error:
        errors.append({**problem(error), "field": "model"})
        variant = VARIANTS.get(settings.model.strip(), VARIANTS[DEMO])
    settings, decided, more = _planned(settings, variant)
    more += [problem(error) for error in missing_files(settings)]
    notes += decided.notes if decided else []
    if not any(error["field"] == "init_video" for error in (*errors, *more)):
        try:
            notes += _video_notes(settings)
        except SettingsError as error:
            more.append(problem(error))
    if model and not any(error["field"] == "loras" for error in (*errors, *more)):
        try:
            notes += check_loras(settings, model)
        except SettingsError as error:
            more.append(problem(error))
    return Preview(settings, decided, model, tuple(notes), tuple(errors + more))


def _forgiving(raw: Mapping[str, Any]) -> tuple[RenderSettings, list[str], list[dict[str, Any]]]:
    names = names_of_fields(FIELDS)
    values, errors = dict(raw), []
    while True:
        try:
            settings, notes = settings_from_dict(values)
            return settings, notes, errors
        except SettingsError as error:
            found = problem(error)
            errors.append(found)
            kept = {key: value for key, value in values.items() if names.get(key, key) != found["field"]}
            if len(kept) == len(values) or len(errors) > _MOST_ERRORS:  # not a field's fault: there is no half way
                return RenderSettings(), [], errors
            values = kept


def _planned(settings: RenderSettings, variant: Variant) -> tuple[RenderSettings, Plan | None, list[dict[str, Any]]]:
    errors: list[dict[str, Any]] = []
    while True:
        try:
            return settings, plan(settings, variant, resolve_seed(settings.seed), lead_of(settings)), errors
        except (SettingsError, ScheduleError) as error:
            found = problem(error)
            errors.append(found)
            field = found["field"]
            default = _default_for(field, variant)
            if default is None or getattr(settings, field) == default or len(errors) > _MOST_ERRORS:
                return settings, None, errors
            settings = replace(settings, **{field: default})


def _default_for(field: str, variant: Variant) -> Any:
    """What stands in for a field while it can't be used; None where nothing can."""
    if field in ("width", "height"):
        return getattr(variant.defaults, field)
    if field == "prompts" or field not in FIELDS:
        return None
    return FIELDS[field].default


def preview_to_dict(shown: Preview, cost: Mapping[str, Any] | None) -> dict[str, Any]:
    """The answer that a page draws.  A very long plan is thinned out: its first clips, and points of its curves."""
    return {
        "ok": not shown.errors and shown.plan is not None,
        "errors": list(shown.errors),
        "notes": list(shown.notes),
        "settings": settings_to_dict(shown.settings),
        "model": {"name": shown.model.name, "variant": shown.model.variant} if shown.model else None,
        "plan": _plan_facts(shown.plan) if shown.plan else None,
        "keyframes": _keyframes(shown.settings, shown.plan) if shown.plan else [],
        "estimate": dict(cost) if cost else None,
    }


def _keyframes(settings: RenderSettings, decided: Plan) -> list[dict[str, Any]]:
    """Each key of the prompts that lies inside the video, with the frame that it names."""
    segments, _ = prompt_segments(settings.prompts, "", "", decided.max_frames, decided.seed)
    return [{"key": segment.key, "frame": segment.start_frame} for segment in segments]


def _plan_facts(decided: Plan) -> dict[str, Any]:
    return {
        "fps": decided.fps,
        "max_frames": decided.max_frames,
        "seconds": decided.max_frames / decided.fps,
        "motion_fps": decided.motion_fps,
        "variant": decided.variant,
        "width": decided.width,
        "height": decided.height,
        "seed": decided.seed,
        "shots": decided.clips[-1].shot + 1,
        "clip_count": len(decided.clips),
        "clips": [_clip_facts(clip) for clip in decided.clips[:_MOST_CLIPS]],
        "curves": {name: curve(values) for name, values in decided.schedules.items()},
    }


def _clip_facts(clip: Clip) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in _CLIP_FACTS}


def curve(values: Sequence[float]) -> dict[str, list[float]]:
    """A schedule as points to draw: of a long one, the least and the greatest value of each stretch."""
    count = len(values)
    if count <= _MOST_POINTS:
        return {"frames": list(range(count)), "values": list(values)}
    stretches = _MOST_POINTS // 2
    frames: list[int] = []
    for k in range(stretches):
        stretch = range(k * count // stretches, (k + 1) * count // stretches)
        frames += sorted({min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)})
    frames = sorted({0, *frames, count - 1})
    return {"frames": frames, "values": [values[frame] for frame in frames]}


# What it costs


def estimate(shown: Preview, out_dir: Path, gpu_memory: int = 0) -> dict[str, Any] | None:
    """Time, memory and disk of a planned render.  gpu_memory: of this machine in bytes, 0 = none known.

    seconds_basis: "measured" at this size on this machine, "scaled" from another size, or "guess".
    """
    if shown.plan is None:
        return None
    seconds, basis = _seconds(shown.plan, shown.settings.device, gpu_memory)
    room = bytes_needed(shown.plan, shown.model) if shown.model else 0
    memory = _memory(shown.plan, shown.model) if shown.model else 0
    return {
        "seconds": round(seconds, 1),
        "seconds_text": words_for_seconds(seconds),
        "seconds_basis": basis,
        "seconds_per_clip": round(seconds / len(shown.plan.clips), 1),
        "memory_bytes": memory,
        "memory_basis": "guess",
        "memory_available": gpu_memory,
        "disk_bytes": room,
        "disk_basis": "calculated, at most",
        "disk_free": _free(out_dir),
        "clips": len(shown.plan.clips),
        "steps": sum(clip.num_inference_steps for clip in shown.plan.clips),
    }


def _seconds(decided: Plan, device: str, gpu_memory: int) -> tuple[float, str]:
    work = clip_work(decided)
    if times := load_times(times_key(decided.variant, decided.width, decided.height, device)):
        return estimate_seconds(work, times) or 0.0, "measured"
    variant = VARIANTS[decided.variant]
    for width, height in variant.sizes:
        if times := load_times(times_key(decided.variant, width, height, device)):
            ratio = decided.width * decided.height / (width * height)
            return estimate_seconds(work, UnitTimes(times.step * ratio, times.decode * ratio)) or 0.0, "scaled"
    return sum(_guessed_clip(decided, clip, variant, device, gpu_memory) for clip in decided.clips), "guess"


def _guessed_clip(decided: Plan, clip: Clip, variant: Variant, device: str, gpu_memory: int) -> float:
    """Operations of the backbone over a typical speed, decoding as two steps of it, and a second for the rest."""
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if gpu_memory else "cpu"
    tokens = clip.latent_frames * (decided.width // 16) * (decided.height // 16)
    weights = variant.num_layers * (8 * variant.dim**2 + 2 * variant.dim * variant.ffn_dim)
    one_pass = 2 * weights * tokens + 4 * tokens**2 * variant.dim * variant.num_layers
    passes = 2 if clip.guidance_scale != 1 else 1
    return 1 + (clip.num_inference_steps + 2) * passes * one_pass / _GUESSED_SPEED.get(kind, _GUESSED_SPEED["cpu"])


def _memory(decided: Plan, model: ModelInfo) -> int:
    """The largest of what lies in memory at one time: a part's weights with its activations."""
    parts = [part.size for name, part in model.parts.items() if name != "tokenizer"]
    variant = VARIANTS[decided.variant]
    longest = max(clip.latent_frames for clip in decided.clips)
    tokens = longest * (decided.width // 16) * (decided.height // 16)
    backbone = max((part.size for name, part in model.parts.items() if name.startswith("dit")), default=0)
    sampling = backbone + tokens * (12 * variant.dim + 2 * variant.ffn_dim) * 2
    decoding = (
        model.parts["vae"].size + decided.width * decided.height * _BYTES_PER_PIXEL if "vae" in model.parts else 0
    )
    return int(_WORKING_MEMORY * max(sampling, decoding, *parts))


def _free(folder: Path) -> int:
    """Bytes free where the folder is or will be, 0 if that can't be told."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def check_planned(settings: RenderSettings, find: Callable[[RenderSettings], ModelInfo]) -> list[str]:
    """Plan settings that are about to be queued, and look for their files.  Returns notes.

    Raises the first error.  A model that isn't there (yet) is no reason to refuse: its render will say so.
    """
    notes: list[str] = []
    model: ModelInfo | None = None
    try:
        model = find(settings)
        variant = model.row
    except ModelError as error:
        notes = [f"model: {error.one_line()}"]
        if settings.model.strip() not in VARIANTS:
            return notes  # nothing is known of the model, so nothing can be checked against it
        variant = VARIANTS[settings.model.strip()]
    plan(settings, variant, resolve_seed(settings.seed), lead_of(settings))
    for error in missing_files(settings):
        raise error
    return notes + _video_notes(settings) + (check_loras(settings, model) if model else [])


def _video_notes(settings: RenderSettings) -> list[str]:
    """Look into the init video.  Raises SettingsError.  Without ffmpeg there is nothing to say: its render will."""
    with suppress(SetupError):
        source = init_video(settings, isolated_ffmpeg())
        return notes_on(settings, source) if source else []
    return []


def check_loras(settings: RenderSettings, model: ModelInfo) -> list[str]:
    """Look for the LoRAs and see whether they fit.  Returns notes on what in them doesn't.  Raises SettingsError."""
    used = used_loras(settings, model, lora_search_folders(host.lora_folders()))
    return [f"loras: {lora.note}" for lora in used if lora.note]


def missing_files(settings: RenderSettings) -> list[SettingsError]:
    """An error for each picture or sound that isn't there."""
    return [
        SettingsError("there is no such file", where=name, got=path, next_step="check the path, or leave it empty")
        for name, path in settings.files()
        if name != "model" and path and not Path(path).expanduser().is_file()
    ]
