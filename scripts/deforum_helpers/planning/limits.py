"""What a model can't do is refused, by the field that asks for it; what has to be bent for it is said in a note."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import numpy as np

from ..errors import SettingsError, first_few
from ..lead import Lead
from ..settings import FIELDS, RenderSettings
from ..variants import VARIANTS, Variant
from .camera import Camera, camera_of
from .clip_maker import Clip
from .stream import Before, Rate, Stretch, Window, last_frame, steepest_rate

_MOST_NAMED = 5
_FARTHEST = 1000  # times that a camera may magnify an init video: a pixel then fills the picture
_LEAST_LEFT = 0.25  # of an init video's picture, or of its size, that a camera may leave without a note


def check_against(settings: RenderSettings, variant: Variant) -> None:
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
    if settings.continuity == "joint" and variant.vace_layers:
        raise SettingsError(
            f"{variant.title} is given frames, not latents", where="continuity", got="joint",
            allowed="auto, latents, frames, image, cut",
        )  # fmt: skip
    if settings.continuity in ("latents", "joint") and not variant.text_input:
        raise SettingsError(
            f"{variant.title} starts every clip from a picture", where="continuity", got=settings.continuity,
            allowed="auto, image, cut",
        )  # fmt: skip
    if settings.continuity == "frames" and not variant.frames_input:
        raise SettingsError(
            f"{variant.title} takes no more than one frame", where="continuity", got="frames",
            allowed="auto, image, cut",
        )  # fmt: skip
    if settings.continuity == "image" and not variant.image_input:
        raise SettingsError(
            f"{variant.title} takes no picture", where="continuity", got="image", allowed="auto, latents, frames, cut"
        )


def plan_window(settings: RenderSettings, variant: Variant, notes: list[str]) -> Window:
    """The window in latents, with room for at least one new latent behind the context."""
    frames = max(settings.window_frames or variant.window_frames, variant.min_frames, 5)
    size, least = (frames + 2) // 4 + 1, (variant.min_frames + 2) // 4 + 1
    if settings.window_frames and last_frame(size) + 1 > settings.window_frames:
        notes.append(f"window_frames: raised to {last_frame(size) + 1}, the shortest window of {variant.title}")
    elif settings.window_frames > variant.window_frames:
        notes.append(f"window_frames: {variant.title} was trained on {variant.window_frames}; more may look worse")
    mode = settings.continuity
    if mode == "auto":
        mode = "frames" if variant.vace_layers else "latents" if variant.text_input else "image"
    context = -(-settings.context_frames // 4) or max(1, variant.context_latents)
    if context >= size:
        notes.append(f"context_frames: reduced to {4 * (size - 1)}, so that the window has room for new frames")
        context = size - 1
    noised = variant.sees_noised("latents" if mode == "joint" else mode)
    if not noised and settings.prefix_noise != FIELDS["prefix_noise"].default:
        notes.append(f"prefix_noise: without effect, because {variant.title} isn't shown the former clip under noise")
    joint = size if mode == "joint" or settings.loop else 0
    if mode == "joint":
        mode, size = "latents", size + (settings.joint_windows - 1) * (size - context)
    tail = -(-settings.overlap_frames // 4)
    if tail and mode != "latents":
        notes.append("overlap_frames: without effect, because clips don't go on from latents here")
        tail = 0
    elif tail > (size - context) // 2:
        tail = (size - context) // 2
        notes.append(f"overlap_frames: reduced to {4 * tail}, half of what the window has room for")
    return Window(size, least, context, tail, mode, joint)


def plan_camera(settings: RenderSettings, window: Window, seed: int, notes: list[str]) -> Camera | None:
    """What moves the picture.  Where every clip is a hard cut, nothing can."""
    camera = camera_of(settings, seed, notes)
    if camera and window.mode == "cut":
        notes.append("the camera stands still, because every clip is a hard cut")
        return None
    return camera


def note_lost_video(camera: Camera, clips: tuple[Clip, ...], notes: list[str]) -> None:
    """Say from where on little is left of an init video that the camera films, because its way adds up until a cut.

    Raises SettingsError where it goes so far that nothing can be computed.
    """
    whole, lost = np.eye(3), None
    for former, clip in pairwise(clips):
        path = camera.path(Fraction(former.start_frame), [Fraction(clip.start_frame)])
        whole = path[0] @ whole if former.shot == clip.shot else np.eye(3)
        seen, size = camera.in_view(whole)
        if not 1 / _FARTHEST < size < _FARTHEST:
            raise SettingsError(
                f"the camera magnifies it {size:.3g} times by frame {clip.start_frame}", where="init_video",
                allowed=f"up to {_FARTHEST}, down to 1/{_FARTHEST}",
                next_step="let the camera turn back or rest, or cut (strength 0): there it begins anew",
            )  # fmt: skip
        if lost is None and (seen < _LEAST_LEFT or not _LEAST_LEFT <= size <= 1 / _LEAST_LEFT):
            lost = clip.start_frame
    if lost is not None:
        notes.append(f"init_video: the camera's way adds up until a cut, so little of it is in view at frame {lost}")


def what_is_before(
    lead: Lead | None,
    settings: RenderSettings,
    variant: Variant,
    window: Window,
    step: Fraction,
    notes: list[str],
    *,
    moves: bool = False,
) -> Before | None:
    """How frame 0 goes on from a finished job: by its latents where they fit, else by its last picture.

    moves: whether the camera moves at once: that needs frames.
    """
    if lead is None:
        return None
    if window.mode == "cut":
        notes.append("continue_from: without effect, because every clip is a hard cut")
        return None
    differs = "the camera moves at once" if moves else _differences(lead, settings, variant, step)
    if window.mode == "latents" and not differs:
        return Before(lead.frames, lead.latents)
    if not variant.image_input:
        raise SettingsError(
            f"{variant.title} goes on from latents only, and those of that job don't fit: {differs}",
            where="continue_from", next_step="take that job's model, size and fps, or leave it empty",
        )  # fmt: skip
    if not lead.picture:
        raise SettingsError(
            "that job's pictures were deleted", where="continue_from", next_step="give its last frame as init_image"
        )
    if window.mode == "latents":
        notes.append(f"continue_from: goes on from that job's last picture, because its latents don't fit: {differs}")
    return Before(1, 0)


def _differences(lead: Lead, settings: RenderSettings, variant: Variant, step: Fraction) -> str:
    """Why a job's latents can't be gone on from here, "" if they can."""
    if not lead.parts:
        return "there is no stream of them any more"
    made_by = VARIANTS.get(lead.variant)
    if made_by is None or (made_by.vae, made_by.vae_dim) != (variant.vae, variant.vae_dim):
        return f"they are {lead.variant}'s"
    if (lead.width, lead.height) != (settings.width, settings.height):
        return f"they are for {lead.width} x {lead.height}"
    if lead.native_step != step or Rate.of(step).floor(lead.frames) < 1:
        return "its motion has another rate"
    return ""


def plan_native_step(settings: RenderSettings, variant: Variant, window: Window, notes: list[str]) -> Fraction:
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


def note_short_tails(stretches: list[Stretch], window: Window, notes: list[str]) -> None:
    joins = [stretch for stretch in stretches if stretch.kind == "latents"]
    short = sum(stretch.overlap < window.tail for stretch in joins)
    if window.tail and short:
        notes.append(f"overlap_frames: shorter or none at {short} of {len(joins)} joins, where it has no room")


def note_whole_pictures(clips: tuple[Clip, ...], variant: Variant, notes: list[str]) -> None:
    """Say where a strength between 0 and 1 does nothing: what a model is given beside the noise can't be let go of."""
    given = [clip for clip in clips if clip.dropped_frames and not clip.ring_latents and 0 < clip.strength < 1]
    if given and (variant.vace_layers or variant.condition_channels):
        notes.append(f"strength: {variant.title} takes what it is given as a whole, so all above 0 is as 1")


def note_shared_seeds(clips: tuple[Clip, ...], settings: RenderSettings, notes: list[str]) -> None:
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


def note_held_schedules(clips: tuple[Clip, ...], values: Mapping[str, np.ndarray], notes: list[str]) -> None:
    """Say where a schedule takes effect that acts from clip to clip: each clip keeps its first frame's value.

    values: name -> one value per output frame.
    """
    for name, series in values.items():
        if all((series[clip.start_frame : clip.end_frame] == series[clip.start_frame]).all() for clip in clips):
            continue
        starts = [clips[0], *(b for a, b in pairwise(clips) if series[a.start_frame] != series[b.start_frame])]
        named = first_few([clip.start_frame for clip in starts], _MOST_NAMED)
        notes.append(f"{name}: a clip keeps the value of its first frame, so it takes effect at frame {named}")
