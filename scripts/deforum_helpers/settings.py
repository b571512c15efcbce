"""RenderSettings: everything that decides a render, checked once, by name.

The fields below are the single source of defaults, ranges, choices and hints: the command line, the tab, the API
and the documentation read FIELDS.  A file is one flat JSON object in Deforum's style; Deforum's own files load.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from . import deforum_files
from .errors import SettingsError
from .settings_fields import Field, Kind, json_object, named_files

__all__ = [
    "FIELDS",
    "Field",
    "RenderSettings",
    "apply_overrides",
    "load_settings",
    "settings_from_dict",
    "settings_to_dict",
    "settings_to_text",
]

_LARGEST_FILE = 8 * 1024 * 1024
_PROMPTS, _VIDEO, _SAMPLING, _CHAIN = "Prompts", "Video", "Sampling", "Continuity"
_CAMERA, _OUTPUT, _MACHINE = "Camera", "Output", "Machine"
_SEED_MAX = 2**32 - 1
_SOLVERS = ("", "unipc", "dpm++", "euler")
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def _about(kind: Kind, group: str, default: Any, hint: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "group": group, "default": default, "hint": hint, **more}


def _field(kind: Kind, group: str, default: Any, hint: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata=_about(kind, group, default, hint, **more))


@dataclass(frozen=True)
class RenderSettings:
    """The settings of one render.  Raises SettingsError, naming the field, for a value that can't be used.

    Schedules are kept as the text they were given; "" means the model's own default.
    """

    prompts: dict[str, str] = dataclasses.field(default_factory=dict, metadata=_about(
        "prompts", _PROMPTS, {},
        'What the video shows from which frame on: {"0": "a red ball at sea --neg blurry", "max_f/2": "..."}.',
        deforum=("prompts", "animation_prompts"),
    ))  # fmt: skip
    positive_prompt: str = _field(
        "text", _PROMPTS, "", "Put in front of every prompt.",
        deforum=("positive_prompts", "animation_prompts_positive"),
    )  # fmt: skip
    negative_prompt: str = _field(
        "text", _PROMPTS, "", "Put behind every negative prompt; empty means the model's own.",
        deforum=("negative_prompts", "animation_prompts_negative"),
    )  # fmt: skip
    prompt_travel: str = _field(
        "choice", _PROMPTS, "hard", choices=("hard", "blend", "relay"),
        hint="How a prompt comes in: hard: with a clip of its own; blend: its meaning fades in; relay: both speak.",
    )  # fmt: skip
    prompt_travel_frames: str = _field(
        "schedule", _PROMPTS, "0: (16)", "For blend and relay: frames from a prompt's keyframe on; 0: up to the next.",
        minimum=0, maximum=1_000_000,
    )  # fmt: skip
    prompt_travel_schedule: str = _field(
        "schedule", _PROMPTS, "", 'Changes the way from keyframe to keyframe: 0: ("blend"), 48: ("hard").',
    )  # fmt: skip
    width: int = _field(
        "int", _VIDEO, 832, "Width of the video in pixels.", minimum=16, maximum=4096, multiple=16, deforum=("W",)
    )
    height: int = _field(
        "int", _VIDEO, 480, "Height of the video in pixels.", minimum=16, maximum=4096, multiple=16, deforum=("H",)
    )
    max_frames: int = _field(
        "int", _VIDEO, 81, "How many frames the video has, exactly.", minimum=1, maximum=1_000_000,
        deforum=("max_frames",),
    )  # fmt: skip
    fps: float = _field(
        "float", _VIDEO, 16.0, "Frames a second of the video.", minimum=0, maximum=240, above_minimum=True,
        deforum=("fps",),
    )  # fmt: skip
    motion: str = _field(
        "choice", _VIDEO, "model", choices=("model", "output"),
        hint="model: generate at the model's own rate and retime to fps; output: generate every frame of the video.",
    )  # fmt: skip
    model: str = _field(
        "path", _SAMPLING, "", "Name or folder of the model; empty means the first one found, else the demo."
    )
    seed: int = _field(
        "int", _SAMPLING, -1, "Decides all noise; -1 takes a fresh one, which is recorded.",
        minimum=-1, maximum=_SEED_MAX, deforum=("seed",),
    )  # fmt: skip
    seed_behavior: str = _field(
        "choice", _SAMPLING, "iter", "How the seed goes on from clip to clip.",
        choices=("iter", "fixed", "random", "ladder", "alternate", "schedule"), deforum=("seed_behavior",),
    )  # fmt: skip
    seed_iter_n: int = _field(
        "int", _SAMPLING, 1, "For iter: how many clips keep one seed.", minimum=1, maximum=1_000_000,
        deforum=("seed_iter_N",),
    )  # fmt: skip
    seed_schedule: str = _field(
        "schedule", _SAMPLING, "0: (s)", "For schedule: the seed at a clip's start; -1 is a random one.",
        minimum=-1, maximum=_SEED_MAX, deforum=("seed_schedule",),
    )  # fmt: skip
    guidance_scale: str = _field(
        "schedule", _SAMPLING, "", "How closely the prompt is followed; 1 leaves out the negative prompt.",
        minimum=0, maximum=100, deforum=("cfg_scale_schedule",),
    )  # fmt: skip
    num_inference_steps: str = _field(
        "schedule", _SAMPLING, "", "Sampling steps of a clip; more take longer and show finer detail.",
        minimum=1, maximum=1000, deforum=("steps_schedule", "steps"),
    )  # fmt: skip
    shift: str = _field(
        "schedule", _SAMPLING, "", "Bends the noise levels; higher spends more steps on layout and motion.",
        minimum=0.01, maximum=100,
    )  # fmt: skip
    loras: str = _field(
        "text", _SAMPLING, "",
        "LoRA files, one a line: NAME = strength, a number or a schedule over the clips.",
    )
    solver: str = _field(
        "choice", _SAMPLING, "", "The solver that integrates the flow.", choices=_SOLVERS, deforum=("sampler",)
    )
    solver_schedule: str = _field(
        "schedule", _SAMPLING, "", 'Changes the solver from clip to clip: 0: ("euler"), 48: ("unipc").',
        deforum=("sampler_schedule",),
    )  # fmt: skip
    guidance_mode: str = _field(
        "choice", _SAMPLING, "cfg", choices=("cfg", "cfg-zero"),
        hint="cfg: as published; cfg-zero: the negative part is fitted first (CFG-Zero*), which changes the picture.",
    )  # fmt: skip
    strength: str = _field(
        "schedule", _CHAIN, "0: (1.0)", "How firmly a clip goes on from the one before: 1 entirely, 0 is a hard cut.",
        minimum=0, maximum=1, deforum=("strength_schedule",),
    )  # fmt: skip
    continuity: str = _field(
        "choice", _CHAIN, "auto", choices=("auto", "latents", "joint", "frames", "image", "cut"),
        hint="What a clip starts from: latents, frames or a frame of the former one; joint: by several windows.",
    )  # fmt: skip
    context_frames: int = _field(
        "int", _CHAIN, 0, "Frames of the former clip that a clip goes on from, 4 to a latent; 0 suits the model.",
        minimum=0, maximum=400,
    )  # fmt: skip
    overlap_frames: int = _field(
        "int", _CHAIN, 0, "Frames over which a clip cross-fades out of the former one; adds none to the video.",
        minimum=0, maximum=64,
    )  # fmt: skip
    prefix_noise: float = _field(
        "float", _CHAIN, 0.6, minimum=0, maximum=1,
        hint="Share of a step's noise under which plain text-to-video models see the former clip; less holds firmer.",
    )  # fmt: skip
    window_frames: int = _field(
        "int", _CHAIN, 0, "Frames generated at once; 0 is what the model was trained on.",
        minimum=0, maximum=1025, multiple=4, remainder=1,
    )  # fmt: skip
    joint_windows: int = _field(
        "int", _CHAIN, 4, "For joint: how many windows form one clip.", minimum=2, maximum=64,
    )  # fmt: skip
    loop: bool = _field(
        "bool", _CHAIN, False, "The last frame flows into the first; text-to-video models take no hard switch for it."
    )
    colour: str = _field(
        "choice", _CHAIN, "keep", choices=("keep", "free"),
        hint="keep: a shot's colours are held to those of its first clip; free: they may drift from clip to clip.",
    )  # fmt: skip
    animation_mode: str = _field(
        "choice", _CAMERA, "2D", choices=("2D", "3D"), deforum=("animation_mode",),
        hint="2D: shift, turn and zoom the picture.  3D: move and turn a camera before it, as before a wall.",
    )  # fmt: skip
    zoom: str = _field(
        "schedule", _CAMERA, "0: (1)", "2D: magnification per frame; 1.02 comes nearer by 2 % a frame.",
        minimum=0.1, maximum=10, deforum=("zoom",),
    )  # fmt: skip
    angle: str = _field(
        "schedule", _CAMERA, "0: (0)", "2D: degrees per frame that the picture turns counter-clockwise.",
        minimum=-180, maximum=180, deforum=("angle",),
    )  # fmt: skip
    translation_x: str = _field(
        "schedule", _CAMERA, "0: (0)",
        "2D: pixels per frame that the picture moves right.  3D: units that the camera moves right, 200 to the wall.",
        minimum=-10_000, maximum=10_000, deforum=("translation_x",),
    )  # fmt: skip
    translation_y: str = _field(
        "schedule", _CAMERA, "0: (0)",
        "2D: pixels per frame that the picture moves down.  3D: units that the camera moves up.",
        minimum=-10_000, maximum=10_000, deforum=("translation_y",),
    )  # fmt: skip
    translation_z: str = _field(
        "schedule", _CAMERA, "0: (0)", "3D: units per frame that the camera moves forward; 2 come nearer by 1 %.",
        minimum=-10_000, maximum=10_000, deforum=("translation_z",),
    )  # fmt: skip
    rotation_3d_x: str = _field(
        "schedule", _CAMERA, "0: (0)", "3D: degrees per frame that the camera tilts up.", minimum=-90, maximum=90,
        deforum=("rotation_3d_x",),
    )  # fmt: skip
    rotation_3d_y: str = _field(
        "schedule", _CAMERA, "0: (0)", "3D: degrees per frame that the camera pans right.", minimum=-90, maximum=90,
        deforum=("rotation_3d_y",),
    )  # fmt: skip
    rotation_3d_z: str = _field(
        "schedule", _CAMERA, "0: (0)", "3D: degrees per frame that the camera rolls clockwise.", minimum=-90,
        maximum=90, deforum=("rotation_3d_z",),
    )  # fmt: skip
    fov: str = _field(
        "schedule", _CAMERA, "0: (70)", "3D: the camera's field of view in degrees, from top to bottom.",
        minimum=1, maximum=170, deforum=("fov_schedule", "fov"),
    )  # fmt: skip
    transform_center_x: str = _field(
        "schedule", _CAMERA, "0: (0.5)", "2D: where the picture turns and zooms, 0 its left edge, 1 its right.",
        minimum=-10, maximum=10, deforum=("transform_center_x",),
    )  # fmt: skip
    transform_center_y: str = _field(
        "schedule", _CAMERA, "0: (0.5)", "2D: where the picture turns and zooms, 0 its top, 1 its bottom.",
        minimum=-10, maximum=10, deforum=("transform_center_y",),
    )  # fmt: skip
    border: str = _field(
        "choice", _CAMERA, "replicate", choices=("replicate", "reflect", "wrap"), deforum=("border",),
        hint="What comes in at an edge: the edge's pixels, the mirrored picture, or the picture's other side.",
    )  # fmt: skip
    camera_strength: str = _field(
        "schedule", _CAMERA, "",
        "How much is kept of the moved pictures: 1 all; 0.7 draws them over with the last 30 % of the steps.",
        minimum=0, maximum=1,
    )  # fmt: skip
    init_image: str = _field(
        "path", _CHAIN, "", "A picture that is the first frame; needs a model that takes one.", deforum=("init_image",)
    )
    init_images: str = _field(
        "files", _CHAIN, "",
        'Pictures that the video shows at given frames: {"0": "a.png", "max_f/2": "b.png"}; some models glide there.',
        deforum=("init_images",),
    )  # fmt: skip
    init_video: str = _field(
        "path", _CHAIN, "", "A video file that this video is drawn over, moment by moment.",
        deforum=("video_init_path",),
    )  # fmt: skip
    video_strength: str = _field(
        "schedule", _CHAIN, "0: (0.5)",
        "How much is kept of init_video: 0.5 draws it over with the last half of the steps, 0 leaves it out.",
        minimum=0, maximum=1,
    )  # fmt: skip
    extract_from_frame: int = _field(
        "int", _CHAIN, 0, "The frame of init_video that this video begins at.", minimum=0, maximum=10_000_000,
        deforum=("extract_from_frame",),
    )  # fmt: skip
    extract_to_frame: int = _field(
        "int", _CHAIN, -1, "The last frame of init_video that is used; -1 is its end.", minimum=-1, maximum=10_000_000,
        deforum=("extract_to_frame",),
    )  # fmt: skip
    extract_nth_frame: int = _field(
        "int", _CHAIN, 0, minimum=0, maximum=1000, deforum=("extract_nth_frame",),
        hint="0: init_video in its own time; N: each frame takes the N-th next one of it, whatever the rates.",
    )  # fmt: skip
    continue_from: str = _field(
        "path", _CHAIN, "",
        "The settings file of a finished job, <timestring>_settings.txt: this video begins where that one ends.",
    )  # fmt: skip
    batch_name: str = _field(
        "text", _OUTPUT, "Deforum_{timestring}", "The folder of the results.",
        pattern=r'(?!\.)[^/\\:*?"<>|\x00-\x1f]{1,120}', deforum=("batch_name",),
        pattern_words='1 to 120 characters without / \\ : * ? " < > | and not starting with a dot',
    )  # fmt: skip
    codec: str = _field("choice", _OUTPUT, "libx264", "The video codec.", choices=("libx264", "libx265"))
    crf: int = _field(
        "int", _OUTPUT, 17, "Quality of the video file: lower is better and larger.", minimum=0, maximum=51,
        deforum=("crf", "ffmpeg_crf"),
    )  # fmt: skip
    ffmpeg_preset: str = _field(
        "choice", _OUTPUT, "medium", "How long the encoder may search for a smaller file.", choices=_PRESETS,
        deforum=("ffmpeg_preset",),
    )  # fmt: skip
    skip_video_creation: bool = _field(
        "bool", _OUTPUT, False, "Write the pictures only.", deforum=("skip_video_creation",)
    )
    make_gif: bool = _field("bool", _OUTPUT, False, "Write a GIF as well.", deforum=("make_gif",))
    make_srt: bool = _field("bool", _OUTPUT, True, "Write the prompts as subtitles.")
    delete_imgs: bool = _field(
        "bool", _OUTPUT, False, "Delete the pictures once the video is made.", deforum=("delete_imgs",)
    )
    soundtrack: str = _field(
        "path", _OUTPUT, "", "A sound file on this machine, put under the video.", deforum=("soundtrack_path",)
    )
    device: str = _field(
        "text", _MACHINE, "auto", "Where the model runs.", pattern=r"auto|cpu|mps|cuda(:[0-9]{1,3})?",
        pattern_words="auto, cpu, cuda, cuda:N, mps",
    )  # fmt: skip
    dtype: str = _field(
        "choice", _MACHINE, "auto", "The precision it runs in.", choices=("auto", "bfloat16", "float16", "float32")
    )
    memory: str = _field(
        "choice", _MACHINE, "auto", choices=("auto", "resident", "tiled", "offload"),
        hint="What is on the GPU at once: all; decoding by tiles; the backbone block by block; auto sees what fits.",
    )  # fmt: skip
    weights_dtype: str = _field(
        "choice", _MACHINE, "auto", choices=("auto", "fp8", "fp8-matmul"),
        hint="fp8: half the memory; fp8-matmul: faster too, from RTX 40 on. They change the picture slightly.",
    )  # fmt: skip
    attention: str = _field(
        "choice", _MACHINE, "auto", choices=("auto", "sage"),
        hint="auto: the fastest exact one; sage: SageAttention, if installed, which changes the picture slightly.",
    )  # fmt: skip
    compile: bool = _field(
        "bool", _MACHINE, False, "Compile the backbone's blocks: a minute once, then faster steps on GPUs."
    )
    step_cache: float = _field(
        "float", _MACHINE, 0.0, minimum=0, maximum=1,
        hint="Guesses steps that change little: 0.1 saves half of 40 and changes the picture slightly; 0: none.",
    )  # fmt: skip
    extra: dict[str, Any] = dataclasses.field(default_factory=dict, metadata=_about(
        "extra", _MACHINE, {}, "What a loaded file held that has no meaning here; kept.",
    ))  # fmt: skip

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            object.__setattr__(self, name, field.check(getattr(self, name)))
        if taken := sorted(deforum_files.reserved_names(FIELDS) & set(self.extra)):
            raise SettingsError("holds a field that has a meaning", where="extra", got=taken[0])


    def files(self) -> list[tuple[str, str]]:
        """(field, path) of every file or folder that is named."""
        named = [(name, getattr(self, name)) for name, field in FIELDS.items() if field.kind == "path"]
        for name, field in FIELDS.items():
            if field.kind == "files":
                named += [(name, path) for path in named_files(getattr(self, name), name).values()]
        return [(name, path) for name, path in named if path]

    @property
    def starts_from_picture(self) -> bool:
        """Whether pictures are given, so that the model must be one that takes them."""
        return bool(self.init_image or self.init_images)


FIELDS: dict[str, Field] = {
    field.name: Field(name=field.name, **field.metadata) for field in dataclasses.fields(RenderSettings)
}


def load_settings(path: str | Path) -> tuple[RenderSettings, list[str]]:
    """Read a settings file, ours or Deforum's.

    Returns the settings and notes on what was mended, mapped or has no meaning here.  Raises SettingsError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SettingsError(f"can't be read ({error.strerror})", where=str(path)) from error
    if len(data) > _LARGEST_FILE:
        raise SettingsError(f"is larger than {_LARGEST_FILE} bytes, so no settings file", where=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"is not UTF-8 text (byte {error.start})", where=str(path), next_step="save it as UTF-8"
        ) from None
    raw, notes = json_object(text, str(path))
    settings, more = settings_from_dict(raw)
    return settings, notes + more


def settings_from_dict(raw: Mapping[str, Any]) -> tuple[RenderSettings, list[str]]:
    """Read settings by our names or Deforum's; what is missing or null takes its default.

    Returns the settings and notes.  Raises SettingsError.
    """
    values, extra, notes = deforum_files.translate(raw, FIELDS)
    given = {name: _given(FIELDS[name], value) for name, value in values.items() if value is not None}
    return RenderSettings(**given, extra=extra), notes


def settings_to_dict(settings: RenderSettings) -> dict[str, Any]:
    """One flat object in Deforum's style that settings_from_dict reads back equal."""
    values = {name: getattr(settings, name) for name in FIELDS if name != "extra"}
    return {**deforum_files.untranslate(values, FIELDS), **settings.extra}


def settings_to_text(settings: RenderSettings) -> str:
    """The contents of a settings file, ending in a line break."""
    return json.dumps(settings_to_dict(settings), ensure_ascii=False, indent=4, allow_nan=False) + "\n"


def apply_overrides(settings: RenderSettings, overrides: Mapping[str, Any]) -> RenderSettings:
    """Replace single fields, by our names or Deforum's.

    overrides: text is read by the field's kind, as `--set key=value` needs it; other values are taken as they
    are.  Raises SettingsError for an unknown name or a value that can't be used.
    """
    names = deforum_files.names_of_fields(FIELDS)
    changes: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in names:
            near = get_close_matches(key, names, 1, cutoff=0.5)
            raise SettingsError("unknown setting", where=key, next_step=f"did you mean {near[0]}?" if near else "")
        name = names[key]
        if name == "solver" and isinstance(value, str):
            value = deforum_files.solver_for(value) or value
        changes[name] = _given(FIELDS[name], value)
    return dataclasses.replace(settings, **changes)


def _given(field: Field, value: Any) -> Any:
    return field.parse(value) if isinstance(value, str) else field.check(value)
