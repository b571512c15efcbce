"""From settings to a plan: which clips to render, from what, with what, for which output frames.  Pure.

Keyframes are output frames.  A prompt keyframe starts a clip, unless its prompt travels in (planning/travel.py); so
does a frame where strength falls to 0 (a hard cut), and a segment longer than the model's window is divided.  A clip
shows exactly the output frames [start_frame, end_frame); planning/stream.py has the arithmetic of the native frames
behind them.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .deforum_files import solver_for
from .errors import first_few
from .lead import Lead
from .planning.camera import Camera
from .planning.clip_maker import Clip, ClipMaker
from .planning.keyframe_images import check_images, keyframe_images, with_images
from .planning.limits import (
    check_against,
    note_held_schedules,
    note_lost_video,
    note_shared_seeds,
    note_short_tails,
    note_whole_pictures,
    plan_camera,
    plan_native_step,
    plan_window,
    what_is_before,
)
from .planning.loop import check_loop, flowing_back, ring
from .planning.loras import lora_lines, lora_strengths
from .planning.prompts import PromptSegment, prompt_segments
from .planning.stream import Rate, Stretch, chain, never
from .planning.travel import plan_travel
from .schedules import Series, number_schedule, text_schedule
from .settings import FIELDS, RenderSettings
from .variants import Variant

__all__ = ["Clip", "Plan", "native_positions", "plan", "plan_to_dict"]

_SCHEDULED = ("guidance_scale", "strength", "shift", "num_inference_steps", "camera_strength", "video_strength")
_MOST_NAMED = 5


@dataclass(frozen=True)
class Plan:
    """Everything a render does, decided beforehand.

    motion_fps: native frames a second; native_step: native frames per output frame, exactly.
    schedules: term -> one value per output frame.  notes: what was mended or needs to be known.
    camera: what moves the picture, None where nothing does.
    lead_frames: output frames of the first shot that a job before has shown already.
    """

    fps: float
    max_frames: int
    motion_fps: float
    native_step: Fraction
    variant: str
    width: int
    height: int
    seed: int
    clips: tuple[Clip, ...]
    schedules: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)
    lead_frames: int = 0
    camera: Camera | None = None

    def shot_start(self, clip: Clip) -> int:
        """The output frame that the clip's shot starts at; below 0 for one that a job before has begun."""
        if clip.shot == 0:
            return -self.lead_frames
        first = bisect_right(self.clips, clip.shot - 1, key=lambda other: other.shot)
        return self.clips[first].start_frame

    def position(self, clip: Clip, native: int) -> Fraction:
        """Where a native frame of a clip's shot lies, in output frames of the video."""
        return self.shot_start(clip) + native / self.native_step


def plan(settings: RenderSettings, variant: Variant, resolved_seed: int, lead: Lead | None = None) -> Plan:
    """Decide every clip.  resolved_seed: the seed with -1 already replaced, see planning/seeds.py.

    lead: of settings.continue_from, see lead.py.  Raises SettingsError or ScheduleError.
    """
    notes: list[str] = []
    check_against(settings, variant)
    images = keyframe_images(settings, resolved_seed, notes)
    check_images(images, settings, variant)
    segments, more = prompt_segments(
        settings.prompts, settings.positive_prompt, settings.negative_prompt, settings.max_frames, resolved_seed
    )
    notes += more
    series = _schedules(settings, variant, resolved_seed, notes)
    solvers = _solvers(settings, variant, resolved_seed, notes)
    window = plan_window(settings, variant, notes)
    step = plan_native_step(settings, variant, window, notes)
    cuts = series["strength"].values <= 0
    falls = _falls(segments, cuts, notes)
    cuts[[frame for frame in images if frame]] = True  # a picture begins a shot
    is_ring = settings.loop and not variant.last_image_input
    travel = plan_travel(settings, segments, cuts, {*falls, *images}, resolved_seed, notes, ring=is_ring)
    bounds = list(travel.hard)
    if camera := plan_camera(settings, window, resolved_seed, notes):
        bounds = camera.bounds(bounds, least=max(1, Rate.of(step).reach(4)))
    moves = camera.moves if camera else never
    before = what_is_before(lead, settings, variant, window, step, notes, moves=moves(0, bounds[1]))

    def divide(bounds: Sequence[int], step: Fraction) -> list[Stretch]:
        return chain(bounds, lambda frame: bool(cuts[frame]), Rate.of(step), window, before, moves)

    if settings.loop:
        check_loop(settings, variant, travel, bool(cuts[1:].any()), given=bool(images), moves=camera is not None)
    if settings.loop and variant.last_image_input:
        step, stretches = flowing_back(bounds, step, window, divide, images.get(0, ""), notes)
    elif settings.loop:
        step, stretches = ring(settings.max_frames, step, window, notes)
    else:
        stretches = divide(bounds, step)
    if before and stretches[0].kind == "noise":
        notes.append("continue_from: without effect, because strength 0 makes frame 0 a hard cut")
    followed = (series["video_strength"].values > 0) & bool(settings.init_video)
    stretches = with_images(stretches, images, variant, camera, lambda frame: bool(followed[frame]), notes)
    note_short_tails(stretches, window, notes)
    loras, more = lora_strengths(lora_lines(settings.loras), settings.max_frames, resolved_seed)
    notes += more
    maker = ClipMaker(
        settings, variant, resolved_seed, segments, series, solvers, Rate.of(step), window, loras, travel, camera
    )
    clips = tuple(maker.clip(index, stretch) for index, stretch in enumerate(stretches))
    note_whole_pictures(clips, variant, notes)
    if camera and settings.init_video:
        note_lost_video(camera, clips, notes)
    note_shared_seeds(clips, settings, notes)
    steps = np.floor(series["num_inference_steps"].values)
    held = {"num_inference_steps": steps, "shift": series["shift"].values}
    held["solver_schedule"] = solvers
    held |= {f"loras, {name}": strength.values for name, strength in loras.items()}
    if camera:
        held["camera_strength"] = series["camera_strength"].values
    if settings.init_video:
        held["video_strength"] = series["video_strength"].values
    note_held_schedules(clips, held, notes)
    return Plan(
        fps=settings.fps,
        max_frames=settings.max_frames,
        motion_fps=float(step * Fraction(str(settings.fps))),
        native_step=step,
        variant=variant.name,
        width=settings.width,
        height=settings.height,
        seed=resolved_seed,
        clips=clips,
        schedules=_listed(series, clips, settings, camera),
        notes=notes,
        lead_frames=-stretches[0].shot_start,
        camera=camera,
    )


def native_positions(plan: Plan, clip: Clip) -> list[tuple[int, Fraction]]:
    """Where each output frame of a clip lies in its shot's native frames.

    Returns (index, fraction) per output frame, start_frame first: the frame is `fraction` of the way from
    native frame index to index + 1, and needs the latter only if fraction > 0.
    """
    num, den = plan.native_step.numerator, plan.native_step.denominator
    first = plan.shot_start(clip)
    ends = (divmod((frame - first) * num, den) for frame in range(clip.start_frame, clip.end_frame))
    return [(index, Fraction(rest, den)) for index, rest in ends]


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object."""
    names = [entry.name for entry in dataclasses.fields(Clip)]
    written = {entry.name: getattr(plan, entry.name) for entry in dataclasses.fields(Plan)}
    written["native_step"] = [plan.native_step.numerator, plan.native_step.denominator]
    written["clips"] = [{name: getattr(clip, name) for name in names} for clip in plan.clips]
    for clip in written["clips"]:
        clip["guidance"] = list(clip["guidance"])
        clip["loras"] = [list(lora) for lora in clip["loras"]]
        for name in ("prompts", "mixes", "spans"):
            clip[name] = [dataclasses.asdict(part) for part in clip[name]]
    del written["camera"]  # its values are among the schedules
    return written


def _schedules(settings: RenderSettings, variant: Variant, seed: int, notes: list[str]) -> dict[str, Series]:
    defaults = {**{name: getattr(variant.defaults, name, 1.0) for name in _SCHEDULED}, "strength": 1.0}
    names = list(_SCHEDULED)
    if settings.seed_behavior == "schedule":
        names.append("seed_schedule")
        defaults["seed_schedule"] = seed
    series = {}
    for name in names:
        about = FIELDS[name]
        series[name] = number_schedule(
            getattr(settings, name), name, settings.max_frames, seed, default=defaults[name],
            least=about.minimum, most=about.maximum, clamp=name in ("strength", "video_strength"),
        )  # fmt: skip
        notes += series[name].notes
    return series


def _solvers(settings: RenderSettings, variant: Variant, seed: int, notes: list[str]) -> np.ndarray:
    """One solver's name per output frame."""
    if not settings.solver_schedule.strip():
        return np.full(settings.max_frames, settings.solver or variant.defaults.solver)
    words, more = text_schedule(settings.solver_schedule, "solver_schedule", settings.max_frames, seed)
    notes += more
    solvers = []
    for _, word, place in words:
        if (solver := solver_for(word)) is None:
            raise place.error("unknown solver", got=word, allowed=", ".join(filter(None, FIELDS["solver"].choices)))
        solvers.append(solver)
    frames = [frame for frame, _, _ in words]
    return np.array(solvers)[np.searchsorted(frames, np.arange(settings.max_frames), side="right") - 1]


def _falls(segments: list[PromptSegment], cuts: np.ndarray, notes: list[str]) -> list[int]:
    """Frames where strength falls to 0, so that a shot must start."""
    falls = [int(frame) + 1 for frame in np.flatnonzero(cuts[1:] & ~cuts[:-1])]
    starts = {segment.start_frame for segment in segments}
    between = [frame for frame in falls if frame not in starts]
    if between:
        named = first_few(between, _MOST_NAMED)
        notes.append(f"strength: falls to 0 between prompt keyframes, a hard cut at frame {named}")
    return falls


def _listed(
    series: dict[str, Series], clips: tuple[Clip, ...], settings: RenderSettings, camera: Camera | None
) -> dict[str, list[float]]:
    listed: dict[str, list[float]] = {name: series[name].values.tolist() for name in _SCHEDULED}
    if camera:
        listed |= {name: list(values) for name, values in camera.values.items()}
    else:
        del listed["camera_strength"]
    if not settings.init_video:
        del listed["video_strength"]
    listed["num_inference_steps"] = np.floor(series["num_inference_steps"].values).astype(int).tolist()
    if settings.seed_behavior == "schedule":
        seeds = np.floor(series["seed_schedule"].values).astype(np.int64)
    else:
        seeds = np.repeat([clip.seed for clip in clips], [clip.end_frame - clip.start_frame for clip in clips])
    listed["seed"] = seeds.tolist()
    return listed
