"""A video that a render follows: which of its frames each clip is drawn over, and what is said of it beforehand.

Output frame k shows what the video shows at the same time, or, with extract_nth_frame, the k-th of every n-th frames as
in Deforum.  The model's own frames lie between output frames, and show what the video shows there.
"""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np

from .camera_frames import Filmed
from .errors import SettingsError
from .settings import RenderSettings
from .timeline import Clip, Plan
from .video.ffmpeg import exact_rate
from .video.source import Reel, Source, open_source


def init_video(settings: RenderSettings, ffmpeg: str | Path = "") -> Source | None:
    """The video that settings name, None if none.  Raises SettingsError at the field that is wrong."""
    if not settings.init_video:
        return None
    source = open_source(settings.init_video, "init_video", ffmpeg)
    first, last = settings.extract_from_frame, settings.extract_to_frame
    if first >= source.frames:
        raise SettingsError(
            "the video ends before that", where="extract_from_frame", got=first, allowed=f"0 to {source.frames - 1}"
        )
    if last != -1 and last < first:
        raise SettingsError(
            "lies before extract_from_frame", where="extract_to_frame", got=last, allowed=f"-1 or {first} and more"
        )
    return source


def notes_on(settings: RenderSettings, source: Source) -> list[str]:
    """What is shown of the video, and whether it suffices."""
    suffices, shown = _outputs(settings, source), min(settings.max_frames, _outputs(settings, source))
    first, last = (_index(settings, source, Fraction(frame)) for frame in (0, shown - 1))
    notes = [
        f"init_video: its frames {first} to {last} of {source.frames} are drawn over ({source.width} x {source.height},"
        f" {float(source.rate):.5g} fps)"
    ]
    if suffices < settings.max_frames:
        notes.append(
            f"init_video: ends before frame {suffices}, from where on its last picture stands still; max_frames"
            f" {suffices} suits it"
        )
    return notes


class Guides:
    """The frames that a job's clips are drawn over.  A decoder is at work from the first one asked for to close()."""

    def __init__(self, plan: Plan, settings: RenderSettings, source: Source) -> None:
        self._plan, self._settings, self.source = plan, settings, source
        self._reel: Reel | None = None
        self._filmed = Filmed(plan, settings)

    def follows(self, clip: Clip) -> bool:
        return clip.video_strength > 0

    def indices(self, clip: Clip) -> list[int]:
        """The video's frames that a clip's window is drawn over, one for each native frame of it.

        Behind a prefix of latents the first one is the frame before the new ones, see wan/guide.py.
        """
        if clip.prefix_latents:
            first, count = clip.native_start - 1, 4 * (clip.latent_frames - clip.prefix_latents) + 1
        else:
            first, count = clip.native_start - clip.dropped_frames, clip.num_frames
        positions = (self._plan.position(clip, native) for native in range(first, first + count))
        return [_index(self._settings, self.source, position) for position in positions]

    def frames(self, clip: Clip, cancel: threading.Event | None = None) -> np.ndarray:
        """The frames that a clip is drawn over, uint8 [4n+1, H, W, 3]; later clips after earlier ones.

        A camera that has moved in the clip's shot shows them from where it stands at the clip's start.

        Raises RenderError, InputError, RenderCancelled.
        """
        if self._reel is None:
            stretches = {other.index: self.indices(other) for other in self._plan.clips if self.follows(other)}
            self._reel = Reel(self.source, stretches, self._settings.width, self._settings.height)
        return self._filmed.frames(clip, self._reel.read(clip.index, cancel))

    def close(self) -> None:
        if self._reel is not None:
            self._reel.close()


def _index(settings: RenderSettings, source: Source, position: Fraction) -> int:
    """The video's frame at a position in output frames."""
    passed = math.floor(position * _step(settings, source))
    return min(settings.extract_from_frame + max(passed, 0), _last(settings, source))


def _step(settings: RenderSettings, source: Source) -> Fraction:
    """Frames of the video per output frame."""
    return Fraction(settings.extract_nth_frame) or source.rate / exact_rate(settings.fps)


def _last(settings: RenderSettings, source: Source) -> int:
    end = settings.extract_to_frame
    return source.frames - 1 if end == -1 else min(end, source.frames - 1)


def _outputs(settings: RenderSettings, source: Source) -> int:
    """How many output frames the video suffices for."""
    return math.ceil((_last(settings, source) - settings.extract_from_frame + 1) / _step(settings, source))
