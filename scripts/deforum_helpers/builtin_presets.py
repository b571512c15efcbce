"""The presets that come with the program: for each purpose, what it means for a model.

A row is a function of the model's row in variants.py; None where the model can't do it.  Every key is a field of
RenderSettings, "" leaves a field to the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .variants import DEMO, Variant

Values = dict[str, Any]

_LONG_TAKE_SECONDS = 30
_LONG_TAKE_LATENTS = 8  # of context; more hold the motion better and leave less of each window for new frames
_FEWEST_STEPS = 8


def _sampling(steps: str = "", guidance: str = "", shift: str = "", solver: str = "") -> Values:
    return {"num_inference_steps": steps, "guidance_scale": guidance, "shift": shift, "solver": solver}


def _size(width: int, height: int) -> Values:
    return {"width": width, "height": height}


def _quick_look(variant: Variant) -> Values:
    smallest = min(variant.sizes, key=lambda size: (size[0] * size[1], size[0] < size[1]))
    steps = max(_FEWEST_STEPS, round(0.4 * variant.defaults.num_inference_steps))
    return {
        **_size(*smallest), **_sampling(steps=str(steps)), "max_frames": variant.window_frames,
        "fps": variant.native_fps, "motion": "model", "ffmpeg_preset": "veryfast", "crf": 20,
    }  # fmt: skip


def _quality(variant: Variant) -> Values:
    defaults = variant.defaults
    return {**_size(defaults.width, defaults.height), **_sampling(), "ffmpeg_preset": "slow", "crf": 14}


def _four_steps(variant: Variant) -> Values | None:
    if variant.name == DEMO:  # nobody distilled it
        return None
    return _sampling(steps="4", guidance="1", shift="5", solver="euler")


def _long_take(variant: Variant) -> Values:
    values: Values = {
        "strength": "0: (1.0)", "continuity": "auto", "context_frames": 0, "overlap_frames": 0, "loop": False,
        "max_frames": round(_LONG_TAKE_SECONDS * variant.native_fps) + 1, "fps": variant.native_fps,
    }  # fmt: skip
    if variant.text_input:  # one that starts from text can go on from latents as well
        window = (variant.window_frames - 1) // 4 + 1
        values |= {"context_frames": 4 * min(_LONG_TAKE_LATENTS, window // 2), "overlap_frames": 4}
    return values


def _loop(variant: Variant) -> Values | None:
    if not (variant.text_input or variant.last_image_input):  # planning/loop.py: neither a ring nor a last frame
        return None
    return {
        "loop": True, "continuity": "auto", "strength": "0: (1.0)", "max_frames": max(variant.window_frames - 1, 48),
        "fps": variant.native_fps, "motion": "model",
    }  # fmt: skip


def _hard_cuts(variant: Variant) -> Values | None:
    if not variant.text_input:  # a clip after a cut has no picture to start from
        return None
    return {"continuity": "cut", "overlap_frames": 0, "seed_behavior": "random", "loop": False}


def _portrait(variant: Variant) -> Values | None:
    upright = [size for size in variant.sizes if size[0] < size[1]]
    return _size(*min(upright, key=lambda size: size[0] * size[1])) if upright else None


# name, what it is good for, what it means for a model
ROWS: tuple[tuple[str, str, Callable[[Variant], Values | None]], ...] = (
    ("Quick look", "One window at the model's smallest size with less than half of the steps.", _quick_look),
    ("Quality", "The model's own size, steps and guidance, and a carefully encoded video.", _quality),
    ("4 steps", "Only for weights distilled to 4 steps, or with a LoRA that is: no guidance.", _four_steps),
    ("Long take", "Half a minute in one continuous motion: much context, soft joins.", _long_take),
    ("Loop", "The end flows into the start; by text-to-video models for one prompt.", _loop),
    ("Hard cuts", "Every keyframe is a cut to a picture of its own.", _hard_cuts),
    ("Portrait", "Upright, for phones.", _portrait),
)
