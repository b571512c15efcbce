"""One stretch of a shot becomes a clip, with everything about it decided."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..schedules import Series
from ..settings import RenderSettings
from ..variants import Variant
from .camera import Camera
from .loop import WARM_LATENTS
from .prompts import PromptSegment
from .seeds import clip_seed
from .stream import Rate, Start, Stretch, Window, last_frame, latents_for


@dataclass(frozen=True)
class Clip:
    """One clip: a stretch of a prompt segment, rendered in one window.

    start_frame, end_frame: the output frames it shows, half-open.  shot: which shot it belongs to.
    start: "noise"; "latents": pinned to the last prefix_latents of the shot's stream; "image": its frame 0 is
        given, as `picture`, or (dropped_frames = 1) as native frame native_start - 1 of this shot;
        "frames": its first dropped_frames are given, as the native frames of this shot before native_start.
    num_frames, latent_frames: the whole window: prefix, new latents, then what is trimmed (tail_latents of it
        are what the next clip cross-fades from).
    stream_latents_before: complete latents of the shot's stream that stay; the new ones come behind them.
    new_frames: native frames that the new latents add, without dropped_frames; native_start: the first of
        them.  A clip whose native_start is not past the stream's end replaces what was there.
    carried_frames: native frames of the former clip, not shown yet, that open this one.
    overlap_latents: new latents that cross-fade out of the former clip's tail.
    window_latents, window_overlap: the window of a clip that is made of several together; 0 = made at once.
    ring_latents: of a clip whose end flows into its start: how many of its last latents its decoding begins with.
    moves: the camera moves the new frames once they are made; camera_strength: how much of what that gives is kept.
    loras: (name as in the settings, strength), those that do anything here.
    video_strength: how much is kept of the init video, 0 = there is none.
    end_picture: what the window's last frame is to be, "" for anything: the next clip starts from it.
    to_first_frame: the window's last frame is the video's first one: end_picture, or without that as it was made.
    guidance: guidance_scale for each latent frame of the window, each at its own time.
    """

    index: int
    shot: int
    start_frame: int
    end_frame: int
    num_frames: int
    latent_frames: int
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance: tuple[float, ...]
    seed: int
    num_inference_steps: int
    shift: float
    strength: float
    solver: str
    start: Start
    prefix_latents: int
    stream_latents_before: int
    new_latents: int
    new_frames: int
    native_start: int
    carried_frames: int
    dropped_frames: int
    overlap_latents: int
    tail_latents: int
    moves: bool
    camera_strength: float
    picture: str
    end_picture: str
    loras: tuple[tuple[str, float], ...] = ()
    window_latents: int = 0
    window_overlap: int = 0
    ring_latents: int = 0
    video_strength: float = 0.0
    to_first_frame: bool = False


@dataclass(frozen=True)
class ClipMaker:
    """What all clips of a plan have in common."""

    settings: RenderSettings
    variant: Variant
    seed: int
    segments: list[PromptSegment]
    series: dict[str, Series]
    solver_at: Callable[[int], str]
    rate: Rate
    window: Window
    loras: Mapping[str, Series]
    camera: Camera | None = None

    def clip(self, index: int, stretch: Stretch) -> Clip:
        frame = stretch.start
        needed = stretch.prefix + stretch.new + stretch.tail
        latents = stretch.ring or max(needed, self.window.least, self._reach(stretch))
        joint = self.window.joint if stretch.ring or latents > self.window.joint else 0
        prompt, negative = self._texts(frame)
        return Clip(
            index=index,
            shot=stretch.shot,
            start_frame=frame,
            end_frame=stretch.end,
            num_frames=last_frame(latents) + 1,
            latent_frames=latents,
            prompt=prompt,
            negative_prompt=negative,
            guidance_scale=self.series["guidance_scale"].at(frame),
            guidance=self._guidance(stretch, latents),
            seed=self._seed(index, frame),
            num_inference_steps=int(self.series["num_inference_steps"].at(frame)),
            shift=self.series["shift"].at(frame),
            strength=self.series["strength"].at(frame),
            solver=self.solver_at(frame),
            start=stretch.kind,
            prefix_latents=stretch.prefix,
            stream_latents_before=stretch.before,
            new_latents=stretch.new,
            new_frames=stretch.new_frames,
            native_start=stretch.first_native,
            carried_frames=stretch.carried,
            dropped_frames=stretch.dropped,
            overlap_latents=stretch.overlap,
            tail_latents=stretch.tail,
            moves=bool(self.camera and self.camera.moves(frame, stretch.end)),
            camera_strength=self.series["camera_strength"].at(frame),
            loras=tuple((name, at) for name, strength in self.loras.items() if (at := strength.at(frame))),
            picture=stretch.picture,
            end_picture=stretch.end_picture,
            window_latents=joint,
            window_overlap=min(self.window.context, joint - 1) if joint else 0,
            ring_latents=WARM_LATENTS if stretch.ring else 0,
            to_first_frame=stretch.to_first_frame,
            video_strength=self.series["video_strength"].at(frame) if self.settings.init_video else 0.0,
        )

    def _reach(self, stretch: Stretch) -> int:
        """Latents of a window whose last frame is that of the output frame behind the stretch, where it is given."""
        if not (stretch.end_picture or stretch.to_first_frame):
            return 0
        native = self.rate.ceil(stretch.end - stretch.shot_start)
        if stretch.before:
            latents = latents_for(native) - (stretch.before - stretch.prefix)
        else:
            latents = latents_for(native - (stretch.first_native - stretch.dropped))
        return min(latents, self.window.size)

    def _texts(self, frame: int) -> tuple[str, str]:
        """The prompts at a frame; where the global negative prompt is left empty, the model's own stands in."""
        found = bisect_right(self.segments, frame, key=lambda segment: segment.start_frame) - 1
        prompt, negative = self.segments[found].texts(frame, self.seed, self.settings.max_frames)
        if not self.settings.negative_prompt.strip():
            negative = ", ".join(filter(None, (negative, self.variant.defaults.negative_prompt)))
        return prompt, negative

    def _seed(self, index: int, frame: int) -> int:
        behavior = self.settings.seed_behavior
        scheduled = self.series["seed_schedule"].at(frame) if behavior == "schedule" else -1.0
        return clip_seed(behavior, self.seed, index, iter_n=self.settings.seed_iter_n, scheduled=scheduled)

    def _guidance(self, stretch: Stretch, latents: int) -> tuple[float, ...]:
        """The schedule in the middle of each latent's frames, but never outside the frames the clip shows."""
        values = self.series["guidance_scale"].values
        if (
            values[stretch.start] == values[stretch.end - 1]
            and (values[stretch.start : stretch.end] == values[stretch.start]).all()
        ):
            return (float(values[stretch.start]),) * latents
        first = stretch.before - stretch.prefix
        base = stretch.first_native - stretch.dropped if stretch.dropped else 0
        if stretch.ring:  # its latent 0 holds frames 0 to 3
            first, base = 1, -1
        middles = np.maximum(4 * np.arange(first, first + latents) - 1.5, 0) + base
        frames = stretch.shot_start + np.floor(middles * self.rate.den / self.rate.num).astype(np.int64)
        return tuple(values[np.clip(frames, stretch.start, stretch.end - 1)].tolist())
