"""Backgrounds of the demo world: four sceneries at three times of day, flat-shaded and static.

A background never moves: the eye then follows the one object, and a tiny model spends its capacity on that object.
Layouts differ only in where sun, clouds, trees and peaks stand.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

HEIGHT, WIDTH = 80, 128
SCENERIES = ("sea", "hills", "desert", "mountains")
TIMES = ("day", "sunset", "night")
LAYOUTS = 2

# top, middle and bottom of the sky
SKY = {
    "day": ((92, 168, 238), (150, 206, 248), (222, 240, 252)),
    "sunset": ((104, 74, 148), (232, 122, 104), (255, 206, 128)),
    "night": ((10, 14, 44), (24, 32, 82), (60, 74, 134)),
}
LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (0.88, 0.66, 0.60), "night": (0.32, 0.38, 0.62)}
CLOUD = {"day": (255, 255, 255), "sunset": (255, 186, 156), "night": (62, 74, 124)}
LAMP = {"day": (255, 244, 180), "sunset": (255, 232, 150), "night": (244, 244, 226)}
SEA = {
    "day": ((134, 210, 232), (36, 124, 190)),
    "sunset": ((244, 166, 124), (116, 68, 124)),
    "night": ((48, 62, 120), (14, 22, 64)),
}
YY, XX = np.meshgrid(np.arange(HEIGHT, dtype=np.float32), np.arange(WIDTH, dtype=np.float32), indexing="ij")


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _over(image: np.ndarray, colour: tuple | np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return image + (np.asarray(colour, np.float32) - image) * alpha[..., None]


def _sky(time: str, horizon: float) -> np.ndarray:
    stops = np.asarray(SKY[time], np.float32)
    t = np.clip(YY / horizon, 0.0, 1.0)[..., None]
    upper = stops[0] + (stops[1] - stops[0]) * (t / 0.6)
    lower = stops[1] + (stops[2] - stops[1]) * ((t - 0.6) / 0.4)
    return np.where(t < 0.6, upper, lower)


def _lamp(image: np.ndarray, time: str, x: float, y: float) -> np.ndarray:
    """Sun or crescent moon with its glow."""
    radius = {"day": 7.0, "sunset": 10.0, "night": 7.0}[time]
    distance = np.hypot(XX - x, YY - y)
    sky = image.copy()
    image = _over(image, LAMP[time], 0.45 * np.exp(-((distance / (2.3 * radius)) ** 2)))
    disc = smoothstep(radius + 1.4, radius - 1.4, distance)
    if time == "night":
        disc = disc * smoothstep(radius - 2.4, radius + 0.4, np.hypot(XX - x - 4.0, YY - y + 2.0))
        return _over(image, LAMP[time], disc) * 0.85 + 0.15 * _over(sky, LAMP[time], disc)
    return _over(image, LAMP[time], disc)


def _stars(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for k in range(7):
        x, y = (k + rng.uniform(0.2, 0.8)) * WIDTH / 7, rng.uniform(3, 30)
        glow = np.exp(-((XX - x) ** 2 + (YY - y) ** 2) / 5.0)
        image = _over(image, (255, 255, 236), rng.uniform(0.6, 0.9) * glow)
    return image


def _clouds(image: np.ndarray, time: str, centres: tuple[tuple[float, float], ...]) -> np.ndarray:
    for x, y in centres:
        puffs = [np.hypot(XX - x - dx, (YY - y - dy) * 1.25) - r for dx, dy, r in ((-9, 1, 5), (0, -1, 7), (9, 1, 5))]
        shape = np.maximum(np.minimum.reduce(puffs), YY - y - 3.5)
        image = _over(image, CLOUD[time], 0.8 * smoothstep(2.0, -2.0, shape))
    return image


def _ridge(image: np.ndarray, top: np.ndarray, colour: tuple, light: np.ndarray, fall: float = 26.0) -> np.ndarray:
    """Fill below a line; the ground darkens a little toward the viewer."""
    depth = np.clip((YY - top) / 30.0, 0.0, 1.0)[..., None]
    return (
        image
        + ((np.asarray(colour, np.float32) - fall * depth) * light - image) * smoothstep(-1.4, 1.4, YY - top)[..., None]
    )


def _wave(base: float, height: float, length: float, phase: float) -> np.ndarray:
    return base + height * np.sin(XX * (2 * np.pi / length) + phase)


def _sea(image: np.ndarray, time: str, horizon: float, lamp_x: float) -> np.ndarray:
    far, near = (np.asarray(c, np.float32) for c in SEA[time])
    depth = np.clip((YY - horizon) / (HEIGHT - horizon), 0.0, 1.0)
    sea = far + (near - far) * depth[..., None]
    streaks = np.sin((YY - horizon) * 0.62 + 1.2 * np.sin(XX * 0.05)) * smoothstep(0.05, 0.3, depth)
    sea = _over(sea, np.minimum(far + 50, 255), 0.16 * np.clip(streaks, 0, 1))
    glint = np.exp(-(((XX - lamp_x) / (6 + 12 * depth)) ** 2)) * (1 - 0.7 * depth)
    sea = _over(sea, LAMP[time], glint * (0.2 if time == "day" else 0.5))
    return image + (sea - image) * smoothstep(-0.8, 0.8, YY - horizon)[..., None]


def _hills(image: np.ndarray, light: np.ndarray, flip: int) -> np.ndarray:
    image = _ridge(image, _wave(48, 5, 90, 0.6 + 3 * flip), (150, 208, 140), light)
    for x in (16.0, 34.0) if flip else (96.0, 113.0):
        trunk = np.maximum(np.abs(XX - x) - 1.8, np.abs(YY - 56) - 5)
        image = _over(image, np.float32((112, 78, 50)) * light, smoothstep(1.2, -1.2, trunk))
        image = _over(image, np.float32((58, 136, 74)) * light, smoothstep(1.4, -1.4, np.hypot(XX - x, YY - 48) - 7.0))
    return _ridge(image, _wave(59, 3, 120, 2.0 + 2 * flip), (104, 182, 92), light)


def _desert(image: np.ndarray, light: np.ndarray, flip: int) -> np.ndarray:
    image = _ridge(image, _wave(50, 4, 80, 1.0 + 2.5 * flip), (246, 216, 156), light)
    x = 32.0 if flip else 96.0  # a pyramid, with a bright and a shaded side
    edge = 33 + np.abs(XX - x) * 0.9
    sides = np.where((x < XX)[..., None], np.float32((206, 160, 100)), np.float32((250, 214, 148))) * light
    image = image + (sides - image) * smoothstep(-1.6, 1.6, YY - edge)[..., None]
    return _ridge(image, _wave(60, 3, 110, 4.0 + 2 * flip), (236, 190, 122), light)


def _mountains(image: np.ndarray, light: np.ndarray, flip: int) -> np.ndarray:
    for x, top, half in ((92, 30, 40), (30, 20, 46)) if flip else ((36, 30, 40), (98, 20, 46)):
        edge = top + np.abs(XX - x) * (58 - top) / half
        shade = np.where((x < XX)[..., None], np.float32((112, 124, 156)), np.float32((148, 160, 190))) * light
        snow = smoothstep(1.6, -1.6, YY - (top + 13 + 1.5 * np.sin((XX - x) * 0.35)))[..., None]
        body = shade + (np.float32((248, 250, 255)) * (light * 0.8 + 0.2) - shade) * snow
        image = image + (body - image) * smoothstep(-1.6, 1.6, YY - edge)[..., None]
    return _ridge(image, _wave(58, 2, 100, 1.0 + 2 * flip), (232, 240, 250), light)


@lru_cache(maxsize=64)
def background(scenery: str, time: str, layout: int) -> np.ndarray:
    """One static background.  Returns [80, 128, 3] float32 in 0..255; layouts 0 and 1 are roughly mirrored."""
    flip = layout % 2
    rng = np.random.default_rng(40 + layout)
    light = np.asarray(LIGHT[time], np.float32)
    horizon = 48.0
    lamp_x = 24.0 if flip else 104.0
    image = _sky(time, horizon)
    if time == "night":
        image = _stars(image, rng)
    image = _lamp(image, time, lamp_x, {"day": 13.0, "sunset": 36.0, "night": 13.0}[time])
    image = _clouds(image, time, ((86.0, 11.0), (118.0, 24.0)) if flip else ((40.0, 11.0), (8.0, 24.0)))
    if scenery == "sea":
        image = _sea(image, time, horizon, lamp_x)
    else:
        image = {"hills": _hills, "desert": _desert, "mountains": _mountains}[scenery](image, light, flip)
    return image.astype(np.float32)
