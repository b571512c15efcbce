"""Jobs as JSON, out and in, and grids: one job for each combination of values.

What is imported comes from anywhere.  It becomes new waiting jobs and nothing else: no state, no results, no paths of
result files (the tab serves those to the browser) are taken over.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..deforum_files import names_of_fields
from ..errors import SettingsError, of_job
from ..planning.seeds import MAX_SEED
from ..settings import FIELDS, apply_overrides
from ..settings_fields import json_object
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


def from_json(text: str, batch: str = "") -> list[NewJob]:
    """Read an exported queue.  Raises SettingsError, naming the field, and the job's number where it is one's fault."""
    data, _ = json_object(text, "text")
    version, jobs = data.get("version"), data.get("jobs")
    if data.get("format") != FORMAT or type(version) is not int or not isinstance(jobs, list):
        raise SettingsError(
            "is no exported queue", where="text",
            allowed=f'{{"format": "{FORMAT}", "version": {VERSION}, "jobs": [..]}}',
        )  # fmt: skip
    if not 1 <= version <= VERSION:
        raise SettingsError(
            "was exported by another version", where="text", got=version, allowed=f"up to {VERSION}",
            next_step="update the extension",
        )  # fmt: skip
    if not 1 <= len(jobs) <= MOST_JOBS:
        raise SettingsError("has no fitting number of jobs", where="text", got=len(jobs), allowed=f"1 to {MOST_JOBS}")
    made = []
    for number, raw in enumerate(jobs, 1):
        with of_job(number):
            made.append(_new_job(raw, batch))
    return made


def _new_job(raw: object, batch: str) -> NewJob:
    if not isinstance(raw, dict) or not isinstance(raw.get("settings"), dict):
        raise SettingsError("must be an object with settings", where="jobs", got=raw)
    name, seed, bookmark = raw.get("name", ""), raw.get("seed"), raw.get("bookmark", False)
    if not isinstance(name, str):
        raise SettingsError("must be text", where="name", got=name)
    if seed is not None and (type(seed) is not int or not -1 <= seed <= MAX_SEED):
        raise SettingsError("must be a whole number", where="seed", got=seed, allowed=f"-1 to {MAX_SEED}")
    if not isinstance(bookmark, bool):
        raise SettingsError("must be true or false", where="bookmark", got=bookmark)
    return NewJob(parsed(raw["settings"]), name, batch, bookmark, seed)


def read_axes(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a grid goes over: field, by our name or Deforum's -> its values; seeds may be a text: "7, 20-29".

    Raises SettingsError, naming the field.
    """
    axes = dict(given)
    if isinstance(seeds := axes.get("seed"), str):
        axes["seed"] = seed_list(seeds)
    names = names_of_fields(FIELDS)
    fields = [names.get(field, field) for field in axes]
    for number, (field, values) in enumerate(axes.items()):
        if not isinstance(values, list) or not values:
            raise SettingsError("needs a list of at least one value", where=field, got=values)
        if fields[number] in fields[:number]:
            raise SettingsError("is given twice, under two names", where=field)
    size = math.prod(len(values) for values in axes.values())
    if not axes or size > MOST_JOBS:
        raise SettingsError(
            "the grid has no fitting size", where="axes", got=f"{size if axes else 0} jobs", allowed=f"1 to {MOST_JOBS}"
        )
    return axes


def grid(base: NewJob, axes: Mapping[str, Sequence[Any]]) -> list[NewJob]:
    """One job for each combination of values, the last axis changing fastest.

    axes: as read_axes gives them.  Text values are read as the field's kind.  Raises SettingsError.
    """
    settings, jobs = parsed(base.settings), []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        label = ", ".join(f"{field} {str(value)[:40]}" for field, value in chosen.items())
        name = clean_name(f"{base.name} · {label}" if base.name else label)
        seed = None if "seed" in chosen else base.seed
        jobs.append(NewJob(apply_overrides(settings, chosen), name, base.batch, base.bookmark, seed))
    return jobs


def seed_list(text: str) -> list[int]:
    """Read what a person types for seeds: "7, 20-29, -1".  Raises SettingsError."""
    seeds: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-") if not part.startswith("-") else (part, "", "")
        try:
            low = int(first)
            high = int(last) if dash else low
        except ValueError:
            allowed = 'numbers and ranges: "7, 20-29"'
            raise SettingsError("is no seed", where="seed", got=part, allowed=allowed) from None
        if not -1 <= low <= high <= MAX_SEED:
            raise SettingsError("is out of range", where="seed", got=part, allowed=f"-1 to {MAX_SEED}")
        if len(seeds) + high - low >= MOST_JOBS:
            raise SettingsError("are too many seeds", where="seed", got=part, allowed=f"at most {MOST_JOBS}")
        seeds += range(low, high + 1)
    return seeds
