"""What a clip looks like against its shot's first one: colours, sharpness; and clips that look the same by accident."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from rendered import Rendered

NEAR_DUPLICATE = 38.0  # dB: clips of one prompt and one seed reach 38 to 44, others stay far below
STARTS = 4  # frames of each clip's start that are compared
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)  # D65


def to_lab(frames: np.ndarray) -> np.ndarray:
    """sRGB, uint8 [.., 3] -> CIE L*a*b*, float32 [.., 3]; one unit is about the least difference that can be seen."""
    v = np.arange(256, dtype=np.float32) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)[frames]
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def sharpness(lightness: np.ndarray) -> float:
    """Root mean square of the lightness gradient, which falls as edges get wider.  lightness: [H, W]."""
    down, across = np.gradient(lightness)
    return float(np.sqrt(np.mean(down * down + across * across)))


def look_figures(render: Rendered) -> dict[str, object]:
    """One value per clip: distance of its colours' mean and spread from the first clip of its shot, in L*a*b*; and
    its sharpness against that one's.  colour_drift is the mean over the last quarter of the clips.

    Means change with what is in the picture, too: an object that moves before another ground.  still_drift doesn't: the
    median, over all places, of how far the median frames of two clips lie apart."""
    means, spreads, sharp, still = [], [], [], []
    for clip in render.clips:
        lab = to_lab(render.frames[clip.start : clip.end])
        means.append(lab.mean(axis=(0, 1, 2)))
        spreads.append(lab.std(axis=(1, 2)).mean(axis=0))
        still.append(np.median(lab, axis=0).reshape(-1, 3))
        sharp.append(float(np.mean([sharpness(frame[..., 0]) for frame in lab])))
    first = {}
    for index, clip in enumerate(render.clips):
        first.setdefault(clip.shot, index)
    anchors = [first[clip.shot] for clip in render.clips]
    mean = [float(np.linalg.norm(means[k] - means[a])) for k, a in enumerate(anchors)]
    spread = [float(np.linalg.norm(spreads[k] - spreads[a])) for k, a in enumerate(anchors)]
    apart = [float(np.linalg.norm(np.median(still[k] - still[a], axis=0))) for k, a in enumerate(anchors)]
    relative = [sharp[k] / max(sharp[a], 1e-6) for k, a in enumerate(anchors)]
    last = -max(1, len(render.clips) // 4)
    return {
        "colour_drift": float(np.mean(mean[last:])),
        "still_drift": float(np.mean(apart[last:])),
        "contrast_drift": float(np.mean(spread[last:])),
        "sharpness_kept": float(np.mean(relative[last:])),
        "mean_lab": [[float(x) for x in row] for row in means],
        "drift_by_clip": mean,
        "still_drift_by_clip": apart,
        "contrast_by_clip": spread,
        "sharpness_by_clip": relative,
    }


def likeness_figures(render: Rendered) -> dict[str, object]:
    """How alike clips begin, in dB, over all pairs; near_duplicates: pairs that no eye tells apart."""
    starts = [render.frames[clip.start : clip.start + STARTS].astype(np.float32) for clip in render.clips]
    pairs = []
    for (a, first), (b, second) in combinations(enumerate(starts), 2):
        n = min(len(first), len(second), render.clips[a].end - render.clips[a].start)
        pairs.append((psnr(first[:n], second[:n]), a, b))
    alike = max(pairs, default=(0.0, 0, 0))
    return {
        "most_alike": {"db": alike[0], "clips": [alike[1], alike[2]]},
        "near_duplicates": [[a, b] for db, a, b in pairs if db >= NEAR_DUPLICATE],
    }


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """dB between pictures of grey values 0 to 255; 99 where they are equal."""
    error = float(np.square(first - second).mean())
    return 99.0 if error == 0 else min(99.0, 10 * float(np.log10(255**2 / error)))
