"""Where each field of the settings stands in the tab, and what it is called there.

Kinds, ranges, defaults and hints are those of settings.FIELDS; a test holds that every field stands here once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..settings import FIELDS


@dataclass(frozen=True)
class Section:
    """A part of the form.  open: shown from the start; else behind its title, which says what is in it.

    A part without fields doesn't appear.
    """

    id: str
    title: str
    about: str
    fields: tuple[str, ...]
    open: bool = False


SECTIONS = (
    Section("prompts", "Prompts", "", ("prompts", "positive_prompt", "negative_prompt"), open=True),
    Section(
        "basics", "Video and sampling", "",
        ("width", "height", "max_frames", "fps", "seed", "seed_behavior", "seed_iter_n", "solver", "model"), open=True,
    ),
    Section(
        "schedules", "Schedules", "values that change over the frames",
        ("num_inference_steps", "guidance_scale", "shift", "strength", "solver_schedule", "seed_schedule"),
    ),
    Section(
        "travel", "Prompt travel", "how one prompt gives way to the next",
        ("prompt_travel", "prompt_travel_frames", "prompt_travel_schedule"),
    ),
    Section(
        "continuity", "Continuity", "how a clip goes on from the one before",
        ("continuity", "motion", "context_frames", "overlap_frames", "prefix_noise", "window_frames",
         "joint_windows", "loop", "colour"),
    ),
    Section(
        "images", "Images and video in", "a first picture, a video to draw over, a job to go on from",
        (
            "init_image", "init_images", "init_video", "video_strength", "extract_from_frame", "extract_to_frame",
            "extract_nth_frame", "continue_from",
        ),
    ),
    Section("lora", "LoRA", "weights added to the model's", ("loras",)),
    Section(
        "camera", "Camera", "the picture moves as in Deforum: zoom, pan, turn",
        (
            "animation_mode", "zoom", "angle", "translation_x", "translation_y", "translation_z", "rotation_3d_x",
            "rotation_3d_y", "rotation_3d_z", "fov", "transform_center_x", "transform_center_y", "border",
            "camera_strength",
        ),
    ),
    Section(
        "output", "Output", "folder, codec, sound, subtitles, GIF",
        (
            "batch_name", "codec", "crf", "ffmpeg_preset", "soundtrack", "make_srt", "make_gif", "skip_video_creation",
            "delete_imgs",
        ),
    ),
    Section(
        "machine", "Memory and speed", "where the model runs, how precisely, and what may be saved",
        ("device", "dtype", "memory", "weights_dtype", "attention", "compile", "step_cache", "guidance_mode"),
    ),
)  # fmt: skip

# Schedules that also stand among the basics, as a plain number until someone schedules them.
PLAIN_NUMBERS = ("num_inference_steps", "guidance_scale", "shift")

# What the page doesn't show: it keeps what a loaded file held besides.
UNSEEN = ("extra",)

LABELS = {
    "prompts": "Prompts",
    "positive_prompt": "Always in front",
    "negative_prompt": "Always behind the negative",
    "prompt_travel": "Prompts switch",
    "prompt_travel_frames": "Over frames",
    "prompt_travel_schedule": "Switch schedule",
    "width": "Width",
    "height": "Height",
    "max_frames": "Frames",
    "fps": "fps",
    "motion": "Motion",
    "model": "Model",
    "seed": "Seed",
    "seed_behavior": "Seed behaviour",
    "seed_iter_n": "Clips per seed",
    "seed_schedule": "Seed schedule",
    "guidance_scale": "Guidance",
    "num_inference_steps": "Steps",
    "shift": "Shift",
    "loras": "LoRA files",
    "solver": "Solver",
    "solver_schedule": "Solver schedule",
    "strength": "Strength",
    "continuity": "Continuity",
    "context_frames": "Context frames",
    "overlap_frames": "Overlap frames",
    "prefix_noise": "Noise on the former clip",
    "window_frames": "Window frames",
    "joint_windows": "Windows made together",
    "loop": "Loop",
    "colour": "Colours",
    "init_image": "Init image",
    "init_images": "Keyframe images",
    "init_video": "Init video",
    "video_strength": "Video strength",
    "extract_from_frame": "Video from frame",
    "extract_to_frame": "Video to frame",
    "extract_nth_frame": "Every n-th frame of it",
    "animation_mode": "Camera in",
    "zoom": "Zoom",
    "angle": "Angle",
    "translation_x": "Translation x",
    "translation_y": "Translation y",
    "translation_z": "Translation z",
    "rotation_3d_x": "Rotation x",
    "rotation_3d_y": "Rotation y",
    "rotation_3d_z": "Rotation z",
    "fov": "Field of view",
    "transform_center_x": "Centre x",
    "transform_center_y": "Centre y",
    "border": "Border",
    "camera_strength": "Camera strength",
    "continue_from": "Continue a job",
    "batch_name": "Batch name",
    "codec": "Codec",
    "crf": "crf",
    "ffmpeg_preset": "Encoder preset",
    "skip_video_creation": "Pictures only, no video",
    "make_gif": "GIF",
    "make_srt": "Subtitles",
    "delete_imgs": "Delete the pictures afterwards",
    "soundtrack": "Soundtrack",
    "device": "Device",
    "dtype": "Precision",
    "memory": "Memory",
    "weights_dtype": "Weights",
    "attention": "Attention",
    "compile": "Compile",
    "step_cache": "Step cache",
    "guidance_mode": "Guidance mode",
}

# What the tab shows when it is opened for the first time: something that every model, the demo too, can follow.
FIRST_PROMPTS = {
    "0": "a red balloon drifts to the right over the sea during the day",
    "41": "a red balloon drifts to the right over the sea at sunset",
}


def layout_facts() -> dict[str, Any]:
    """The layout as the page code gets it."""
    return {
        "sections": [asdict(section) for section in SECTIONS if section.fields],
        "labels": {name: LABELS.get(name, name.replace("_", " ").capitalize()) for name in FIELDS},
        "plain": list(PLAIN_NUMBERS),
        "first_prompts": FIRST_PROMPTS,
    }
