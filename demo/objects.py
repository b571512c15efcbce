"""The five objects of the demo world, drawn from signed distances: big, flat-shaded, with soft edges and no thin lines.

All coordinates are pixels relative to the object's centre; x grows in the direction the object faces.
"""

from __future__ import annotations

import numpy as np

OBJECTS = ("ball", "balloon", "bird", "boat", "car")
COLOURS = {
    "red": (230, 40, 44), "orange": (252, 140, 24), "yellow": (254, 226, 52), "green": (40, 172, 72),
    "blue": (38, 88, 230), "purple": (136, 56, 204), "pink": (255, 128, 192), "white": (248, 248, 250),
}  # fmt: skip
# how the light of the hour tints an object; mild, so that colours stay nameable at night
TINT = {"day": (1.0, 1.0, 1.0), "sunset": (0.98, 0.94, 0.90), "night": (0.82, 0.84, 0.94)}
BOX = 32  # half the side of the patch an object is drawn into
EDGE = 2.2  # pixels over which an edge fades: thin or hard detail is what a small VAE loses first


class Sprite:
    """A patch that shapes are painted into: colour [h, w, 3], multiplied by alpha [h, w]."""

    def __init__(self, shape: tuple[int, int], tint: np.ndarray) -> None:
        self.colour = np.zeros((*shape, 3), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.tint = tint

    def fill(self, distance: np.ndarray, colour: tuple | np.ndarray) -> None:
        """Paint where distance < 0, with a soft edge."""
        cover = np.clip(0.5 - distance / EDGE, 0.0, 1.0)
        self.colour += (np.asarray(colour, np.float32) * self.tint - self.colour) * cover[..., None]
        self.alpha += (1.0 - self.alpha) * cover


def ellipse(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    return (np.hypot(x / rx, y / ry) - 1.0) * min(rx, ry)


def box(x: np.ndarray, y: np.ndarray, hx: float, hy: float, radius: float = 1.5) -> np.ndarray:
    ax, ay = np.abs(x) - hx + radius, np.abs(y) - hy + radius
    return np.hypot(np.maximum(ax, 0), np.maximum(ay, 0)) + np.minimum(np.maximum(ax, ay), 0) - radius


def polygon(x: np.ndarray, y: np.ndarray, corners: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Signed distance (exact on the sides) of a convex polygon, corners clockwise on the screen."""
    sides = []
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        nx, ny = by - ay, ax - bx
        sides.append(((x - ax) * nx + (y - ay) * ny) / np.hypot(nx, ny))
    return np.maximum.reduce(sides)


def _ball(s: Sprite, x: np.ndarray, y: np.ndarray, c: np.ndarray, dark: np.ndarray, lite: np.ndarray) -> None:
    disc = ellipse(x, y, 18, 18)
    s.fill(disc, c)
    s.fill(np.maximum(disc, 20.5 - np.hypot(x + 6, y + 7)), dark)
    s.fill(ellipse(x + 6, y + 7, 5, 4), lite)


def _balloon(s: Sprite, x: np.ndarray, y: np.ndarray, c: np.ndarray, dark: np.ndarray, lite: np.ndarray) -> None:
    s.fill(box(x, y - 20, 5.2, 4.0, 1.2), (134, 84, 46))
    skirt = polygon(x, y, ((-14.2, 0.0), (14.2, 0.0), (4.6, 14.0), (-4.6, 14.0)))
    envelope = np.minimum(ellipse(x, y + 6, 16, 15.5), skirt)
    s.fill(envelope, dark)
    s.fill(np.maximum(envelope, ellipse(x, y + 3, 9.0, 20)), c)


def _bird(
    s: Sprite, x: np.ndarray, y: np.ndarray, c: np.ndarray, dark: np.ndarray, lite: np.ndarray, flap: float
) -> None:
    y = y - 5
    s.fill(polygon(x, y, ((-26.0, -7.0), (-10.0, -4.0), (-9.0, 4.0), (-26.0, 3.0))), dark)
    s.fill(polygon(x, y, ((18.0, -10.5), (28.0, -5.0), (18.0, -1.5))), (255, 160, 30))
    s.fill(np.minimum(ellipse(x + 0.5, y, 15, 9.5), ellipse(x - 13, y + 6, 8.5, 8.5)), c)
    s.fill(ellipse(x - 15, y + 7.5, 2.4, 2.4), (24, 24, 36))
    angle = np.pi * (0.62 + 0.07 * flap)  # 0.5 pi is straight up, more leans back
    ux, uy = np.cos(angle), -np.sin(angle)
    along, across = (x - 1) * ux + (y + 1) * uy, -(x - 1) * uy + (y + 1) * ux
    s.fill(ellipse(along - 9.5, across, 14, 7.0), dark)


def _boat(s: Sprite, x: np.ndarray, y: np.ndarray, c: np.ndarray, dark: np.ndarray, lite: np.ndarray) -> None:
    s.fill(polygon(x, y, ((-2.0, -23.0), (-2.0, 3.5), (-19.0, 3.5))), (250, 250, 252))
    s.fill(polygon(x, y, ((0.5, -28.0), (21.0, 3.5), (0.5, 3.5))), c)
    s.fill(polygon(x, y, ((-24.0, 3.5), (25.0, 3.5), (16.0, 15.0), (-17.0, 15.0))), dark)


def _car(s: Sprite, x: np.ndarray, y: np.ndarray, c: np.ndarray, dark: np.ndarray, lite: np.ndarray) -> None:
    cabin, body = box(x + 3, y + 8, 14.5, 9.0, 6.0), box(x, y - 1.5, 24, 7.5, 4.5)
    s.fill(np.minimum(cabin, body), c)
    s.fill(np.maximum(body, 4.0 - y), dark)
    s.fill(box(x + 3.0, y + 8.5, 10.0, 4.4, 2.0), (200, 232, 248))
    s.fill(box(x + 2.4, y + 8.5, 1.3, 5.0, 0.3), c)
    for wheel in (-13.0, 13.0):
        s.fill(ellipse(x - wheel, y - 8, 7.0, 7.0), (38, 38, 48))
        s.fill(ellipse(x - wheel, y - 8, 3.0, 3.0), (200, 202, 210))


_DRAW = {"ball": _ball, "balloon": _balloon, "boat": _boat, "car": _car}


def draw(frame: np.ndarray, kind: str, colour: np.ndarray, at: tuple[float, float], face: int, tint: np.ndarray,
         flap: float = 0.0, alpha: float = 1.0) -> None:  # fmt: skip
    """Paint one object into a frame [H, W, 3] float32, in place; face is 1 (right) or -1 (left)."""
    height, width = frame.shape[:2]
    x0, y0 = round(at[0]), round(at[1])
    rows = slice(max(0, y0 - BOX), min(height, y0 + BOX))
    columns = slice(max(0, x0 - BOX), min(width, x0 + BOX))
    y, x = np.mgrid[rows, columns].astype(np.float32)
    if y.size == 0 or alpha <= 0:
        return
    sprite = Sprite(y.shape, np.asarray(tint, np.float32))
    x, y = (x - at[0]) * face, y - at[1]
    dark, lite = colour * 0.68, colour + (255 - colour) * 0.5
    if kind == "bird":
        _bird(sprite, x, y, colour, dark, lite, flap)
    else:
        _DRAW[kind](sprite, x, y, colour, dark, lite)
    patch = frame[rows, columns]
    patch *= 1.0 - (sprite.alpha * alpha)[..., None]
    patch += sprite.colour * alpha
