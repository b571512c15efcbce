"""One seed per clip, by the six behaviours of Deforum, all of them decided by the render's one resolved seed.

iter        one up every seed_iter_n clips          fixed     the same throughout
ladder      0, +2, +1, +3, +2, +4 ...               alternate 0, +1, 0, +1 ...
random      unrelated, derived from the seed        schedule  what seed_schedule says at the clip's start
"""

from __future__ import annotations

import hashlib
import secrets

MAX_SEED = 2**32 - 1


def resolve_seed(seed: int) -> int:
    """The seed to record and render with: a fresh one for -1, else the one given."""
    return secrets.randbelow(MAX_SEED + 1) if seed < 0 else seed


def derived_seed(seed: int, index: int) -> int:
    """A seed that looks random but is decided by (seed, index)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4], "big")


def clip_seed(behavior: str, seed: int, index: int, *, iter_n: int = 1, scheduled: float = -1.0) -> int:
    """The seed of clip `index`.

    seed: the render's resolved seed.  scheduled: seed_schedule's value at the clip's start; below 0 asks for a
    random one, as in Deforum.  Returns 0..MAX_SEED.
    """
    match behavior:
        case "fixed":
            offset = 0
        case "iter":
            offset = index // iter_n
        case "ladder":
            offset = index // 2 + 2 * (index % 2)
        case "alternate":
            offset = index % 2
        case "random":
            return derived_seed(seed, index)
        case "schedule":
            return derived_seed(seed, index) if scheduled < 0 else int(scheduled) % (MAX_SEED + 1)
        case _:
            raise AssertionError(f"unchecked seed behavior {behavior!r}")
    return (seed + offset) % (MAX_SEED + 1)
