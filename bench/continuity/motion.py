"""How much changes from frame to frame and which way it moves, at the joins and inside the clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from deforum_helpers.video.optical_flow import both_flows
from rendered import Rendered

REACH = 4  # frames on either side of a join that its motion is read from: one latent's worth
MOVING = 0.05  # share of the pixels, the fastest ones, whose mean is the motion: the object, not its background
STILL = 0.25  # pixels a frame: below that nothing moves, and there is no direction to keep
TURNED = 45.0  # degrees between before and after that count as another direction
SEAM_LIMIT = 1.25  # times the median change inside clips
SAME, DOUBLE = 0.1, 1.8  # change at a join against its neighbourhood: a repeated frame, a frame left out


@dataclass(frozen=True)
class Motion:
    """One value per pair of neighbouring frames, [F - 1].

    change: mean absolute difference in grey values.  speed: mean length of the flow, in pixels.
    way: [F - 1, 2], the mean flow of the fastest pixels.
    """

    change: np.ndarray
    speed: np.ndarray
    way: np.ndarray


@dataclass(frozen=True)
class Join:
    """What happens from frame - 1 to frame, where a clip takes over.

    jump, flow_jump: change and speed against the median inside clips.  local: change against the median of the
    REACH pairs on either side.  turn: degrees between the motion before and after; None where nothing moves on one
    side.  prompt_goes_on: both clips have the same prompt.
    """

    frame: int
    jump: float
    flow_jump: float
    local: float
    turn: float | None
    moves_before: bool
    prompt_goes_on: bool

    @property
    def keeps_direction(self) -> bool:
        return self.turn is not None and self.turn <= TURNED


def measure_motion(frames: np.ndarray) -> Motion:
    """frames: uint8 [F, H, W, 3], F >= 2."""
    change, speed, way = [], [], []
    for first, second in pairwise(frames):
        change.append(np.abs(first.astype(np.int16) - second).mean())
        flow = both_flows(first, second)[0].reshape(2, -1)
        length = np.hypot(*flow)
        fastest = length >= np.quantile(length, 1 - MOVING)
        speed.append(length.mean())
        way.append(flow[:, fastest].mean(axis=1))
    return Motion(np.array(change), np.array(speed), np.array(way))


def inside(pairs: int, render: Rendered) -> np.ndarray:
    """Which pairs of neighbouring frames lie inside one clip, bool [pairs]."""
    kept = np.ones(pairs, bool)
    kept[[frame - 1 for frame in (*render.joins, *render.cuts)]] = False
    return kept


def joins(render: Rendered, motion: Motion) -> list[Join]:
    kept, found = inside(len(motion.change), render), []
    change, speed = np.median(motion.change[kept]), np.median(motion.speed[kept])
    for frame in render.joins:
        pair = frame - 1
        around = [*range(max(0, pair - REACH), pair), *range(pair + 1, min(pair + 1 + REACH, len(kept)))]
        before = motion.way[max(0, pair - REACH) : pair].mean(axis=0)
        after = motion.way[pair : pair + REACH].mean(axis=0)
        found.append(
            Join(
                frame, float(motion.change[pair] / change), float(motion.speed[pair] / speed),
                float(motion.change[pair] / max(np.median(motion.change[around]), 1e-6)), angle(before, after),
                bool(np.hypot(*before) >= STILL), frame in render.same_prompt_joins,
            )
        )  # fmt: skip
    return found


def angle(before: np.ndarray, after: np.ndarray) -> float | None:
    """Degrees between two motions, None where one of them is none."""
    lengths = np.hypot(*before), np.hypot(*after)
    if min(lengths) < STILL:
        return None
    return float(np.degrees(np.arccos(np.clip(before @ after / (lengths[0] * lengths[1]), -1, 1))))


def motion_figures(render: Rendered, motion: Motion) -> dict[str, object]:
    """The figures of a render: of its joins, and of frames repeated or left out anywhere.

    The worst of many joins is to be read beside how often a change inside clips is as large: joins_over_limit counts
    joins, inside_over_limit is a share of the pairs.
    """
    found, kept = joins(render, motion), inside(len(motion.change), render)
    jumps, flows = [join.jump for join in found], [join.flow_jump for join in found]
    should_keep = [join for join in found if join.prompt_goes_on and join.moves_before]
    return {
        "change_inside": float(np.median(motion.change[kept])),
        "seam_jump": _spread(jumps),
        "seam_flow_jump": _spread(flows),
        "joins_over_limit": sum(jump > SEAM_LIMIT for jump in jumps),
        "inside_over_limit": float((motion.change[kept] > SEAM_LIMIT * np.median(motion.change[kept])).mean()),
        "repeated_frames": int((motion.change < SAME * np.median(motion.change[kept])).sum()),
        "skipped_at_joins": sum(join.local > DOUBLE for join in found),
        "direction_kept": sum(join.keeps_direction for join in should_keep),
        "direction_to_keep": len(should_keep),
        "joins": [asdict(join) for join in found],
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"mean": float(np.mean(values)), "median": float(np.median(values)), "worst": float(np.max(values))}
