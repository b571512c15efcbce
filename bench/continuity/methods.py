"""What is compared: ways to go on from clip to clip, on takes of 12 clips that the demo checkpoint can follow."""

from __future__ import annotations

from typing import Any

BASELINE, JOINT = "last frame", "joint"

# Name -> what it changes in the settings.
METHODS: dict[str, dict[str, Any]] = {
    "last frame": {"continuity": "image", "colour": "free"},
    "last frame with colour": {"continuity": "image", "colour": "keep"},
    "latents": {"continuity": "latents", "colour": "free"},
    "latents with colour": {"continuity": "latents", "colour": "keep"},
    "joint": {"continuity": "joint", "colour": "free"},
    "joint with colour": {"continuity": "joint", "colour": "keep"},
    "cuts": {"continuity": "cut"},
}

# One take a seed: the same look throughout, so that every change of colour is drift; there and back, because the
# world ends at the picture's edge.  17 frames fill the first window, 12 is what a window of 17 adds to 2 latents.
TAKES = (
    "a red balloon drifts slowly to the {} over the sea during the day",
    "a blue car drives slowly to the {} through the desert at sunset",
    "a yellow ball rolls slowly to the {} over green hills during the day",
)
CLIPS, FIRST, ADDED, LEG = 12, 17, 12, 4  # LEG: clips in one direction
WAYS = ("right", "left")


def frames_of(clips: int) -> int:
    """How many frames a take of so many clips has."""
    return FIRST + ADDED * (clips - 1)


MAX_FRAMES = frames_of(CLIPS)


def takes_prompts(take: int, clips: int = CLIPS) -> dict[int, str]:
    """The first frame of each clip, and its prompt."""
    starts = [0, *map(frames_of, range(1, clips))]
    return {frame: TAKES[take].format(WAYS[clip // LEG % 2]) for clip, frame in enumerate(starts)}


def settings_of(method: str, take: int, seed: int, clips: int = CLIPS) -> dict[str, Any]:
    """The settings of one render, every clip a keyframe of its own so that all methods have the same ones."""
    prompts = takes_prompts(take, clips)
    if METHODS[method]["continuity"] == JOINT:  # windows are made together as far as a prompt goes
        frames = list(prompts)
        prompts = {now: prompts[now] for before, now in zip([-1, *frames], frames, strict=False)
                   if prompts.get(before) != prompts[now]}  # fmt: skip
    return {
        "prompts": {str(frame): text for frame, text in prompts.items()},
        "W": 128, "H": 80, "fps": 16, "max_frames": frames_of(clips), "seed": seed, "model": "demo",
        "skip_video_creation": True, "make_srt": False, **METHODS[method],
    }  # fmt: skip
