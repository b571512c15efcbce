"""Jobs as JSON, out and in, and grids: one job for each combination of values.

What is imported comes from anywhere.  It becomes new waiting jobs and nothing else: no state, no results, no paths of
result files (the tab serves those to the browser) are taken over.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError, SettingsError
from ..planning.seeds import MAX_SEED
from ..settings import apply_overrides, settings_from_dict
from .jobs import Job, NewJob, clean_name, parsed

FORMAT = "deforum-wan-queue"
VERSION = 1
MOST_JOBS = 1000  # in one grid or one import
LARGEST_IMPORT = 64 * 1024 * 1024


def to_json(jobs: Iterable[Job]) -> str:
    """The jobs as a file's text; from_json makes equal, waiting ones of it."""
    rows = [
        {
            "name": job.name, "seed": job.seed, "bookmark": job.bookmark, "settings": job.settings,
            "was": {"id": job.id, "state": job.state, "error": job.error, "video": job.video},
        }
        for job in jobs
    ]  # fmt: skip
    return json.dumps({"format": FORMAT, "version": VERSION, "jobs": rows}, ensure_ascii=False, indent=1) + "\n"


def from_json(text: str | bytes, batch: str = "") -> list[NewJob]:
    """Read an exported queue.  Raises InputError or SettingsError, naming the job and the field."""
    if len(text) > LARGEST_IMPORT:
        raise InputError("the file is too large for a queue", allowed=f"up to {LARGEST_IMPORT} bytes")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the file is not JSON: {str(error)[:120]}", next_step="choose an exported queue") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("jobs"), list):
        raise InputError(
            "the file is no exported queue", allowed=f'{{"format": "{FORMAT}", "version": {VERSION}, "jobs": [..]}}'
        )
    if not isinstance(data.get("version"), int) or data["version"] > VERSION:
        raise InputError(
            "the queue was exported by a newer version", got=data.get("version"), allowed=f"up to {VERSION}",
            next_step="update the extension",
        )  # fmt: skip
    if len(data["jobs"]) > MOST_JOBS:
        raise InputError("too many jobs in one file", got=len(data["jobs"]), allowed=f"at most {MOST_JOBS}")
    return [_new_job(raw, f"job {number}", batch) for number, raw in enumerate(data["jobs"], 1)]


def _new_job(raw: object, where: str, batch: str) -> NewJob:
    if not isinstance(raw, dict) or not isinstance(raw.get("settings"), dict):
        raise InputError("must be an object with settings", where=where, got=raw)
    name, seed, bookmark = raw.get("name", ""), raw.get("seed"), raw.get("bookmark", False)
    if not isinstance(name, str):
        raise InputError("must be text", where=f"{where}, name", got=name)
    if seed is not None and (type(seed) is not int or not -1 <= seed <= MAX_SEED):
        raise InputError("must be a whole number", where=f"{where}, seed", got=seed, allowed=f"-1 to {MAX_SEED}")
    if not isinstance(bookmark, bool):
        raise InputError("must be true or false", where=f"{where}, bookmark", got=bookmark)
    try:
        settings, _ = settings_from_dict(raw["settings"])
    except SettingsError as error:
        raise SettingsError(
            error.what, got=error.got, allowed=error.allowed, next_step=error.next_step,
            where=f"{where}, {error.where}",
        ) from error  # fmt: skip
    return NewJob(settings, name, batch, bookmark, seed)


def grid(base: NewJob, axes: Mapping[str, Sequence[Any]]) -> list[NewJob]:
    """One job for each combination of values, the last axis changing fastest.

    axes: field, by our name or Deforum's -> its values.  Text values are read as the field's kind.
    Raises InputError, SettingsError.
    """
    for field, values in axes.items():
        if isinstance(values, str) or not values:
            raise InputError("needs a list of at least one value", where=field, got=values)
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > MOST_JOBS:
        raise InputError("the grid is too large", got=f"{size} jobs", allowed=f"at most {MOST_JOBS}")
    settings, jobs = parsed(base.settings), []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        label = ", ".join(f"{field} {str(value)[:40]}" for field, value in chosen.items())
        name = clean_name(f"{base.name} · {label}" if base.name else label)
        seed = None if "seed" in chosen else base.seed
        jobs.append(NewJob(apply_overrides(settings, chosen), name, base.batch, base.bookmark, seed))
    return jobs


def seed_list(text: str) -> list[int]:
    """Read what a person types for seeds: "7, 20-29, -1".  Raises InputError."""
    seeds: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-") if not part.startswith("-") else (part, "", "")
        try:
            low = int(first)
            high = int(last) if dash else low
        except ValueError:
            raise InputError("is no seed", where="seeds", got=part, allowed='numbers and ranges: "7, 20-29"') from None
        if not -1 <= low <= high <= MAX_SEED:
            raise InputError("is out of range", where="seeds", got=part, allowed=f"-1 to {MAX_SEED}")
        if len(seeds) + high - low >= MOST_JOBS:
            raise InputError("too many seeds", where="seeds", got=part, allowed=f"at most {MOST_JOBS}")
        seeds += range(low, high + 1)
    return seeds
