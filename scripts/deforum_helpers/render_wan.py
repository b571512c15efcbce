"""One job, from settings to a finished video.

    check -> claim or find the job -> clip by clip: request -> worker -> frames -> PNGs and video -> subtitles, GIF

The record of what is done (manifest.py) is on disk after every clip: whatever ends this process, the job goes on
where it was, and its frames are those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .atomic_files import write_text
from .checkpoints import ModelInfo
from .clips import Job, Say, clip_requests, clip_work, render_clip
from .errors import DeforumWanError, InputError, RenderCancelled
from .init_video import Guides
from .job_files import JobFiles, claim_job, earlier_jobs, job_files, only_one_process, remove_unfinished_files
from .manifest import ClipRecord, Manifest, clip_is_whole, load_manifest
from .output import OutputWriter, write_subtitles
from .preflight import Checked, check_render, find_model
from .progress import Meter, OnProgress, load_times, save_times, times_key
from .settings import RenderSettings, settings_to_dict, settings_to_text
from .timeline import plan_to_dict
from .video.frames import PngSequence
from .video_io import make_gif
from .wan_integration import lora_search_folders, model_search_folders, shared_worker
from .worker_client import ClipRenderer

_RESULTS = {"video": ".mp4", "subtitles": ".srt", "gif": ".gif"}


@dataclass(frozen=True)
class RenderResult:
    """What a job left.  frames: output frames made; with cancelled, fewer than asked for.

    video, subtitles, gif: None where there is none.  seconds: this run took.
    """

    folder: Path
    timestring: str
    frames: int
    seed: int
    settings: Path
    video: Path | None = None
    subtitles: Path | None = None
    gif: Path | None = None
    cancelled: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def render_wan(
    settings: RenderSettings,
    out_dir: Path,
    *,
    worker: ClipRenderer | None = None,
    model: ModelInfo | None = None,
    model_folders: Sequence[Path] = (),
    lora_folders: Sequence[Path] = (),
    on_progress: OnProgress | None = None,
    say: Say | None = None,
    cancel: threading.Event | None = None,
    resume: bool = False,
    timestring: str | None = None,
    source: str = "",
) -> RenderResult:
    """Render one job.

    worker: the shared one if None.  model: found by settings.model, in model_folders first, if None.
    lora_folders: further folders of LoRAs, or of models that one may lie in or beside.
    cancel: when set, the render stops within a sampling step; what is finished is kept and made into a video, and
        the result says `cancelled`.
    resume: go on with the job `timestring`, or begin it; without a timestring, with the newest unfinished job of
        these settings (or of this source, the settings file), which must exist.
    Raises DeforumWanError; the job can then be resumed.
    """
    began, say, cancel = time.monotonic(), say or (lambda text: None), cancel or threading.Event()
    model = model or find_model(
        settings.model, model_search_folders(model_folders), picture=settings.starts_from_picture
    )
    earlier = earlier_job(settings, Path(out_dir), timestring, source) if resume else None
    if earlier and (result := _finished_result(*earlier)):
        return result
    seed = earlier[1].seed if earlier and settings.seed < 0 else None
    places = lora_search_folders([*lora_folders, *model_folders])
    checked = check_render(settings, Path(out_dir), model=model, seed=seed, lora_places=places)
    worker = worker or shared_worker()
    files = earlier[0] if earlier else claim_job(
        Path(out_dir), settings.batch_name, timestring, take_over=resume
    )
    with only_one_process(files):
        if earlier and (result := _finished_result(files, load_manifest(files.manifest))):
            return result  # another process ended it just now
        remove_unfinished_files(files)
        job = Job(
            settings, checked.plan, model, checked.identity, files, checked.pictures, checked.lead, checked.loras,
            Guides(checked.plan, settings, checked.source) if checked.source else None,
        )
        manifest = _opened_manifest(job, earlier[1] if earlier else None, source)
        write_text(files.settings, settings_to_text(_reproducible(job)))
        try:
            return replace(_run(job, checked, manifest, worker, cancel, say, on_progress),
                           seconds=time.monotonic() - began, notes=tuple(job.plan.notes))  # fmt: skip
        except DeforumWanError as error:
            with contextlib.suppress(DeforumWanError):  # the disk may be what failed
                manifest.save(state="failed", error=error.one_line())
            raise


def _run(
    job: Job,
    checked: Checked,
    manifest: Manifest,
    worker: ClipRenderer,
    cancel: threading.Event,
    say: Say,
    on_progress: OnProgress | None,
) -> RenderResult:
    """Render what isn't there yet, have it written, and put the rest beside it."""
    settings = job.settings
    key = times_key(job.plan.variant, settings.width, settings.height, settings.device)
    meter = Meter(clip_work(job.plan), on_progress or (lambda progress: None), load_times(key))
    output = OutputWriter(job, manifest, job.files.result(".mp4"), checked.video, checked.ffmpeg)
    cancelled = False
    try:
        with contextlib.closing(job):
            _render_clips(job, manifest, worker, output, meter, cancel, say)
    except RenderCancelled:
        cancelled = True
    except BaseException:
        with contextlib.suppress(DeforumWanError):  # the first error is the one to report
            output.finish(keep_video=False)
        raise
    meter.say("writing")
    output.finish()
    if meter.times:
        save_times(key, meter.times)
    result = _finish(job, manifest, output.frames, cancelled, checked.ffmpeg)
    if not cancelled:
        meter.say("done")
    return result


def _render_clips(
    job: Job, manifest: Manifest, worker: ClipRenderer, output: OutputWriter, meter: Meter,
    cancel: threading.Event, say: Say,
) -> None:  # fmt: skip
    requests = clip_requests(job)
    whole = [
        clip_is_whole(record, request.fingerprint(), job.files, index)
        for index, (record, request) in enumerate(zip(manifest.clips, requests, strict=True))
    ]
    if any(whole):
        say(f"{sum(whole)} of {len(whole)} clips are done already")
    for clip, request in zip(job.plan.clips, requests, strict=True):
        if whole[clip.index]:
            meter.skip(clip.index)
            output.add(clip)
            continue
        if cancel.is_set():
            raise RenderCancelled("cancelled")
        meter.begin(clip.index)
        manifest.set_clip(clip.index, state="started", fingerprint=request.fingerprint())
        done = render_clip(job, request, worker, meter.on_event, cancel, say)
        manifest.set_clip(
            clip.index, state="rendered", latents_sha256=done.latents_sha256, frames_sha256=done.frames_sha256,
            seconds=done.seconds,
        )  # fmt: skip
        output.add(clip)


def _finish(job: Job, manifest: Manifest, frames: int, cancelled: bool, ffmpeg: str) -> RenderResult:
    """What comes after the last frame: subtitles, GIF, tidying up, the manifest's last word."""
    settings, files = job.settings, job.files
    if frames and settings.make_srt:
        write_subtitles(job.plan, frames, files.result(".srt"))
    if frames and settings.make_gif:
        pictures = PngSequence(files.folder, files.timestring, frames)
        make_gif(pictures, files.result(".gif"), settings.fps, ffmpeg=ffmpeg)
    made = {
        "video": bool(frames) and not settings.skip_video_creation,
        "subtitles": bool(frames) and settings.make_srt,
        "gif": bool(frames) and settings.make_gif,
    }
    if not cancelled:
        manifest.save(state="done", frames=frames, results=[name for name, is_made in made.items() if is_made])
        _tidy(job, delete_pictures=settings.delete_imgs and made["video"])
    else:
        manifest.save(state="cancelled", frames=frames)
    paths = {name: files.result(_RESULTS[name]) for name, is_made in made.items() if is_made}
    return RenderResult(
        files.folder, files.timestring, frames, job.plan.seed, files.settings, cancelled=cancelled, **paths
    )


def _tidy(job: Job, *, delete_pictures: bool) -> None:
    """A finished job needs its native frames no more; its latents are small and stay.  On a resumed job that had
    more frames before, the surplus goes as well.  What another program holds open stays where it is."""
    surplus = [path for path in job.files.pictures() if path >= job.files.picture(job.plan.max_frames)]
    native = [job.files.frames(clip.index) for clip in job.plan.clips]
    for path in (*native, *surplus, *(job.files.pictures() if delete_pictures else ())):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _reproducible(job: Job) -> RenderSettings:
    """The settings with what was decided for this run."""
    return replace(job.settings, seed=job.plan.seed, model=job.settings.model or job.model.name)


def _opened_manifest(job: Job, earlier: Manifest | None, source: str) -> Manifest:
    """A fresh record, or an earlier one under the settings of now; its clips are checked by their fingerprints."""
    facts = {
        "settings": settings_to_dict(job.settings),
        "seed": job.plan.seed,
        "source": source or (earlier.facts.get("source", "") if earlier else ""),
        "model": {"name": job.model.name, "path": job.model.path, "variant": job.model.variant, "sha256": job.identity},
        "plan": {name: value for name, value in plan_to_dict(job.plan).items() if name != "schedules"},
    }
    count = len(job.plan.clips)
    clips = [*(earlier.clips if earlier else []), *[ClipRecord()] * count][:count]
    manifest = Manifest(job.files.manifest, facts, clips)
    manifest.save()
    return manifest


def earlier_job(
    settings: RenderSettings, out_dir: Path, timestring: str | None, source: str
) -> tuple[JobFiles, Manifest] | None:
    """The job to go on with.  Raises InputError if none is named and none fits."""
    if timestring:
        files = job_files(out_dir, settings.batch_name, timestring)
        return (files, load_manifest(files.manifest)) if files.manifest.exists() else None
    unfinished = []
    for files in earlier_jobs(out_dir, settings.batch_name):
        with contextlib.suppress(InputError):  # another version's, or a stranger's file
            if (manifest := load_manifest(files.manifest)).state != "done":
                unfinished.append((files, manifest))
    wanted = settings_to_dict(settings)
    fits: list[Callable[[Manifest], bool]] = [
        lambda manifest: manifest.facts.get("settings") == wanted,
        lambda manifest: bool(source) and manifest.facts.get("source") == source,
    ]
    for fit in fits:
        for files, manifest in unfinished:
            if fit(manifest):
                return files, manifest
    raise InputError(
        "there is no unfinished job of these settings", got=str(out_dir / settings.batch_name),
        next_step="render without --resume, or name the job with --resume-job",
    )  # fmt: skip


def _finished_result(files: JobFiles, manifest: Manifest) -> RenderResult | None:
    """The result of a job that was finished before; None if it wasn't."""
    if manifest.state != "done":
        return None
    paths = {name: files.result(_RESULTS[name]) for name in manifest.facts.get("results", []) if name in _RESULTS}
    frames = int(manifest.facts.get("frames", 0))
    return RenderResult(files.folder, files.timestring, frames, manifest.seed, files.settings, **paths)
