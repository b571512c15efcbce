"""A loop: a video whose last frame flows into its first, in one of two ways.

ring        text-to-video models: the whole video is one clip, a ring of latents.  A latent of a stream holds four
            frames, but its very first one a single frame.  A ring has no first one: it is made of latents of four
            frames, R of them, and the video is as long as they are, 4 R native frames.
end frame   models that take a last frame (FLF2V, VACE): clips as ever, and the last one's window ends in the video's
            first frame, which isn't shown again.  A window ends with a latent, so its last frame has to fall where the
            frame after the video's last one would lie.

Either way motion runs a little slower or faster than life where max_frames doesn't fit exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from ..errors import SettingsError
from ..settings import RenderSettings
from ..variants import Variant
from .stream import Stretch, Window, last_frame
from .travel import Travel

WARM_LATENTS = 3  # the ring's last latents, decoded first and dropped: the decoder remembers them at frame 0

Divide = Callable[[Sequence[int], Fraction], list[Stretch]]


def check_loop(
    settings: RenderSettings, variant: Variant, travel: Travel, has_cut: bool, *,
    given: bool, moves: bool,
) -> None:  # fmt: skip
    """Refuse what can't be a loop.  given: whether frames are given as pictures; moves: whether the camera does."""
    reasons = [
        (bool(settings.init_video), "it follows a video, which ends elsewhere"),
        (bool(settings.continue_from), "what it starts from is given, so its end can't be too"),
        (moves, "the camera moves on and on"),
    ]
    if variant.last_image_input:
        reasons += [(settings.max_frames < 2, "it has one frame")]
    else:
        reasons += [
            (not variant.text_input, f"{variant.title} takes no last frame"),
            (has_cut or settings.continuity == "cut", "the video has a hard cut"),
            (
                settings.continuity in ("image", "frames"),
                f"continuity is {settings.continuity}, and a ring has no first",
            ),
            (given, "what it starts from is given, so its end can't be too"),
            (
                travel.ring and any(transition.mode == "hard" for transition in travel.transitions),
                f"it has {len(travel.starts)} prompts that switch hard; prompt_travel lets them blend or relay",
            ),
        ]
    for hinders, why in reasons:
        if hinders:
            raise SettingsError(f"can't be a loop: {why}", where="loop", next_step="change that, or turn loop off")


def ring(max_frames: int, step: Fraction, window: Window, notes: list[str]) -> tuple[Fraction, list[Stretch]]:
    """The one stretch of a loop, and native frames per output frame so that the ring closes exactly.

    step: native frames per output frame as they would be.
    """
    latents = max(round(max_frames * step / 4), window.least)
    exact = Fraction(4 * latents, max_frames)
    notes.append(f"loop: one ring of {latents} latents{_bent(exact, step)}")
    new = WARM_LATENTS + latents + 1
    dropped = last_frame(WARM_LATENTS) + 1
    return exact, [Stretch(0, 0, 0, max_frames, "noise", 0, 0, new, 0, dropped=dropped, ring=latents)]


def flowing_back(
    bounds: Sequence[int], step: Fraction, window: Window, divide: Divide, picture: str, notes: list[str]
) -> tuple[Fraction, list[Stretch]]:
    """The stretches of a loop whose last window ends in the first frame, and the step that makes that exact.

    bounds: where clips start in any case, and max_frames.  step: native frames per output frame as they would be.
    divide: bounds, step -> the stretches.
    picture: what the first frame is given as, "" where it is made; then the last clip can't be the first one too.
    Raises SettingsError where no window ends there.
    """
    if not picture and len(divide(bounds, step)) == 1:
        bounds = [0, min(4 * round(bounds[-1] / 8) + 1, bounds[-1] - 1), bounds[-1]]
    found = divide(bounds, step)
    starts = [*(stretch.start for stretch in found), bounds[-1]]  # they stay where they are while the step changes
    span, reach = bounds[-1] - found[-1].shot_start, last_frame(window.least) + 8
    for off in sorted(range(-reach, reach + 1), key=abs):
        native = max(1, round(span * step) + off)
        exact = Fraction(native, span)
        *others, last = divide(starts, exact)
        if last.shot_start == found[-1].shot_start and _can_end_at(last, native, window):
            end = "its picture" if picture else "as it was made"
            notes.append(f"loop: the last clip goes on to frame 0, {end}{_bent(exact, step)}")
            return exact, [*others, replace(last, end_picture=picture, to_first_frame=True)]
    raise SettingsError(
        "can't be a loop: no window ends where the video does", where="loop", got=bounds[-1],
        next_step="change max_frames by a few, or turn loop off",
    )  # fmt: skip


def _can_end_at(stretch: Stretch, native: int, window: Window) -> bool:
    """Whether a window that holds the stretch can have native frame `native` of its shot as its last one."""
    if stretch.before:
        first = last_frame(stretch.before - stretch.prefix + 1)
    else:
        first = stretch.first_native - stretch.dropped
    latents = Fraction(native - first, 4) + 1
    needed = max(stretch.prefix + stretch.new + stretch.tail, window.least)
    return latents.denominator == 1 and needed <= latents <= window.size


def _bent(exact: Fraction, step: Fraction) -> str:
    if exact == step:
        return ""
    return f"; motion runs at {float(exact / step):.3g} times its speed, so that the loop closes exactly"
