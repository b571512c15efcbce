"""Wan for a program: one warm worker, the models on this machine, and a generator that returns arrays.

with WanVideoGenerator() as wan_generator:
    frames = wan_generator.generate_txt2video(prompt="a red ball rolls over a meadow", duration=2.0, fps=60)
"""

from __future__ import annotations

import atexit
import math
import re
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .checkpoints import ModelInfo, find_models, model_folders
from .clips import Job, clip_requests, clip_work, output_frames, render_clip
from .errors import InputError, SettingsError
from .init_video import Guides, init_video
from .job_files import JobFiles
from .lora_files import lora_folders, used_loras
from .planning.seeds import resolve_seed
from .preflight import checked_pictures, find_model, isolated_ffmpeg, weights_identity
from .progress import Meter, OnProgress, state_folder
from .settings import FIELDS, RenderSettings
from .timeline import plan
from .video.frames import write_png
from .wan_isolated_env import EXTENSION_ROOT, SCRIPTS, worker_command, worker_environment
from .worker_client import ClipRenderer, Worker
from .worker_log import WorkerLog

_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX×*]\s*(\d{1,5})\s*")

_shared: Worker | None = None
_shared_lock = threading.Lock()


def new_worker(*, idle_seconds: float = 0.0) -> Worker:
    """A worker of its own, not started yet.

    idle_seconds: see Worker.  Raises SetupError where there is no environment for it.
    """
    log = WorkerLog(state_folder() / "worker.log")
    return Worker(worker_command(), worker_environment(), log=log, folder=SCRIPTS, idle_seconds=idle_seconds)


def shared_worker(*, idle_seconds: float = 0.0) -> Worker:
    """The one worker of this process, which all renders share so that the model stays loaded.  Raises SetupError."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = new_worker(idle_seconds=idle_seconds)
            atexit.register(close_shared_worker)
        return _shared


def close_shared_worker() -> None:
    """End the shared worker, to give its memory back; the next render starts it again."""
    global _shared
    with _shared_lock:
        worker, _shared = _shared, None
    if worker is not None:
        worker.close()


def kill_shared_worker() -> None:
    """End the shared worker at once, whatever it is doing."""
    if _shared is not None:
        _shared.kill()


def model_search_folders(extra: Iterable[str | Path] = ()) -> list[Path]:
    """Where models are looked for: `extra` (the settings', the host's), models/ of the extension, common places."""
    return model_folders(EXTENSION_ROOT, extra)


def lora_search_folders(extra: Iterable[str | Path] = ()) -> list[Path]:
    """Where LoRAs are looked for: in and beside `extra` (folders of models), in models/, in common places."""
    return lora_folders(EXTENSION_ROOT, extra)


def discover_models(extra: Iterable[str | Path] = ()) -> list[ModelInfo]:
    """Every model on this machine, broken ones too, with what is wrong."""
    return find_models(model_search_folders(extra))


class WanVideoGenerator:
    """Frames from prompts, as arrays, without any file left behind.

    model: a folder, a file or a name; "" = the first one found that can do it, else the bundled demo.
    model_folders: further places to look for models.  device, dtype: "auto" or as in the settings.
    worker: the shared one if None; one that is given is the caller's to close.
    The first call starts the worker and loads the model, later ones find it warm.
    """

    def __init__(
        self,
        model: str = "",
        *,
        model_folders: Iterable[str | Path] = (),
        device: str = "auto",
        dtype: str = "auto",
        worker: ClipRenderer | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self._folders, self._worker, self._own = tuple(model_folders), worker, worker is None
        self._on_progress = on_progress or (lambda progress: None)

    def generate_txt2video(
        self,
        prompt: str | Mapping[str, str],
        duration: float = 2.0,
        fps: float = 60,
        resolution: str = "1280x720",
        steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str = "",
        seed: int = -1,
        model: str = "",
        *,
        cancel: threading.Event | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Render a video from text.

        prompt: one text, or a schedule {"0": "...", "48": "..."} over output frames.
        settings: any further field of RenderSettings (shift, solver, continuity ...).
        Returns uint8 [round(duration * fps), height, width, 3].  What is longer than the model's window is rendered
        as a chain of clips.  Raises DeforumWanError, RenderCancelled once `cancel` is set.
        """
        asked = _settings(prompt, duration, fps, resolution, steps, guidance_scale, {
            "negative_prompt": negative_prompt, "seed": seed, "model": model or self.model, **settings,
        })  # fmt: skip
        return self._render(asked, cancel or threading.Event())

    def generate_img2video(
        self,
        init_image: np.ndarray | Image.Image | str | Path,
        prompt: str | Mapping[str, str],
        duration: float = 2.0,
        fps: float = 60,
        resolution: str = "1280x720",
        steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str = "",
        seed: int = -1,
        model: str = "",
        *,
        cancel: threading.Event | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Render a video that starts from a picture: a path, an image, or an array [H, W] or [H, W, 3 or 4], uint8
        or floats in 0..1.  It is scaled to cover the frame and cropped.  All else as in generate_txt2video."""
        with tempfile.TemporaryDirectory(prefix="deforum_wan_") as folder:
            path = _picture_file(init_image, Path(folder))
            asked = _settings(prompt, duration, fps, resolution, steps, guidance_scale, {
                "negative_prompt": negative_prompt, "seed": seed, "model": model or self.model,
                "init_image": str(path), **settings,
            })  # fmt: skip
            return self._render(asked, cancel or threading.Event())

    def close(self) -> None:
        """Give the worker's memory back, unless the worker was handed in."""
        if self._own:
            close_shared_worker()

    def __enter__(self) -> WanVideoGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self, settings: RenderSettings, cancel: threading.Event) -> np.ndarray:
        settings = replace(settings, device=self.device, dtype=self.dtype)
        source = init_video(settings, isolated_ffmpeg())
        pictures = checked_pictures(settings)
        model = find_model(settings.model, model_search_folders(self._folders), picture=settings.starts_from_picture)
        decided = plan(settings, model.row, resolve_seed(settings.seed))
        worker = self._worker or shared_worker()
        meter = Meter(clip_work(decided), self._on_progress)
        frames = np.empty((decided.max_frames, settings.height, settings.width, 3), np.uint8)
        with tempfile.TemporaryDirectory(prefix="deforum_wan_", ignore_cleanup_errors=True) as folder:
            files = JobFiles(Path(folder), "job")
            files.work.mkdir()
            loras = used_loras(settings, model, lora_search_folders(self._folders))
            guides = Guides(decided, settings, source) if source else None
            job = Job(settings, decided, model, weights_identity(model), files, pictures, loras=loras, guides=guides)
            with closing(job):
                for clip, request in zip(decided.clips, clip_requests(job), strict=True):
                    meter.begin(clip.index)
                    render_clip(job, request, worker, meter.on_event, cancel, lambda text: None)
                    for index, frame in enumerate(output_frames(job, clip), clip.start_frame):
                        frames[index] = frame
        meter.say("done")
        return frames


def _settings(
    prompt: str | Mapping[str, str], duration: float, fps: float, resolution: str, steps: int, guidance_scale: float,
    more: dict[str, Any],
) -> RenderSettings:  # fmt: skip
    """The generator's arguments as settings.  Raises SettingsError."""
    unknown = sorted(set(more) - set(FIELDS))
    if unknown:
        raise SettingsError("unknown setting", where=unknown[0], allowed=", ".join(FIELDS))
    size = _SIZE.fullmatch(resolution)
    if size is None:
        raise SettingsError("is no size", where="resolution", got=resolution, allowed='WIDTHxHEIGHT, as "832x480"')
    fps = FIELDS["fps"].check(fps)
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration < math.inf:
        raise SettingsError("must be a number of seconds above 0", where="duration", got=duration)
    count = round(Fraction(str(duration)) * Fraction(str(fps)))
    if count < 1:
        raise SettingsError("is too short for one frame", where="duration", got=duration, allowed=f"from {1 / fps:g} s")
    prompts = {"0": prompt} if isinstance(prompt, str) else {str(key): text for key, text in prompt.items()}
    return RenderSettings(
        prompts=prompts, max_frames=count, fps=fps, width=int(size[1]), height=int(size[2]),
        num_inference_steps=str(steps), guidance_scale=str(guidance_scale), **more,
    )  # fmt: skip


def _picture_file(image: np.ndarray | Image.Image | str | Path, folder: Path) -> Path:
    """The picture as a file; a path stays where it is.  Raises InputError."""
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f" and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise InputError(
            "is no picture", where="init_image", got=f"{pixels.dtype} {list(pixels.shape)}",
            allowed="[H, W] or [H, W, 3 or 4], uint8 or floats in 0..1",
        )  # fmt: skip
    write_png(folder / "init.png", pixels[..., :3])
    return folder / "init.png"
