"""A loop: the whole video as one clip, a ring of latents whose last frame flows into its first.

A latent of a stream holds four frames, but its very first one a single frame.  A ring has no first one: it is made
of latents of four frames, R of them, and the video is as long as they are, 4 R native frames.  Where max_frames
isn't a multiple of that, motion runs a little slower or faster than life, so that both fit exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ..errors import SettingsError
from ..settings import RenderSettings
from ..variants import Variant
from .prompts import PromptSegment
from .stream import Stretch, Window, last_frame

WARM_LATENTS = 3  # the ring's last latents, decoded first and dropped: the decoder remembers them at frame 0


def check_loop(
    settings: RenderSettings, variant: Variant, segments: Sequence[PromptSegment], has_cut: bool, *,
    given: bool, moves: bool,
) -> None:  # fmt: skip
    """Refuse what can't be a ring.  given: whether frames are given as pictures; moves: whether the camera does."""
    reasons = [
        (not variant.text_input or bool(variant.vace_layers), f"{variant.title} doesn't start from text alone"),
        (has_cut or settings.continuity == "cut", "the video has a hard cut"),
        (settings.continuity in ("image", "frames"), f"continuity is {settings.continuity}, and a ring has no first"),
        (given or bool(settings.continue_from), "what it starts from is given, so its end can't be too"),
        (moves, "the camera moves on and on"),
        (len(segments) > 1, f"it has {len(segments)} prompts, and a ring takes one"),
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
    if exact != step:
        notes.append(f"loop: motion runs at {float(exact / step):.3g} of its speed, so that the ring closes exactly")
    new = WARM_LATENTS + latents + 1
    dropped = last_frame(WARM_LATENTS) + 1
    return exact, [Stretch(0, 0, 0, max_frames, "noise", 0, 0, new, 0, dropped=dropped, ring=latents)]
