"""From settings to a plan: which clips to render, from what, with what, for which output frames.  Pure.

Keyframes are output frames.  Every prompt keyframe starts a clip; so does a frame where strength falls to 0 (a
hard cut), and a segment longer than the model's window is divided.  A clip shows exactly the output frames
[start_frame, end_frame); stream.py has the arithmetic of the native frames behind them.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .deforum_files import solver_for
from .errors import SettingsError
from .prompts import PromptSegment, prompt_segments
from .schedules import Series, number_schedule, text_schedule
from .seeds import clip_seed
from .settings import FIELDS, RenderSettings
from .stream import Rate, Start, Stretch, Window, chain, last_frame, steepest_rate
from .variants import Variant

_SCHEDULED = ("guidance_scale", "strength", "shift", "num_inference_steps")
_MOST_NAMED = 5


@dataclass(frozen=True)
class Clip:
    """One clip: a stretch of a prompt segment, rendered in one window.

    start_frame, end_frame: the output frames it shows, half-open.  shot: which shot it belongs to.
    start: "noise"; "latents": pinned to the last prefix_latents of the shot's stream; "image": its frame 0 is
        given, as settings.init_image, or (dropped_frames = 1) as native frame native_start - 1 of this shot.
    num_frames, latent_frames: the whole window: prefix, new latents, then what is trimmed (tail_latents of it
        are what the next clip cross-fades from).
    stream_latents_before: complete latents of the shot's stream that stay; the new ones come behind them.
    new_frames: native frames that the new latents add, without dropped_frames; native_start: the first of
        them.  A clip whose native_start is not past the stream's end replaces what was there.
    carried_frames: native frames of the former clip, not shown yet, that open this one.
    overlap_latents: new latents that cross-fade out of the former clip's tail.
    guidance: guidance_scale for each latent frame of the window, each at its own time.
    """

    index: int
    shot: int
    start_frame: int
    end_frame: int
    num_frames: int
    latent_frames: int
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance: tuple[float, ...]
    seed: int
    num_inference_steps: int
    shift: float
    strength: float
    solver: str
    start: Start
    prefix_latents: int
    stream_latents_before: int
    new_latents: int
    new_frames: int
    native_start: int
    carried_frames: int
    dropped_frames: int
    overlap_latents: int
    tail_latents: int


@dataclass(frozen=True)
class Plan:
    """Everything a render does, decided beforehand.

    motion_fps: native frames a second; native_step: native frames per output frame, exactly.
    schedules: term -> one value per output frame.  notes: what was mended or needs to be known.
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

    def shot_start(self, clip: Clip) -> int:
        """The output frame that the clip's shot starts at."""
        first = bisect_right(self.clips, clip.shot - 1, key=lambda other: other.shot)
        return self.clips[first].start_frame


def plan(settings: RenderSettings, variant: Variant, resolved_seed: int) -> Plan:
    """Decide every clip.  resolved_seed: the seed with -1 already replaced, see seeds.resolve_seed.

    Raises SettingsError or ScheduleError.
    """
    notes: list[str] = []
    _check_against(settings, variant)
    segments, more = prompt_segments(
        settings.prompts, settings.positive_prompt, settings.negative_prompt, settings.max_frames, resolved_seed
    )
    notes += more
    series = _schedules(settings, variant, resolved_seed, notes)
    solver_at = _solver_choice(settings, variant, resolved_seed, notes)
    window = _window(settings, variant, notes)
    step = _native_step(settings, variant, window, notes)
    cuts = series["strength"].values <= 0
    stretches = chain(_bounds(segments, cuts, notes), lambda frame: bool(cuts[frame]), Rate.of(step), window)
    stretches = _with_given_images(stretches, settings, variant, notes)
    _note_short_tails(stretches, window, notes)
    maker = _ClipMaker(settings, variant, resolved_seed, segments, series, solver_at, Rate.of(step), window)
    clips = tuple(maker.clip(index, stretch) for index, stretch in enumerate(stretches))
    _note_shared_seeds(clips, settings, notes)
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
        schedules=_listed(series, clips, settings),
        notes=notes,
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
    return written


def _check_against(settings: RenderSettings, variant: Variant) -> None:
    """Refuse what the model can't do."""
    for name in ("width", "height"):
        size, multiple = getattr(settings, name), variant.size_multiple
        if size % multiple:
            below = size - size % multiple
            near = " or ".join(str(n) for n in (below, below + multiple) if n)
            raise SettingsError(
                f"{variant.title} needs a multiple of {multiple}",
                where=name,
                got=size,
                next_step=f"the nearest: {near}",
            )
    if settings.init_image and not variant.image_input:
        raise SettingsError(
            f"{variant.title} takes no picture", where="init_image", got=settings.init_image,
            next_step="leave it empty or choose an image-to-video model",
        )  # fmt: skip
    if not settings.init_image and not variant.text_input:
        raise SettingsError(
            f"{variant.title} needs a picture to start from", where="init_image",
            next_step="give one or choose a text-to-video model",
        )  # fmt: skip
    if settings.continuity == "latents" and not variant.text_input:
        raise SettingsError(
            f"{variant.title} starts every clip from a picture", where="continuity", got="latents",
            allowed="auto, image, cut",
        )  # fmt: skip
    if settings.continuity == "image" and not variant.image_input:
        raise SettingsError(
            f"{variant.title} takes no picture", where="continuity", got="image", allowed="auto, latents, cut"
        )


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
            least=about.minimum, most=about.maximum, clamp=name == "strength",
        )  # fmt: skip
        notes += series[name].notes
    return series


def _solver_choice(settings: RenderSettings, variant: Variant, seed: int, notes: list[str]) -> Callable[[int], str]:
    """Frame -> solver."""
    throughout = settings.solver or variant.defaults.solver
    if not settings.solver_schedule.strip():
        return lambda frame: throughout
    words, more = text_schedule(settings.solver_schedule, "solver_schedule", settings.max_frames, seed)
    notes += more
    solvers = []
    for _, word, place in words:
        if (solver := solver_for(word)) is None:
            raise place.error("unknown solver", got=word, allowed=", ".join(filter(None, FIELDS["solver"].choices)))
        solvers.append(solver)
    frames = [frame for frame, _, _ in words]
    return lambda frame: solvers[bisect_right(frames, frame) - 1]


def _window(settings: RenderSettings, variant: Variant, notes: list[str]) -> Window:
    """The window in latents, with room for at least one new latent behind the context."""
    frames = max(settings.window_frames or variant.window_frames, variant.min_frames, 5)
    size, least = (frames + 2) // 4 + 1, (variant.min_frames + 2) // 4 + 1
    if settings.window_frames and last_frame(size) + 1 > settings.window_frames:
        notes.append(f"window_frames: raised to {last_frame(size) + 1}, the shortest window of {variant.title}")
    elif settings.window_frames > variant.window_frames:
        notes.append(f"window_frames: {variant.title} was trained on {variant.window_frames}; more may look worse")
    mode = settings.continuity
    if mode == "auto":
        mode = "latents" if variant.text_input or not variant.image_input else "image"
    context = -(-settings.context_frames // 4) or max(1, variant.context_latents)
    if context >= size:
        notes.append(f"context_frames: reduced to {4 * (size - 1)}, so that the window has room for new frames")
        context = size - 1
    tail = -(-settings.overlap_frames // 4)
    if tail and mode != "latents":
        notes.append("overlap_frames: without effect, because clips don't go on from latents here")
        tail = 0
    elif tail > (size - context) // 2:
        tail = (size - context) // 2
        notes.append(f"overlap_frames: reduced to {4 * tail}, half of what the window has room for")
    return Window(size, least, context, tail, mode)


def _native_step(settings: RenderSettings, variant: Variant, window: Window, notes: list[str]) -> Fraction:
    """Native frames per output frame.  Decimal rates are read as written: 23.976 is 23976/1000."""
    if settings.motion == "output":
        return Fraction(1)
    step = Fraction(str(variant.native_fps)) / Fraction(str(settings.fps))
    steepest = steepest_rate(window)
    if steepest is not None and step > steepest:
        notes.append(
            f"fps: one frame of {settings.fps:g} fps is {float(step):g} native frames, more than a window adds;"
            f" taken as {steepest}, so motion is slower than life"
        )
        return Fraction(steepest)
    return step


def _bounds(segments: list[PromptSegment], cuts: np.ndarray, notes: list[str]) -> list[int]:
    """Frames where a clip must start, and max_frames: prompt keyframes, and where strength falls to 0."""
    starts = {segment.start_frame for segment in segments}
    falls = [int(frame) + 1 for frame in np.flatnonzero(cuts[1:] & ~cuts[:-1])]
    between = [frame for frame in falls if frame not in starts]
    if between:
        named = ", ".join(map(str, between[:_MOST_NAMED]))
        more = f" and {len(between) - _MOST_NAMED} more" if len(between) > _MOST_NAMED else ""
        notes.append(f"strength: falls to 0 between prompt keyframes, a hard cut at frame {named}{more}")
    return [*sorted(starts | set(falls)), len(cuts)]


def _with_given_images(
    stretches: list[Stretch], settings: RenderSettings, variant: Variant, notes: list[str]
) -> list[Stretch]:
    """Let the first shot start from init_image; and every other one, of a model that can't start from noise."""
    if not settings.init_image:
        return stretches
    given = []
    for stretch in stretches:
        fresh = stretch.kind == "noise" and (stretch.shot == 0 or not variant.text_input)
        given.append(dataclasses.replace(stretch, kind="image") if fresh else stretch)
    if not variant.text_input and stretches[-1].shot > 0:
        notes.append(f"init_image: {variant.title} can't start from nothing, so every shot starts from it")
    return given


def _note_short_tails(stretches: list[Stretch], window: Window, notes: list[str]) -> None:
    joins = [stretch for stretch in stretches if stretch.kind == "latents"]
    short = sum(stretch.overlap < window.tail for stretch in joins)
    if window.tail and short:
        notes.append(f"overlap_frames: shorter or none at {short} of {len(joins)} joins, where it has no room")


def _note_shared_seeds(clips: tuple[Clip, ...], settings: RenderSettings, notes: list[str]) -> None:
    """The same noise in one shot gives nearly the same pictures again; say so unless it was asked for."""
    if settings.seed_behavior in ("fixed", "schedule"):
        return
    seen: dict[tuple[int, int], int] = {}
    for clip in clips:
        former = seen.setdefault((clip.shot, clip.seed), clip.index)
        if former != clip.index:
            notes.append(
                f"seed_behavior: {settings.seed_behavior} gives clips {former} and {clip.index} of one shot the same"
                f" seed {clip.seed}, which can repeat pictures; iter (with seed_iter_N 1) or random doesn't"
            )
            return


def _listed(series: dict[str, Series], clips: tuple[Clip, ...], settings: RenderSettings) -> dict[str, list[float]]:
    listed: dict[str, list[float]] = {name: series[name].values.tolist() for name in _SCHEDULED}
    listed["num_inference_steps"] = np.floor(series["num_inference_steps"].values).astype(int).tolist()
    if settings.seed_behavior == "schedule":
        seeds = np.floor(series["seed_schedule"].values).astype(np.int64)
    else:
        seeds = np.repeat([clip.seed for clip in clips], [clip.end_frame - clip.start_frame for clip in clips])
    listed["seed"] = seeds.tolist()
    return listed


@dataclass(frozen=True)
class _ClipMaker:
    """What all clips of a plan have in common."""

    settings: RenderSettings
    variant: Variant
    seed: int
    segments: list[PromptSegment]
    series: dict[str, Series]
    solver_at: Callable[[int], str]
    rate: Rate
    window: Window

    def clip(self, index: int, stretch: Stretch) -> Clip:
        frame = stretch.start
        latents = max(stretch.prefix + stretch.new + stretch.tail, self.window.least)
        prompt, negative = self._texts(frame)
        return Clip(
            index=index,
            shot=stretch.shot,
            start_frame=frame,
            end_frame=stretch.end,
            num_frames=last_frame(latents) + 1,
            latent_frames=latents,
            prompt=prompt,
            negative_prompt=negative,
            guidance_scale=self.series["guidance_scale"].at(frame),
            guidance=self._guidance(stretch, latents),
            seed=self._seed(index, frame),
            num_inference_steps=int(self.series["num_inference_steps"].at(frame)),
            shift=self.series["shift"].at(frame),
            strength=self.series["strength"].at(frame),
            solver=self.solver_at(frame),
            start=stretch.kind,
            prefix_latents=stretch.prefix,
            stream_latents_before=stretch.before,
            new_latents=stretch.new,
            new_frames=stretch.new_frames,
            native_start=stretch.first_native,
            carried_frames=stretch.carried,
            dropped_frames=stretch.dropped,
            overlap_latents=stretch.overlap,
            tail_latents=stretch.tail,
        )

    def _texts(self, frame: int) -> tuple[str, str]:
        """The prompts at a frame; where the global negative prompt is left empty, the model's own stands in."""
        found = bisect_right(self.segments, frame, key=lambda segment: segment.start_frame) - 1
        prompt, negative = self.segments[found].texts(frame, self.seed, self.settings.max_frames)
        if not self.settings.negative_prompt.strip():
            negative = ", ".join(filter(None, (negative, self.variant.defaults.negative_prompt)))
        return prompt, negative

    def _seed(self, index: int, frame: int) -> int:
        behavior = self.settings.seed_behavior
        scheduled = self.series["seed_schedule"].at(frame) if behavior == "schedule" else -1.0
        return clip_seed(behavior, self.seed, index, iter_n=self.settings.seed_iter_n, scheduled=scheduled)

    def _guidance(self, stretch: Stretch, latents: int) -> tuple[float, ...]:
        """The schedule in the middle of each latent's frames, but never outside the frames the clip shows."""
        values = self.series["guidance_scale"].values
        if (
            values[stretch.start] == values[stretch.end - 1]
            and (values[stretch.start : stretch.end] == values[stretch.start]).all()
        ):
            return (float(values[stretch.start]),) * latents
        first = stretch.before - stretch.prefix
        base = stretch.first_native - 1 if stretch.dropped else 0
        middles = np.maximum(4 * np.arange(first, first + latents) - 1.5, 0) + base
        frames = stretch.shot_start + np.floor(middles * self.rate.den / self.rate.num).astype(np.int64)
        return tuple(values[np.clip(frames, stretch.start, stretch.end - 1)].tolist())
