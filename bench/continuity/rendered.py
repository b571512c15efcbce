"""A finished render read back from its folder: its frames, where its clips begin, where it cuts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from deforum_helpers.video.frames import PngSequence


@dataclass(frozen=True)
class Clip:
    """Output frames [start, end); shot and prompt as the render's plan has them."""

    start: int
    end: int
    shot: int
    prompt: str


@dataclass(frozen=True)
class Rendered:
    """frames: uint8 [F, H, W, 3].  seconds: what the worker spent on the clips, by part."""

    name: str
    frames: np.ndarray
    clips: tuple[Clip, ...]
    seconds: dict[str, float]

    @property
    def joins(self) -> list[int]:
        """First frames of the clips that go on from the one before."""
        return [now.start for before, now in pairwise(self.clips) if now.shot == before.shot]

    @property
    def cuts(self) -> list[int]:
        return [now.start for before, now in pairwise(self.clips) if now.shot != before.shot]

    @property
    def same_prompt_joins(self) -> set[int]:
        """Joins that the prompt goes on over: what moves should go on moving."""
        joins = [(before, now) for before, now in pairwise(self.clips) if now.shot == before.shot]
        return {now.start for before, now in joins if now.prompt == before.prompt}


def read_render(folder: Path, timestring: str = "") -> Rendered:
    """The job of a folder, the newest one if no timestring is named.

    Raises FileNotFoundError where there is none, ValueError where it isn't finished.
    """
    records = sorted(folder.glob(f"{timestring or '*'}_work/manifest.json"))
    if not records:
        raise FileNotFoundError(f"{folder} holds no job's record (*_work/manifest.json)")
    record = json.loads(records[-1].read_text(encoding="utf-8"))
    if record["state"] != "done":
        raise ValueError(f"{records[-1]} is {record['state']}, not done")
    timestring = records[-1].parent.name.removesuffix("_work")
    plan, seconds = record["plan"], {}
    for clip in record["clips"]:
        for part, spent in clip["seconds"].items():
            seconds[part] = seconds.get(part, 0.0) + spent
    clips = tuple(Clip(c["start_frame"], c["end_frame"], c["shot"], c["prompt"]) for c in plan["clips"])
    frames = np.stack(list(PngSequence(folder, timestring, plan["max_frames"])))
    return Rendered(folder.name, frames, clips, seconds)
