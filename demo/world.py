"""The demo world: short captioned stories of one object in one scenery, rendered with numpy alone.

A story is a shot of several clips, exactly as the renderer makes them: clip 0 is FIRST_FRAMES long, each further clip
adds CLIP_FRAMES and may change the look (what the next prompt asks for). Everything that a caption doesn't say is
fixed or nearly so (little entropy), which is what lets a model of two million parameters draw sharply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from objects import COLOURS, OBJECTS, TINT, draw
from scenery import HEIGHT, LAYOUTS, SCENERIES, TIMES, WIDTH, background, smoothstep

MOTIONS = ("right", "left", "up", "down", "still")
SPEEDS = ("slow", "normal", "fast")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS), "object": OBJECTS, "motion": MOTIONS, "scenery": SCENERIES, "time": TIMES,
}  # fmt: skip

FPS = 16
FIRST_FRAMES, CLIP_FRAMES = 17, 12  # 5 latents, then 3 latents a clip
BLEND_FRAMES = 8  # a change of look takes the first two new latents
PACE = {"slow": 0.7, "normal": 1.1, "fast": 1.6}
STEP = {"right": (1.5, 0.0), "left": (-1.5, 0.0), "up": (0.0, -1.05), "down": (0.0, 1.05), "still": (0.0, 0.0)}
X_RANGE = (29.0, 99.0)
Y_RANGE = {"ball": (20.0, 58.0), "balloon": (24.0, 54.0), "bird": (24.0, 56.0)}
GROUND = {"boat": 58.0, "car": 60.0}
FLAP_FRAMES = 32


@dataclass(frozen=True)
class Look:
    """What a caption can ask for."""

    colour: str
    object: str
    motion: str
    scenery: str
    time: str
    speed: str = "normal"


@dataclass(frozen=True)
class Story:
    """Looks in order, one per clip, and where the first one starts."""

    looks: tuple[Look, ...]
    start: tuple[float, float]
    face: int = 1
    layout: int = 0

    @property
    def num_frames(self) -> int:
        return FIRST_FRAMES + CLIP_FRAMES * (len(self.looks) - 1)


def join_frame(clip: int) -> int:
    """First frame that clip (>= 1) adds to its story."""
    return FIRST_FRAMES + CLIP_FRAMES * (clip - 1)


def possible(look: Look) -> bool:
    """Boats keep to the sea, cars to the land, and neither rises nor falls."""
    if look.object not in GROUND:
        return True
    return (look.scenery == "sea") == (look.object == "boat") and look.motion not in ("up", "down")


def sample_look(rng: np.random.Generator) -> Look:
    """Objects and motions are drawn first, so that boats and cars are as frequent as the rest."""
    pick = lambda options: str(options[rng.integers(len(options))])  # noqa: E731
    kind = pick(OBJECTS)
    while True:
        look = Look(pick(tuple(COLOURS)), kind, pick(MOTIONS), pick(SCENERIES), pick(TIMES),
                    str(rng.choice(SPEEDS, p=(0.2, 0.6, 0.2))))  # fmt: skip
        if possible(look):
            return look


def y_range(kind: str) -> tuple[float, float]:
    return Y_RANGE.get(kind, Y_RANGE["ball"])


def sample_start(look: Look, rng: np.random.Generator) -> tuple[float, float]:
    """A start that leaves room for the motion asked for, nearly fixed."""
    low, high = y_range(look.object)
    jitter = rng.uniform(-4.0, 4.0, 2)
    x = {"right": X_RANGE[0] + 6, "left": X_RANGE[1] - 6}.get(look.motion, WIDTH / 2)
    y = {"up": high - 4, "down": low + 4}.get(look.motion, (low + high) / 2 - 2)
    return float(x + jitter[0]), float(np.clip(y + jitter[1], low, high))


def sample_start_anywhere(look: Look, rng: np.random.Generator) -> tuple[float, float]:
    """For clips that start from a given picture: anywhere with some room ahead."""
    low, high = y_range(look.object)
    dx, dy = STEP[look.motion]
    x = rng.uniform(X_RANGE[0] + 22 * (dx < 0), X_RANGE[1] - 22 * (dx > 0))
    y = rng.uniform(low + 14 * (dy < 0), high - 14 * (dy > 0))
    return float(x), float(y)


def next_look(look: Look, rng: np.random.Generator, at: tuple[float, float]) -> Look:
    """What the following prompt asks for: often the same, or a turn, an hour, a colour, a place, another object."""
    if rng.uniform() < 0.2 and has_room(look, at):
        return look
    while True:
        new = look
        chances = rng.uniform(size=5)
        if chances[0] < 0.65:
            new = replace(new, motion=str(rng.choice(MOTIONS)))
        if chances[1] < 0.45:
            new = replace(new, time=str(rng.choice(TIMES)))
        if chances[2] < 0.40:
            new = replace(new, colour=str(rng.choice(tuple(COLOURS))))
        if chances[3] < 0.25:
            new = replace(new, scenery=str(rng.choice(SCENERIES)))
        if chances[4] < 0.20:
            new = replace(new, object=str(rng.choice(OBJECTS)))
        if possible(new) and has_room(new, at):
            return new


def has_room(look: Look, at: tuple[float, float], frames: int = CLIP_FRAMES) -> bool:
    """Whether the motion asked for can be seen from here."""
    (dx, dy), (low, high) = STEP[look.motion], y_range(look.object)
    x, y = at[0] + 0.8 * dx * frames, at[1] + 0.8 * dy * frames
    return X_RANGE[0] <= x <= X_RANGE[1] and (dy == 0 or low <= y <= high)


def trajectory(story: Story) -> np.ndarray:
    """Where the object is.  Returns [num_frames, 2] float32 (x, y), for the free-flying height.

    The step of each frame is the look's velocity, blended over a join and slowed down in front of an edge.
    """
    out = np.empty((story.num_frames, 2), np.float32)
    position = np.asarray(story.start, np.float32)
    for frame in range(story.num_frames):
        out[frame] = position
        clip, mix = clip_and_mix(frame + 1)
        clip = min(clip, len(story.looks) - 1)
        now, before = story.looks[clip], story.looks[max(clip - 1, 0)]
        velocity = mix * _velocity(now) + (1 - mix) * _velocity(before)
        position = position + velocity * _room(position, velocity, y_range(now.object))
    return out


def clip_and_mix(frame: int) -> tuple[int, float]:
    """Which clip a frame belongs to, and how far its look has taken over (0..1)."""
    if frame < FIRST_FRAMES:
        return 0, 1.0
    clip = 1 + (frame - FIRST_FRAMES) // CLIP_FRAMES
    return clip, float(smoothstep(-0.5, BLEND_FRAMES - 1.0, np.float32(frame - join_frame(clip))))


def _velocity(look: Look) -> np.ndarray:
    return np.asarray(STEP[look.motion], np.float32) * PACE[look.speed]


def _room(position: np.ndarray, velocity: np.ndarray, y_limits: tuple[float, float]) -> np.ndarray:
    """1 far from the edge that the object moves to, falling to 0 at it, negative (back inside) past it."""
    factor = np.ones(2, np.float32)
    for axis, (low, high) in enumerate((X_RANGE, y_limits)):
        ahead = high - position[axis] if velocity[axis] > 0 else position[axis] - low
        factor[axis] = np.clip(ahead / 6.0, -1.0, 1.0)
    return factor


def object_height(kind: str, position: np.ndarray) -> float:
    """Ground objects have a height of their own; a boat rocks as it goes."""
    if kind == "boat":
        return GROUND["boat"] + 0.8 * float(np.sin(position[0] * 0.25))
    return GROUND.get(kind, float(position[1]))


def centres(story: Story) -> np.ndarray:
    """Object centres as drawn.  Returns [num_frames, 2] float32."""
    path = trajectory(story)
    for frame, position in enumerate(path):
        look = story.looks[min(clip_and_mix(frame)[0], len(story.looks) - 1)]
        path[frame, 1] = object_height(look.object, position)
    return path


def faces(story: Story) -> list[int]:
    """The side each clip's object faces: the one it goes to, else the one it faced before."""
    out, face = [], story.face
    for look in story.looks:
        face = {"right": 1, "left": -1}.get(look.motion, face)
        out.append(face)
    return out


def render(story: Story) -> np.ndarray:
    """Draw a story.  Returns uint8 [num_frames, 80, 128, 3]."""
    path, face = trajectory(story), faces(story)
    out = np.empty((story.num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for frame, position in enumerate(path):
        clip, mix = clip_and_mix(frame)
        new, old = story.looks[clip], story.looks[max(clip - 1, 0)]
        image = background(new.scenery, new.time, story.layout)
        if mix < 1:
            image = mix * image + (1 - mix) * background(old.scenery, old.time, story.layout)
        image = image.copy()
        tint = mix * np.float32(TINT[new.time]) + (1 - mix) * np.float32(TINT[old.time])
        colour = mix * np.float32(COLOURS[new.colour]) + (1 - mix) * np.float32(COLOURS[old.colour])
        flap = float(np.cos(2 * np.pi * frame / FLAP_FRAMES))
        same = new.object == old.object and face[clip] == face[max(clip - 1, 0)]
        if not same and mix < 1:
            at = (float(position[0]), object_height(old.object, position))
            draw(image, old.object, colour, at, face[max(clip - 1, 0)], tint, flap, 1 - mix)
        at = (float(position[0]), object_height(new.object, position))
        draw(image, new.object, colour, at, face[clip], tint, flap, 1.0 if same else mix)
        out[frame] = np.clip(image + 0.5, 0, 255)
    return out


def sample_story(rng: np.random.Generator, clips: int = 1, anywhere: bool = False) -> Story:
    """A fresh story; with more than one clip its looks follow each other as prompts of a schedule do."""
    look = sample_look(rng)
    start = sample_start_anywhere(look, rng) if anywhere else sample_start(look, rng)
    story = Story((look,), start, 1 if rng.uniform() < 0.5 or not anywhere else -1, int(rng.integers(LAYOUTS)))
    for _ in range(clips - 1):
        at = trajectory(story)[-1]
        story = replace(story, looks=(*story.looks, next_look(story.looks[-1], rng, (float(at[0]), float(at[1])))))
    return story
