"""Deforum's settings files: its names and ours, its switches, its samplers.

Some of its values count only under a switch (init_image under use_init ...); where the switch is off they are left
out.  What has no meaning here is kept in `extra`, goes back into every file written, and is named in the notes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import first_few
from .settings_fields import Field, prompts_from_json

# Its samplers, in lower case, and the solver nearest to each.  An ancestral sampler adds noise on the way, which
# a flow has no use for: its plain form stands in.  DDIM on a straight flow is Euler's method.
SAMPLERS = {
    "unipc": "unipc", "uni_pc": "unipc", "euler": "euler", "euler a": "euler", "ddim": "euler", "dpm++": "dpm++",
    "dpm++ 2m": "dpm++", "dpm++ 2m karras": "dpm++", "dpm++ 2m sde": "dpm++", "dpm++ 2m sde karras": "dpm++",
    "dpm++ 2m sde exponential": "dpm++", "dpm++ 2m sde heun": "dpm++", "dpm++ sde": "dpm++",
    "dpm++ sde karras": "dpm++", "dpm++ 3m sde": "dpm++", "dpm++ 3m sde karras": "dpm++",
    "dpm++ 2s a": "dpm++", "dpm++ 2s a karras": "dpm++",
}  # fmt: skip

_SWITCHES = ("use_init", "use_looper", "enable_steps_scheduling", "enable_sampler_scheduling", "add_soundtrack")
# What moves its camera, and what of that has no counterpart here.
_CAMERA = (
    "angle", "zoom", "translation_x", "translation_y", "translation_z", "rotation_3d_x", "rotation_3d_y",
    "rotation_3d_z",
)  # fmt: skip
_FLIPS = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
# What a user would miss most, with what to do instead; noted only where it is switched on.
_INSTEAD = {
    "frame_interpolation_engine": "frames are retimed to fps instead",
    "parseq_manifest": "write its values as schedules",
    "resume_from_timestring": "use --resume",
    "override_settings_with_file": "each file is a job of its own",
}
_COHERENT = ([], ["NONE"], ["LAB"], ["HSV"], ["RGB"])  # others match a picture or a video of one's own
_MOST_NAMED = 12


def names_of_fields(fields: Mapping[str, Field]) -> dict[str, str]:
    """Every name that a field goes by, ours and Deforum's -> our name."""
    names = {alias: name for name, field in fields.items() for alias in field.deforum}
    names |= {name: name for name in fields}
    del names["extra"]
    return names


def reserved_names(fields: Mapping[str, Field]) -> set[str]:
    """Names that can't stand in `extra`, because a file read back would take them for a field.

    Deforum's own "strength" (of its init image) can: a file with a strength_schedule keeps it apart.
    """
    return {*names_of_fields(fields), *_SWITCHES, "extra"} - {"strength"}


def solver_for(sampler: str) -> str | None:
    """The solver nearest to a sampler of Deforum, None if there is none."""
    return SAMPLERS.get(" ".join(sampler.lower().split()))


def translate(raw: Mapping[str, Any], fields: Mapping[str, Field]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Sort a file's keys.  Returns values by our names (unchecked), what has no meaning here, and notes."""
    notes: list[str] = []
    nested = raw.get("extra")
    known = {key: value for key, value in raw.items() if key not in ("extra", *_SWITCHES)}
    for key in _switched_off(raw, notes):
        del known[key]
    if "animation_mode" in known and _follows_video(raw):
        _video_terms(known, fields, notes)
    _still_modes(known, notes)
    _colour_coherence(known, notes)
    names = names_of_fields(fields)
    if "strength_schedule" in known:
        del names["strength"]  # the file's own "strength" is that of Deforum's init image
    values: dict[str, Any] = {}
    shadowed: list[str] = []
    for name in dict.fromkeys(names.values()):
        aliases = [alias for alias in (name, *fields[name].deforum) if alias in names and known.get(alias) is not None]
        if aliases:
            values[name] = known[aliases[0]]
            shadowed += [alias for alias in aliases[1:] if known[alias] != values[name]]
    if shadowed:
        notes.append(f"left out, because the same is given under another name: {', '.join(shadowed)}")
    if isinstance(values.get("prompts"), str):
        values["prompts"], twice = prompts_from_json(values["prompts"])
        notes += twice
    if "solver" in values and known.get("solver") is None:
        values["solver"] = _solver(values["solver"], notes)
    extra = {key: value for key, value in known.items() if key not in names}
    if isinstance(nested, Mapping):
        extra |= nested
    return values, extra, notes + _notes_on(extra)


def untranslate(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Our values under Deforum's names, where it has one, with its switches set to suit."""
    written: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as Deforum writes it; read back, a float field makes it a float again
        if name == "num_inference_steps":
            written |= _steps(value)
            continue
        if name == "init_image":
            written["use_init"] = bool(value)
        elif name == "init_images":
            written["use_looper"] = bool(value)
        elif name == "soundtrack":
            written["add_soundtrack"] = "File" if value else "None"
        elif name == "solver_schedule":
            written["enable_sampler_scheduling"] = bool(value)
        elif name == "init_video":  # Deforum's name counts under one animation mode alone
            written[name] = value
            continue
        written[(*fields[name].deforum, name)[0]] = value
    return written


def _follows_video(raw: Mapping[str, Any]) -> bool:
    """Whether Deforum would draw over the file's video; every file of its names one."""
    return str(raw.get("animation_mode", "Video Input")).lower() == "video input" and bool(raw.get("video_init_path"))


def _video_terms(known: dict[str, Any], fields: Mapping[str, Field], notes: list[str]) -> None:
    """In Deforum's Video Input mode strength is how much is kept of the video, not of the frame before."""
    if "strength_schedule" in known and "video_strength" not in known:
        known["video_strength"] = known["strength_schedule"]
        known["strength_schedule"] = fields["strength"].default
        notes.append("strength_schedule: says here how much is kept of the video, so it becomes video_strength")


def _still_modes(known: dict[str, Any], notes: list[str]) -> None:
    """Deforum's animation modes without a camera (None, Interpolation, Video Input) become 2D with one that rests."""
    mode = known.get("animation_mode")
    if isinstance(mode, str) and mode.lower() not in ("2d", "3d"):
        still = [key for key in _CAMERA if known.pop(key, None) is not None]
        del known["animation_mode"]
        notes.append(f"animation_mode: {mode[:40]} moves no camera; left out: {_listed(still) or 'nothing'}")


def _colour_coherence(known: dict[str, Any], notes: list[str]) -> None:
    """Deforum matches every frame's colours to the first one's, in a space of one's choice; here each clip's are."""
    way = known.get("color_coherence")
    if "colour" in known or not isinstance(way, str) or way.upper().split()[-1:] not in _COHERENT:
        return
    del known["color_coherence"]
    known["colour"] = "free" if way.lower() in ("", "none") else "keep"
    if known["colour"] == "keep":
        notes.append(f"color_coherence: {way[:40]} becomes colour: keep, by clip and not by frame")


def _steps(text: str) -> dict[str, Any]:
    if re.fullmatch(r"[1-9][0-9]{0,8}", text):
        return {"enable_steps_scheduling": False, "steps": int(text)}
    return {"enable_steps_scheduling": bool(text), "steps_schedule": text}


def _switched_off(raw: Mapping[str, Any], notes: list[str]) -> list[str]:
    """The keys that a switch of the file puts out of use; those with a value are noted."""
    track = raw.get("add_soundtrack", "File")
    without = {
        "init_image": not raw.get("use_init", True),
        "init_images": not raw.get("use_looper", True),
        "soundtrack_path": track is not True and str(track).lower() != "file",
        "sampler_schedule": not raw.get("enable_sampler_scheduling", True),
        "steps_schedule": not raw.get("enable_steps_scheduling", "steps" not in raw),
        "video_init_path": not _follows_video(raw),
    }
    off = [key for key, is_off in without.items() if is_off and key in raw]
    if named := [key for key in off if raw[key]]:
        notes.append(f"switched off in the file, so left out: {', '.join(named)}")
    if str(track).lower() == "init video":
        notes.append("add_soundtrack: no sound is taken from the init video; give it as soundtrack_path as well")
    return off


def _solver(sampler: Any, notes: list[str]) -> str:
    if sampler == "":
        return ""
    solver = solver_for(sampler) if isinstance(sampler, str) else None
    if solver is None:
        notes.append(f"sampler: {sampler!r} has no counterpart here; the model's own solver is used")
    elif solver != sampler:
        notes.append(f"sampler: {sampler!r} becomes the solver {solver}")
    return solver or ""


def _notes_on(extra: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{key}: not used here; {instead}"
        for key, instead in _INSTEAD.items()
        if extra.get(key) and str(extra[key]).lower() not in ("none", "false")
    ]
    if extra.get("enable_perspective_flip"):
        notes.append(f"the perspective can't be flipped here; kept: {_listed(_FLIPS)}")
    others = [key for key in extra if key not in _FLIPS]
    if others:
        notes.append(f"no meaning here, kept in the file: {_listed(others)}")
    return notes


def _listed(names: Collection[str]) -> str:
    return first_few(names, _MOST_NAMED)
