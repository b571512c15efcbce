"""The arithmetic of shots: which latents each clip makes, keeps and starts from.  Whole numbers only.

A shot is one stream of native frames.  Latent 0 is native frame 0, latent i > 0 the frames 4i-3 .. 4i.  Output
frame j of a shot that starts at output frame s lies at native position (j - s) * native / output rate; between two
native frames it needs both.  A clip adds latents to the stream's end, as many as its last output frame needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal

Start = Literal["noise", "latents", "frames", "image"]


@dataclass(frozen=True)
class Rate:
    """Native frames per output frame, num / den."""

    num: int
    den: int

    @classmethod
    def of(cls, value: Fraction) -> Rate:
        return cls(value.numerator, value.denominator)

    def floor(self, outputs: int) -> int:
        """The native frame at or before an output frame of the shot."""
        return outputs * self.num // self.den

    def ceil(self, outputs: int) -> int:
        """The last native frame that an output frame of the shot needs."""
        return -(-outputs * self.num // self.den)

    def reach(self, native: int) -> int:
        """The last output frame of the shot that native frames 0..native suffice for."""
        return native * self.den // self.num


@dataclass(frozen=True)
class Window:
    """What a model generates at once, in latents.

    size, least: of the whole window.  context: how many latents of the stream a continuing window is pinned to,
    or as many frames as those hold.
    tail: latents made beyond the new ones for the next clip to cross-fade from.
    joint: the model's own window, where `size` is of several that are made together; 0 = size is the model's.
    """

    size: int
    least: int
    context: int
    tail: int
    mode: Literal["latents", "frames", "image", "cut"]
    joint: int = 0

    @property
    def given_frames(self) -> int:
        """Frames that a window repeats of the clip before where it goes on from pictures."""
        return 1 if self.mode == "image" else last_frame(self.context) + 1


@dataclass(frozen=True)
class Before:
    """What there is before frame 0, of a job that is gone on from.

    frames: output frames of its last shot.  latents: of that shot's stream; 0 = only its last frame is given.
    """

    frames: int
    latents: int


@dataclass(frozen=True)
class Stretch:
    """Output frames [start, end) and the latents made for them.  before, new: latents of the shot's stream.

    ring: latents of a clip whose end flows into its start; `new` has some of them twice.
    video_picture: its frame 0 is given, as what the init video shows then.
    to_first_frame: its window ends in the video's first frame, as end_picture has it, or, without one, as it was made.
    """

    shot: int
    shot_start: int
    start: int
    end: int
    kind: Start
    prefix: int
    before: int
    new: int
    first_native: int
    carried: int = 0
    dropped: int = 0
    tail: int = 0
    overlap: int = 0
    picture: str = ""
    video_picture: bool = False
    end_picture: str = ""
    ring: int = 0
    to_first_frame: bool = False

    @property
    def new_frames(self) -> int:
        """Native frames that the new latents add to the stream."""
        return 4 * self.new - (0 if self.before else 3) - self.dropped

    @property
    def last_native(self) -> int:
        """The stream's last native frame after this stretch."""
        return self.first_native + self.new_frames - 1


def _whole(amount: int, part: int) -> int:
    """How many parts hold an amount."""
    return -(-amount // part)


def latents_for(native: int) -> int:
    """How many latents from the stream's start make native frame `native`."""
    return (native + 3) // 4 + 1


def latents_before(native: int) -> int:
    """How many latents from the stream's start end before native frame `native`."""
    return (native + 3) // 4


def last_frame(latents: int) -> int:
    """The last native frame of that many latents."""
    return 4 * latents - 4


def steepest_rate(window: Window) -> int | None:
    """Native frames per output frame that any window still covers; None = any."""
    if window.mode == "cut":
        return None
    free = window.size - 1 if window.mode == "image" else window.size - window.context - window.tail
    return 4 * free


def never(start: int, end: int) -> bool:
    """Whether a camera that stands still moves the frames [start, end)."""
    return False


def chain(
    bounds: Sequence[int],
    is_cut: Callable[[int], bool],
    rate: Rate,
    window: Window,
    before: Before | None = None,
    moves: Callable[[int, int], bool] = never,
) -> list[Stretch]:
    """Divide output frames into stretches: a new one at every bound, and where a window is full.

    bounds: ascending, from 0 to max_frames.  is_cut: whether a stretch that starts at a frame starts a new shot.
    before: what frame 0 goes on from, unless there is a cut; the first shot then starts before it.
    moves: whether a camera moves the frames [start, end) once they are made.  From then on the shot's frames are not
        what its latents hold, and it goes on from frames.
    """
    stretches: list[Stretch] = []
    moved = False
    for start, end in pairwise(bounds):
        while start < end:
            former = stretches[-1] if stretches else None
            if former is None and before and window.mode != "cut" and not is_cut(start):
                stretch = _from_before(before, start, end, rate, window)
            elif former is None or window.mode == "cut" or is_cut(start):
                all_cuts = window.mode == "cut" or is_cut(end - 1)
                shot = former.shot + 1 if former else 0
                stretch = _of_new_shot(shot, start, end, all_cuts, rate, window)
                moved = False
            elif window.mode != "latents" or moved or moves(start, end):
                stretch = _from_frames(former, start, end, rate, window)
            else:
                stretch = _from_latents(former, start, end, rate, window)
            moved = moved or moves(start, stretch.end)
            assert start < stretch.end <= end and stretch.new > 0, stretch
            stretches.append(stretch)
            start = stretch.end
    return _with_tails(stretches, window) if window.tail else stretches


def _of_new_shot(shot: int, start: int, end: int, all_cuts: bool, rate: Rate, window: Window) -> Stretch:
    """The first stretch of a shot.  all_cuts: whatever follows in this segment starts a shot of its own, too."""
    needed = latents_for(rate.ceil(end - 1 - start))
    if needed <= window.size:
        new = needed
    elif all_cuts:
        longest = rate.reach(last_frame(window.size)) + 1
        evenly = _whole(end - start, _whole(end - start, longest))
        new = latents_for(rate.ceil(evenly - 1))
    elif window.mode == "image":
        new = 1 + _image_share(last_frame(needed), window)
    else:
        new = _share(needed, 0, window)
    end = min(end, start + rate.reach(last_frame(new)) + 1)
    return Stretch(shot, start, start, end, "noise", 0, 0, new, 0)


def _from_before(before: Before, start: int, end: int, rate: Rate, window: Window) -> Stretch:
    """Go on from a finished job: from its stream, every native frame that is shown made anew, or from its picture."""
    former = Stretch(0, -before.frames, -before.frames, 0, "noise", 0, 0, max(before.latents, 1), 0)
    if not before.latents:
        return _from_frames(former, start, end, rate, replace(window, mode="image"))
    kept = min(before.latents, latents_before(rate.floor(before.frames)))
    return _extended(former, kept, start, end, rate, window)


def _from_latents(former: Stretch, start: int, end: int, rate: Rate, window: Window) -> Stretch:
    """Go on from the stream's last latents.

    Native frames that the former stretch's last latent made beyond what it showed are carried over, unless
    they are more than half of what this one needs, or all of it: then the stream is cut back and made anew.
    """
    shot_start, made = former.shot_start, former.before + former.new
    shown = rate.ceil(start - 1 - shot_start)
    own = max(shown + 1, rate.floor(start - shot_start))
    stretch = _extended(former, made, start, end, rate, window)
    last = rate.ceil(stretch.end - 1 - shot_start)
    carried = max(0, last_frame(made) - own + 1)
    if last <= last_frame(made) or 2 * carried > last - own + 1:
        return _extended(former, latents_before(min(own, last)), start, end, rate, window)
    return replace(stretch, carried=carried) if carried else stretch


def _extended(former: Stretch, before: int, start: int, end: int, rate: Rate, window: Window) -> Stretch:
    """Add to the first `before` latents of the stream as much as [start, end) needs or a window holds."""
    shot_start = former.shot_start
    prefix = min(window.context, before)
    needed = latents_for(rate.ceil(end - 1 - shot_start)) - before
    if needed > window.size - prefix:
        least = latents_for(rate.ceil(start - shot_start)) - before
        needed = max(_share(needed, prefix, window), least)
        end = min(end, shot_start + rate.reach(last_frame(before + needed)) + 1)
    first = last_frame(before) + 1
    return Stretch(former.shot, shot_start, start, end, "latents", prefix, before, max(needed, 1), first)


def _share(needed: int, prefix: int, window: Window) -> int:
    """New latents of the first of as few, evenly filled windows as hold `needed`, which is more than one does.

    Every window but the last keeps room for the tail; every window but the first is pinned to the full context.
    """
    room = window.size - window.context - window.tail  # of a window in the middle
    count = 1 + _whole(needed - (window.size - prefix), room)
    filled = _whole(needed + prefix + (count - 1) * (window.context + window.tail), count)
    filled = min(max(filled, window.least), window.size)
    return max(1, filled - prefix - window.tail)


def _from_frames(former: Stretch, start: int, end: int, rate: Rate, window: Window) -> Stretch:
    """Go on from native frames of the shot, given as pictures: the window's first frames repeat them."""
    shot_start = former.shot_start
    given = min(rate.floor(start - shot_start), rate.ceil(start - 1 - shot_start))
    context = min(window.given_frames, last_frame(given // 4 + 1) + 1)
    room = last_frame(window.size) + 1 - context
    needed = max(1, rate.ceil(end - 1 - shot_start) - given)
    new = _whole(needed, 4)
    if needed > room:
        new = _whole(_whole(needed, _whole(needed, room)), 4)
        end = min(end, shot_start + rate.reach(given + 4 * new) + 1)
    kind: Start = "image" if window.mode == "image" else "frames"
    new += latents_for(context - 1)
    return Stretch(former.shot, shot_start, start, end, kind, 0, 0, new, given + 1, dropped=context)


def _image_share(needed: int, window: Window) -> int:
    """Latents beyond the first, of the first of as few, evenly filled windows as add `needed` native frames."""
    count = _whole(needed, last_frame(window.size))
    return _whole(_whole(needed, count), 4)


def _with_tails(stretches: list[Stretch], window: Window) -> list[Stretch]:
    """Give each stretch that the next one extends a tail, as far as its window has room for it."""
    done = [stretches[0]]
    for following in stretches[1:]:
        former = done[-1]
        extends = following.kind == "latents" and following.before == former.before + former.new
        tail = min(window.tail, window.size - former.prefix - former.new, following.new) if extends else 0
        done[-1] = replace(former, tail=tail)
        done.append(replace(following, overlap=tail))
    return done
