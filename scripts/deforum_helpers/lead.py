"""A finished job that another one goes on from: what its last shot left behind.

Everything is read from the job's own record, so that `continue_from` in a settings file says all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import InputError, SettingsError
from .hashing import sha256_of
from .job_files import JobFiles
from .manifest import Manifest, load_manifest
from .protocol import StreamPart
from .settings import RenderSettings

_SETTINGS = "_settings.txt"
_MOST_JOBS = 100  # that go on from one another


@dataclass(frozen=True)
class Lead:
    """The end of a finished job.

    frames: output frames of its last shot; native_step: native frames per output frame of it.
    parts: the latents of that shot's stream, () where they can't be gone on from.
    picture: its last output frame as a file, "" where it was deleted.
    asked: what decided the last clip's look: prompt, negative prompt, LoRA strengths.
    """

    frames: int
    native_step: Fraction
    variant: str
    width: int
    height: int
    parts: tuple[StreamPart, ...]
    picture: str
    asked: list[Any] = field(default_factory=list)

    @property
    def latents(self) -> int:
        return sum(part.count for part in self.parts)

    def fingerprint(self, *, by_latents: bool) -> str:
        """A hash of what is gone on from, by content.  Raises OSError where it is gone by now."""
        if not by_latents:
            return sha256_of(Path(self.picture))
        facts = [(sha256_of(Path(part.file)), part.first, part.count) for part in self.parts]
        return hashlib.sha256(json.dumps([facts, self.frames]).encode()).hexdigest()


def lead_of(settings: RenderSettings) -> Lead | None:
    """What these settings go on from, None if from nothing.  Raises SettingsError."""
    return read_lead(settings.continue_from) if settings.continue_from.strip() else None


def read_lead(path: str, depth: int = 0) -> Lead:
    """Read the end of a job from the record beside its settings file (or its video).

    depth: of jobs that go on from one another so far.  Raises SettingsError, naming continue_from.
    """
    files = _files_of(path)
    try:
        manifest = load_manifest(files.manifest)
        return _lead(files, manifest, depth)
    except InputError as error:
        raise _wrong(error.what, path) if not isinstance(error, SettingsError) else error from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _wrong("the record of this job can't be used", path) from error


def _lead(files: JobFiles, manifest: Manifest, depth: int) -> Lead:
    if manifest.state != "done":
        raise _wrong("this job is not finished", str(files.settings), "let it finish first, or name another one")
    if depth > _MOST_JOBS:
        raise _wrong(f"more than {_MOST_JOBS} jobs go on from one another", str(files.settings))
    plan = manifest.facts["plan"]
    last = plan["clips"][-1]
    clips = [clip for clip in plan["clips"] if clip["shot"] == last["shot"]]
    inherited = int(plan.get("lead_frames", 0)) if clips[0]["shot"] == 0 else 0
    former: tuple[StreamPart, ...] = ()
    if inherited and clips[0]["stream_latents_before"]:
        former = read_lead(str(manifest.facts["settings"]["continue_from"]), depth + 1).parts
    picture = files.picture(int(plan["max_frames"]) - 1)
    return Lead(
        frames=int(plan["max_frames"]) - int(clips[0]["start_frame"]) + inherited,
        native_step=Fraction(*plan["native_step"]),
        variant=str(plan["variant"]),
        width=int(plan["width"]),
        height=int(plan["height"]),
        parts=_stream(files, clips, former),
        picture=str(picture) if picture.is_file() else "",
        asked=asked_of(last.get("prompts"), last["prompt"], last["negative_prompt"], last.get("loras", [])),
    )


def asked_of(prompts: Any, prompt: str, negative_prompt: str, loras: Iterable[Iterable[Any]]) -> list[Any]:
    """What decides how a clip is to look, as JSON gives it back; [] where that changes within it.

    prompts, loras: as in Clip, or as its record has them.
    """
    return [] if prompts else [prompt, negative_prompt, [list(lora) for lora in loras]]


def _stream(
    files: JobFiles, clips: Sequence[Mapping[str, Any]], parts: tuple[StreamPart, ...]
) -> tuple[StreamPart, ...]:
    """The latents of a shot, oldest first; () where a file is gone, or where its clips began from pictures in
    between, so that there is no one stream."""
    for clip in clips:
        if (clip["dropped_frames"] and clip["native_start"] > 1) or clip.get("moves"):
            return ()
        parts = first_latents(parts, clip["stream_latents_before"])
        parts = (*parts, StreamPart(str(files.latents(clip["index"])), 0, clip["new_latents"]))
    return parts if all(Path(part.file).is_file() for part in parts) else ()


def first_latents(parts: tuple[StreamPart, ...], count: int) -> tuple[StreamPart, ...]:
    """As much of a stream as holds its first `count` latents."""
    kept: list[StreamPart] = []
    for part in parts:
        if count > 0:
            kept.append(replace(part, count=min(part.count, count)))
            count -= part.count
    return tuple(kept)


def _files_of(path: str) -> JobFiles:
    place = Path(path).expanduser().absolute()
    name = place.name.removesuffix(_SETTINGS) if place.name.endswith(_SETTINGS) else place.stem
    files = JobFiles(place.parent, name)
    if not name or not files.manifest.is_file():
        raise _wrong("there is no job beside this file", path, f"name the {_SETTINGS} of a finished job")
    return files


def _wrong(what: str, got: str, next_step: str = "name another job, or leave it empty") -> SettingsError:
    return SettingsError(what, where="continue_from", got=got, next_step=next_step)
