"""From a plan to what the worker is asked for, and from what it made to output frames.

A clip's native frames lie in a file of its own; a shot's stream is pieced together from them, newest clip first,
because a clip may have made the end of the stream anew.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .camera_frames import given_frames, guide_frames, moved_frames
from .checkpoints import ModelInfo
from .errors import InputError, RenderCancelled, RenderError, WorkerDied
from .hashing import sha256_of
from .init_video import Guides
from .job_files import JobFiles
from .lead import Lead, asked_of, first_latents
from .lora_files import UsedLora
from .progress import ClipWork
from .protocol import ClipDone, ClipRequest, LoraUse, StreamPart
from .settings import RenderSettings
from .timeline import Clip, Plan, native_positions
from .variants import VARIANTS
from .video.frames import StoredFrames, open_frames, read_png, save_frames, write_png
from .video.retiming import Method, retime
from .worker_client import ClipRenderer, OnEvent

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One render, with everything decided.

    identity: of the weights; pictures: path -> sha256 of those given; lead: of settings.continue_from.
    loras: the files of settings.loras.  guides: of settings.init_video, whose sha256 is among the pictures'.
    """

    settings: RenderSettings
    plan: Plan
    model: ModelInfo
    identity: str
    files: JobFiles
    pictures: Mapping[str, str] = field(default_factory=dict)
    lead: Lead | None = None
    loras: tuple[UsedLora, ...] = ()
    guides: Guides | None = None

    def close(self) -> None:
        """End the decoder that the init video's frames come from."""
        if self.guides is not None:
            self.guides.close()


def clip_requests(job: Job) -> list[ClipRequest]:
    """One request per clip.  Each one's history holds the fingerprint of the clip it continues, back to the start of
    its shot, so that a request's fingerprint says everything that decides its frames."""
    requests: list[ClipRequest] = []
    for clip in job.plan.clips:
        if not requests:
            former = _lead_fingerprint(job)
        else:
            former = requests[-1].fingerprint() if job.plan.clips[clip.index - 1].shot == clip.shot else ""
        first = requests[0].fingerprint() if clip.to_first_frame and requests else ""
        requests.append(_clip_request(job, clip, former, first))
    return requests


def _lead_fingerprint(job: Job) -> str:
    """What the first clip goes on from, "" if from nothing.  Raises InputError."""
    if job.lead is None or not job.plan.lead_frames:
        return ""
    try:
        return job.lead.fingerprint(by_latents=job.plan.clips[0].start == "latents")
    except OSError as error:
        raise InputError(
            "the job that this one goes on from can't be read", where="continue_from", got=str(error)
        ) from error


def _clip_request(job: Job, clip: Clip, former: str, first: str) -> ClipRequest:
    """former, first: fingerprints of the clip that this one goes on from, and of the one that has its last frame."""
    settings, files = job.settings, job.files
    defaults = job.model.row.defaults
    low_noise = None if settings.guidance_scale.strip() else defaults.low_noise_guidance_scale
    picture, end_picture = (job.pictures[path] if path else "" for path in (clip.picture, clip.end_picture))
    end_picture = end_picture or first
    loras = [(lora, strength) for name, strength in clip.loras for lora in job.loras if lora.name == name]
    weights = [job.identity, *(lora.identity for lora, _ in loras)] if loras else job.identity
    facts = [weights, former, picture, clip.native_start, *_camera_facts(job, clip), *_video_facts(job, clip)]
    guide = str(files.guide(clip.index)) if _follows_video(job, clip) else ""
    history = json.dumps([*facts, end_picture] if end_picture else facts)
    return ClipRequest(
        id=f"{files.timestring}-{clip.index}-{uuid.uuid4().hex}",
        model=job.model.reference,
        prompt=clip.prompt,
        negative_prompt=clip.negative_prompt,
        width=settings.width,
        height=settings.height,
        latent_frames=clip.latent_frames,
        new_latents=clip.new_latents,
        prefix_latents=clip.prefix_latents,
        num_inference_steps=clip.num_inference_steps,
        solver=clip.solver,
        shift=clip.shift,
        guidance=clip.guidance,
        seed=clip.seed,
        # A cut's strength is 0: of a picture given to the new shot, all is to be kept.
        strength=clip.strength if clip.stream_latents_before or clip.dropped_frames else 1.0,
        latents_file=str(files.latents(clip.index)),
        frames_file=str(files.frames(clip.index)),
        stream=stream_before(job, clip),
        overlap_latents=clip.overlap_latents,
        overlap_file=str(files.latents(clip.index - 1)) if clip.overlap_latents else "",
        init_image=_start_picture(job, clip),
        end_image=_end_picture(job, clip),
        low_noise_guidance=() if low_noise is None else (low_noise,) * clip.latent_frames,
        drop_frames=clip.dropped_frames,
        context_file=str(files.context(clip.index)) if clip.start == "frames" else "",
        guide_file=guide,
        guide_strength=clip.video_strength if guide else 0.0,
        history=hashlib.sha256(history.encode()).hexdigest(),
        loras=tuple(LoraUse(lora.path, strength, lora.expert) for lora, strength in loras),
        preview_file=str(files.preview),
        device=settings.device,
        dtype=settings.dtype,
        memory=settings.memory,
        weights_dtype=settings.weights_dtype,
        attention=settings.attention,
        compile=settings.compile,
        step_cache=settings.step_cache,
        guidance_mode=settings.guidance_mode,
        window_latents=clip.window_latents,
        window_overlap=clip.window_overlap,
        ring_latents=clip.ring_latents,
        prompts=clip.prompts,
        mixes=clip.mixes,
        prefix_noise=_prefix_noise(job, clip),
        **_colours(job, clip),
    )


def _prefix_noise(job: Job, clip: Clip) -> float | None:
    variant = VARIANTS[job.plan.variant]
    noised = variant.sees_noised("latents" if clip.window_latents else clip.start)
    return job.settings.prefix_noise if noised else None


def _colours(job: Job, clip: Clip) -> dict[str, str]:
    """How a clip's colours are held to those of its shot's first one, in the request's words."""
    if job.settings.colour != "keep" or _follows_video(job, clip):
        return {}
    former = job.plan.clips[clip.index - 1] if clip.index else None
    if former is not None and former.shot == clip.shot:
        file, asked = str(job.files.latents(former.index)), _asked(former)
    elif former is None and job.lead and job.plan.lead_frames and clip.start == "latents":
        file, asked = job.lead.parts[-1].file, job.lead.asked
    else:
        return {"colour": "keep"}
    return {"colour": "keep" if asked and asked == _asked(clip) else "follow", "colour_from": file}


def _asked(clip: Clip) -> list[Any]:
    return asked_of(clip.prompts, clip.prompt, clip.negative_prompt, clip.loras)


def _camera_facts(job: Job, clip: Clip) -> list[Any]:
    """What the camera does to a clip's frames, nothing where it stands still."""
    camera = job.plan.camera
    if camera is None or not (clip.moves or clip.start == "frames"):
        return []
    values = {name: camera.values[name][: clip.end_frame] for name in sorted(camera.values)}
    return [camera.mode, values, job.settings.border, clip.camera_strength]


def _follows_video(job: Job, clip: Clip) -> bool:
    return job.guides is not None and job.guides.follows(clip)


def _video_facts(job: Job, clip: Clip) -> list[Any]:
    """What of the init video a clip is drawn over, by its content."""
    if job.guides is None or not job.guides.follows(clip):
        return []
    video = job.pictures[job.settings.init_video]
    return ["init_video", video, str(job.guides.source.rate), job.guides.indices(clip)]


def _start_picture(job: Job, clip: Clip) -> str:
    if clip.start != "image":
        return ""
    own = clip.dropped_frames or clip.video_picture
    return str(job.files.init_image(clip.index)) if own else _absolute(clip.picture)


def _end_picture(job: Job, clip: Clip) -> str:
    own = clip.to_first_frame and not clip.end_picture
    return str(job.files.end_image(clip.index)) if own else _absolute(clip.end_picture)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def stream_before(job: Job, clip: Clip) -> tuple[StreamPart, ...]:
    """The latents of the clip's shot that stay before its new ones."""
    parts: tuple[StreamPart, ...] = job.lead.parts if job.lead and clip.shot == 0 else ()
    for other in job.plan.clips[: clip.index]:
        if other.shot == clip.shot:
            parts = first_latents(parts, other.stream_latents_before)
            parts = (*parts, StreamPart(str(job.files.latents(other.index)), 0, other.new_latents))
    return first_latents(parts, clip.stream_latents_before)


def render_clip(
    job: Job, request: ClipRequest, worker: ClipRenderer, on_event: OnEvent, cancel: threading.Event, say: Say
) -> ClipDone:
    """Have one clip rendered, by a second worker where the first one dies of it.

    Raises the worker's error; errors that would come again (a broken model, too little memory) aren't tried again.
    """
    clip = next(clip for clip in job.plan.clips if request.frames_file == str(job.files.frames(clip.index)))
    before = ShotFrames(job, job.plan.clips[clip.index - 1]) if clip.index else ()
    if clip.start == "frames":
        save_frames(request.context_file, given_frames(job.plan, clip, before, job.settings))
    elif clip.start == "image" and clip.dropped_frames:
        write_png(Path(request.init_image), _former_picture(job, clip))
    if clip.to_first_frame and not clip.end_picture:
        write_png(Path(request.end_image), open_frames(job.files.frames(0))[0])
    if job.guides is not None and request.guide_file:
        guide = job.guides.frames(clip, cancel)
        save_frames(request.guide_file, guide)
        if clip.video_picture:
            write_png(Path(request.init_image), guide[0])
    run = partial(_run, job, clip, worker=worker, on_event=on_event, cancel=cancel, say=say)
    done = run(request)
    if clip.moves:
        done = _seen_by_camera(job, clip, request, done, run)
    for path in (job.files.context(clip.index), job.files.guide(clip.index)):
        path.unlink(missing_ok=True)
    return done


def _run(
    job: Job, clip: Clip, request: ClipRequest, *,
    worker: ClipRenderer, on_event: OnEvent, cancel: threading.Event, say: Say,
) -> ClipDone:  # fmt: skip
    try:
        done = worker.run(request, on_event, cancel)
    except WorkerDied as error:
        if cancel.is_set():
            raise RenderCancelled("cancelled") from error
        say(f"clip {clip.index + 1}: {error.one_line()}; once more in a fresh worker")
        done = worker.run(replace(request, id=f"{request.id}-again"), on_event, cancel)
    if not isinstance(done, ClipDone) or done.frames != clip.new_frames:
        raise RenderError("the worker made another number of frames", got=done, allowed=str(clip.new_frames))
    return done


def _seen_by_camera(
    job: Job, clip: Clip, request: ClipRequest, done: ClipDone, run: Callable[[ClipRequest], ClipDone]
) -> ClipDone:
    """Move a rendered clip's frames as the camera does; below a camera_strength of 1, have that drawn over."""
    moved = np.stack(list(moved_frames(job.plan, clip, open_frames(request.frames_file), job.settings)))
    if clip.camera_strength >= 1:
        save_frames(request.frames_file, moved)
        return replace(done, frames_sha256=sha256_of(Path(request.frames_file)))
    given = None
    if clip.start == "frames":
        before = ShotFrames(job, job.plan.clips[clip.index - 1])
        given = np.stack(before[clip.native_start - clip.dropped_frames : clip.native_start])
        save_frames(request.context_file, given)
    elif clip.dropped_frames:
        given = _former_picture(job, clip)[None]
    guide = job.files.guide(clip.index)
    save_frames(guide, guide_frames(given, moved, clip.num_frames))
    return run(replace(
        request, id=f"{request.id}-redrawn", guide_file=str(guide), guide_strength=clip.camera_strength,
        latents_file=str(job.files.redrawn(clip.index)),
    ))  # fmt: skip


def _former_picture(job: Job, clip: Clip) -> np.ndarray:
    """The frame that a clip's frame 0 repeats, uint8 [H, W, 3]."""
    if clip.index:
        return ShotFrames(job, job.plan.clips[clip.index - 1])[clip.native_start - 1]
    assert job.lead is not None, "the first clip goes on from nothing"
    return read_png(job.lead.picture)


class ShotFrames(StoredFrames):
    """The native frames of a clip's shot as they stand once that clip is rendered."""

    def __init__(self, job: Job, clip: Clip) -> None:
        self._files = job.files
        self._clips = [c for c in reversed(job.plan.clips[: clip.index + 1]) if c.shot == clip.shot]
        self._open: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._clips[0].native_start + self._clips[0].new_frames

    def read(self, index: int) -> np.ndarray:
        for clip in self._clips:
            if clip.native_start <= index < clip.native_start + clip.new_frames:
                if clip.index not in self._open:
                    self._open[clip.index] = open_frames(self._files.frames(clip.index))
                return self._open[clip.index][index - clip.native_start]
        raise IndexError(index)


def output_frames(job: Job, clip: Clip, method: Method = "flow") -> Iterator[np.ndarray]:
    """The output frames [start_frame, end_frame) of a rendered clip, uint8 [H, W, 3]."""
    return retime(ShotFrames(job, clip), native_positions(job.plan, clip), method)


def pictures_fingerprint(job: Job, clip: Clip, fingerprint: str) -> str:
    """What decides a clip's output frames: its own request's fingerprint and where the frames lie in time."""
    facts = [fingerprint, clip.start_frame, [str(index + part) for index, part in native_positions(job.plan, clip)]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def clip_work(plan: Plan) -> list[ClipWork]:
    return [ClipWork(clip.num_inference_steps, clip.latent_frames, clip.new_latents) for clip in plan.clips]
