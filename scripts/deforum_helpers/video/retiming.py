"""Output frames at any rate from a shot's native frames, and the cross-fade at a join.

A native frame that is asked for exactly comes out bit by bit as it is.  Between two of them, "flow" moves what
moves (in_between.py), "blend" is the plain mix, "nearest" repeats frames.  Measured on filmed, drawn and procedural
clips with every second frame left out, "flow" is 1.5 to 14 dB nearer to the true frame than "blend".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from ..errors import SettingsError
from .in_between import InBetween

Method = Literal["flow", "blend", "nearest"]
METHODS: tuple[Method, ...] = get_args(Method)
_SMALLEST_SIDE = 16  # below this there is nothing to match


def retime(
    frames: Sequence[np.ndarray] | np.ndarray,
    positions: Iterable[tuple[int, Fraction | float]],
    method: Method = "flow",
) -> Iterator[np.ndarray]:
    """Yield one output frame per position of ONE shot; there is nothing to mix across a cut.

    frames: the shot's native frames by random access, uint8 [H, W, 3] each.
    positions: (index, fraction), 0 <= fraction < 1: the output frame lies that far between native frames index
        and index + 1.  fraction 0 gives frame `index` itself, unchanged.  Any order; ascending is fastest, for
        the motion between two frames is measured once and used for all output frames between them.
    Raises SettingsError for an unknown method, IndexError for a position outside the shot.
    """
    if method not in METHODS:
        raise SettingsError("unknown retiming method", got=method, allowed=", ".join(METHODS), where="retiming")
    measured: tuple[int, InBetween] | None = None
    for index, fraction in positions:
        last = index + (fraction > 0)
        if not (index >= 0 and last < len(frames) and 0 <= fraction < 1):
            raise IndexError(f"position {index} + {fraction} is outside a shot of {len(frames)} frames")
        if method == "nearest":
            fraction, index = 0, index + (fraction >= Fraction(1, 2))
        if not fraction:
            yield np.array(frames[index])
        elif method == "blend" or min(frames[index].shape[:2]) < _SMALLEST_SIDE:
            yield blend(frames[index], frames[index + 1], float(fraction))
        else:
            if measured is None or measured[0] != index:
                measured = index, InBetween(frames[index], frames[index + 1])
            yield measured[1].at(float(fraction))


def blend(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    """The plain mix (1-t) * first + t * second, rounded; shapes equal, uint8."""
    mixed = first + (second.astype(np.float32) - first) * np.float32(t)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def crossfade(old_tail: np.ndarray, new_head: np.ndarray) -> np.ndarray:
    """Fade from one clip into the next over frames that both of them show, adding none.

    old_tail, new_head: uint8 [n, H, W, 3], the same n moments as the old and as the new clip show them.
    Returns [n, H, W, 3]: frame k is k+1 parts of n+1 new, so that neither end repeats a neighbour.
    """
    if old_tail.shape != new_head.shape:
        raise ValueError(f"a cross-fade needs equal shapes, got {old_tail.shape} and {new_head.shape}")
    n = len(old_tail)
    faded = [blend(old, new, (k + 1) / (n + 1)) for k, (old, new) in enumerate(zip(old_tail, new_head, strict=True))]
    return np.stack(faded) if n else old_tail.copy()
