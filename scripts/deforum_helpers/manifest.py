"""What a job has done so far, on disk: rewritten whole after every clip, so that a killed job can go on.

A clip goes planned -> started -> rendered (latents and frames on disk, hashes here) -> written (its output frames
are PNGs).  Each clip's fingerprint takes in those of the clips it continues, so a changed setting makes exactly the
clips stale that it reaches.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .atomic_files import write_json
from .errors import InputError
from .hashing import sha256_of
from .job_files import JobFiles

MANIFEST_VERSION = 1

ClipState = Literal["planned", "started", "rendered", "written"]
JobState = Literal["running", "cancelled", "failed", "done"]


@dataclass(frozen=True)
class ClipRecord:
    """One clip.  fingerprint: of its request; pictures: of what its PNGs show; seconds: part -> time it took."""

    state: ClipState = "planned"
    fingerprint: str = ""
    latents_sha256: str = ""
    frames_sha256: str = ""
    pictures: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Manifest:
    """The record of one job; every change is on disk when the method returns.  Two threads may change it.

    facts: what does not change clip by clip: settings, plan, seed, model, source ...
    """

    def __init__(self, path: Path, facts: dict[str, Any], clips: list[ClipRecord], state: JobState = "running") -> None:
        self.path, self.facts, self.clips, self.state = path, facts, clips, state
        self._one_at_a_time = threading.Lock()

    @property
    def seed(self) -> int:
        return int(self.facts["seed"])

    def save(self, *, state: JobState | None = None, **facts: Any) -> None:
        """Write it, with another state or other facts if given.  Raises OutputError."""
        with self._one_at_a_time:
            self.state = state or self.state
            self.facts = {**self.facts, **facts}
            clips = [dataclasses.asdict(clip) for clip in self.clips]
            write_json(self.path, {"version": MANIFEST_VERSION, "state": self.state, **self.facts, "clips": clips})

    def set_clip(self, index: int, **changes: Any) -> None:
        """Change a clip's record and write the manifest.  Raises OutputError."""
        with self._one_at_a_time:
            self.clips[index] = dataclasses.replace(self.clips[index], **changes)
        self.save()


def load_manifest(path: Path) -> Manifest:
    """Read a job's record.  Raises InputError where it isn't one."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version, state = raw.pop("version"), raw.pop("state")
        clips = [ClipRecord(**clip) for clip in raw.pop("clips")] if version == MANIFEST_VERSION else []
        int(raw["seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "this job's record can't be read", got=f"{path}: {error}", next_step="render without --resume"
        ) from error
    if version != MANIFEST_VERSION:
        raise InputError(
            "this job was made by another version", got=version, allowed=str(MANIFEST_VERSION), where=str(path),
            next_step="render without --resume",
        )  # fmt: skip
    return Manifest(path, raw, clips, state)


def clip_is_whole(record: ClipRecord, fingerprint: str, files: JobFiles, index: int) -> bool:
    """Whether a clip's latents and frames are those of this request, and undamaged."""
    if record.state not in {"rendered", "written"} or record.fingerprint != fingerprint:
        return False
    expected = ((files.latents(index), record.latents_sha256), (files.frames(index), record.frames_sha256))
    return all(path.is_file() and sha256_of(path) == digest for path, digest in expected)


def pictures_are_whole(files: JobFiles, frames: range) -> bool:
    """Whether all these output frames are on disk as complete PNGs (a power cut may leave empty ones)."""
    return all(_ends_as_png(files.picture(frame)) for frame in frames)


def _ends_as_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-8, 2)
            return file.read() == b"IEND\xaeB`\x82"
    except OSError:
        return False
