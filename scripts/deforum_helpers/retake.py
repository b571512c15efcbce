"""A job once more from one of its clips on: what comes before stays as it is, the rest gets other seeds.

The new job has files and settings of its own, and the old one stays.  The latents of the clips that stay are copied, so
that they are only decoded again; the seeds of all clips stand in seed_schedule, so that the settings alone give the
same video.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from .atomic_files import naming
from .errors import InputError, SettingsError
from .job_files import JobFiles, claim_job
from .manifest import load_manifest
from .planning.seeds import MAX_SEED, resolve_seed
from .settings import RenderSettings


def retake(
    settings: RenderSettings, files: JobFiles, clip: int, out_dir: Path, seed: int = -1
) -> tuple[RenderSettings, JobFiles]:
    """Prepare the new job.

    settings, files: of a job that was rendered, as far as `clip`.  clip: the first one to make anew, counted from 1.
    seed: of that clip; the ones behind count up from it; -1 takes a fresh one.
    Returns the new job's settings and its claimed files.  Raises SettingsError, InputError, OutputError.
    """
    manifest = load_manifest(files.manifest)
    try:
        clips = [(int(made["start_frame"]), int(made["seed"])) for made in manifest.facts["plan"]["clips"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("this job's record can't be used", got=str(files.manifest)) from error
    if not 1 <= clip <= len(clips):
        raise SettingsError("there is no such clip", where="clip", got=clip, allowed=f"1 to {len(clips)}")
    kept = clip - 1
    missing = [index + 1 for index in range(kept) if not files.latents(index).is_file()]
    if missing:
        raise InputError(
            "a clip that shall stay is not rendered", got=f"clip {missing[0]}", next_step="resume the job first"
        )
    first = resolve_seed(seed)
    seeds = [old if index < kept else (first + index - kept) % (MAX_SEED + 1) for index, (_, old) in enumerate(clips)]
    schedule = ", ".join(f"{frame}: ({value})" for (frame, _), value in zip(clips, seeds, strict=True))
    changed = replace(settings, seed=manifest.seed, seed_behavior="schedule", seed_schedule=schedule)
    claimed = claim_job(out_dir, settings.batch_name)
    for index in range(kept):
        with naming(claimed.latents(index)):
            shutil.copyfile(files.latents(index), claimed.latents(index))
    return changed, claimed
