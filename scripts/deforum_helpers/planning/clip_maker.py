"""One stretch of a shot becomes a clip, with everything about it decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..protocol import PromptPair, TextMix
from ..schedules import Series
from ..settings import RenderSettings
from ..variants import Variant
from .camera import Camera
from .loop import WARM_LATENTS
from .prompts import PromptSegment
from .seeds import clip_seed
from .stream import Rate, Start, Stretch, Window, last_frame, latents_for
from .travel import Span, Travel


@dataclass(frozen=True)
class Clip:
    """One clip: a stretch of a prompt segment, rendered in one window.

    start_frame, end_frame: the output frames it shows, half-open.  shot: which shot it belongs to.
    start: "noise"; "latents": pinned to the last prefix_latents of the shot's stream; "image": its frame 0 is
        given, as `picture`, (video_picture) as what the init video shows then, or (dropped_frames = 1) as native
        frame native_start - 1 of this shot;
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
    prompts, mixes: of a window that hears several prompts, see protocol.ClipRequest; () = `prompt` throughout.
    spans: which of them is heard in which of the output frames; () = `prompt` in all.
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
    video_picture: bool = False
    to_first_frame: bool = False
    prompts: tuple[PromptPair, ...] = ()
    mixes: tuple[TextMix, ...] = ()
    spans: tuple[Span, ...] = ()

    @property
    def heard(self) -> tuple[Span, ...]:
        """Its output frames by what is heard in them."""
        return self.spans or (Span(self.start_frame, self.end_frame, self.prompt, self.negative_prompt),)


@dataclass(frozen=True)
class ClipMaker:
    """What all clips of a plan have in common.  solvers: one name per output frame."""

    settings: RenderSettings
    variant: Variant
    seed: int
    segments: list[PromptSegment]
    series: dict[str, Series]
    solvers: np.ndarray
    rate: Rate
    window: Window
    loras: Mapping[str, Series]
    travel: Travel
    camera: Camera | None = None

    def clip(self, index: int, stretch: Stretch) -> Clip:
        frame = stretch.start
        needed = stretch.prefix + stretch.new + stretch.tail
        latents = stretch.ring or max(needed, self.window.least, self._reach(stretch))
        joint = self.window.joint if stretch.ring or latents > self.window.joint else 0
        (prompt, negative), prompts, mixes = self._heard(stretch, latents)
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
            solver=str(self.solvers[frame]),
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
            video_picture=stretch.video_picture,
            window_latents=joint,
            window_overlap=min(self.window.context, joint - 1) if joint else 0,
            ring_latents=WARM_LATENTS if stretch.ring else 0,
            to_first_frame=stretch.to_first_frame,
            video_strength=self.series["video_strength"].at(frame) if self.settings.init_video else 0.0,
            prompts=prompts,
            mixes=mixes,
            spans=self._spans(frame, stretch.end) if self.travel.goes else (),
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

    def _heard(
        self, stretch: Stretch, latents: int
    ) -> tuple[tuple[str, str], tuple[PromptPair, ...], tuple[TextMix, ...]]:
        """The prompts of the clip's first frame; and, if its window hears several, all of them and who hears what."""
        frame = stretch.start
        present = self.travel.segment(frame)
        if not self.travel.goes:
            return self._texts(present, frame), (), ()
        times = stretch.shot_start + self._middles(stretch, latents) * self.rate.den / self.rate.num
        mixes = self.travel.heard(times, frame)
        segments = sorted({index for mix in mixes for index in mix.prompts})
        if len(segments) == 1:
            return self._texts(segments[0], frame), (), ()
        prompts = tuple(PromptPair(*self._texts(index, frame)) for index in segments)
        own = {index: number for number, index in enumerate(segments)}
        numbered = tuple(replace(mix, prompts=tuple(own[index] for index in mix.prompts)) for mix in mixes)
        return self._texts(present, frame), prompts, numbered

    def _spans(self, start: int, end: int) -> tuple[Span, ...]:
        """The clip's output frames by what is heard, () where that is one prompt."""
        spans = []
        for first, last, index, comes in self.travel.stretches(start, end):
            texts = self._texts(index, start)
            if comes:
                former, negative = self._texts((index - 1) % len(self.segments), start)
                spans.append(Span(first, last, former, negative, texts[0], self.travel.transitions[index].mode))
            else:
                spans.append(Span(first, last, *texts))
        return tuple(spans) if len(spans) > 1 or spans[0].mode else ()

    def _texts(self, segment: int, frame: int) -> tuple[str, str]:
        """A segment's prompts as they read in the clip that starts at a frame; where the global negative prompt is
        left empty, the model's own stands in."""
        found = self.segments[segment]
        prompt, negative = found.texts(max(frame, found.start_frame), self.seed, self.settings.max_frames)
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
        frames = np.floor(self._middles(stretch, latents) * self.rate.den / self.rate.num).astype(np.int64)
        return tuple(values[np.clip(stretch.shot_start + frames, stretch.start, stretch.end - 1)].tolist())

    def _middles(self, stretch: Stretch, latents: int) -> np.ndarray:
        """Where the middle of each latent of the window lies, in native frames of the shot."""
        first = stretch.before - stretch.prefix
        base = stretch.first_native - stretch.dropped if stretch.dropped else 0
        if stretch.ring:  # its latent 0 holds frames 0 to 3
            first, base = 1, -1
        return np.maximum(4 * np.arange(first, first + latents) - 1.5, 0) + base
