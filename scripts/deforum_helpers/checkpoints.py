"""Models on this machine: found, named, resolved from what a person typed, and reported on.

What a folder holds is told by model_files/; this knows where to look and what to say.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from .errors import ModelError
from .hashing import sha256_of
from .model_files import PART_TITLES, ModelInfo, PartInfo, inspect_model, inspect_models, scan_folder
from .variants import DEMO

__all__ = [
    "ModelInfo", "PartInfo", "check_report", "expected_sha256", "find_models", "inspect_model", "model_folders",
    "resolve_model", "sample_into",
]  # fmt: skip

_LEVELS_UP = 4
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_DOWNLOAD = "hf download Wan-AI/Wan2.1-T2V-1.3B --local-dir models/wan/Wan2.1-T2V-1.3B"


class OnBytes(Protocol):
    """Hears how far the reading of a file has come."""

    def __call__(self, file: str, done: int, *, size: int) -> None: ...


def model_folders(root: Path, extra: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
    """Folders to look for models in, those that exist, most particular first.

    root: the extension's own folder.  extra: folders of the settings and of the host.
    """
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    above = [folder for folder in list(root.parents)[:_LEVELS_UP]]
    places = [Path(folder).expanduser() for folder in extra]
    places += [root / "models"]
    places += [folder / "models" / name for folder in above for name in ("wan", "Wan")]
    places += [folder / "ComfyUI" / "models" for folder in above]
    places += [cache]
    result: list[Path] = []
    for place in places:
        try:
            if place.is_dir() and not any(place.samefile(other) for other in result):
                result.append(place)
        except OSError:
            continue
    return result


def find_models(folders: Sequence[str | os.PathLike[str]]) -> list[ModelInfo]:
    """Every model in these folders; a part that one lacks is taken from another.

    Headers are read once and kept while a file's size and time stay the same, so a second call is quick.
    Folders that can't be read are left out; a broken model is in the list, with its problems.
    """
    roots = [Path(folder) for folder in folders if Path(folder).is_dir()]
    scans = {root: scan_folder(root) for root in roots}
    found: dict[tuple[str, ...], ModelInfo] = {}
    for root in roots:
        others = [scan for other, scan in scans.items() if other != root]
        for model in inspect_models(root, others):
            backbone = [file for name, part in model.parts.items() if name.startswith("dit") for file in part.files]
            if backbone:
                found.setdefault(tuple(os.path.realpath(file) for file in backbone), model)
    return list(found.values())


def resolve_model(name_or_path: str, folders: Sequence[str | os.PathLike[str]]) -> ModelInfo:
    """The model that a person means: a path, a name from `find_models`, a variant's name, or "" for the first
    whole one that isn't the demo, else the demo.

    Raises ModelError if there is none or it isn't whole.
    """
    text = name_or_path.strip()
    if text.startswith("{"):
        return inspect_model(text).require()
    path = Path(text).expanduser()
    if len(path.parts) > 1 and os.path.lexists(path):
        return inspect_model(path).require()
    models = find_models(folders)
    if not text:
        whole = sorted((model for model in models if model.complete), key=lambda model: model.variant == DEMO)
        if not whole:
            raise ModelError("no whole model is there", got=_names(models) or None, next_step=_DOWNLOAD)
        return whole[0]
    meant = [model for model in models if text.lower() in _called(model)]
    if not meant and os.path.lexists(path):  # a bare word is a name first, then a folder in the working directory
        return inspect_model(path).require()
    if not meant:
        raise ModelError(
            "no such model", got=text, allowed=f"a folder, a file or one of: {_names(models) or 'none found'}",
            next_step="check the name, or download the model into models/wan", where="model",
        )  # fmt: skip
    return next((model for model in meant if model.complete), meant[0]).require()


def _called(model: ModelInfo) -> set[str]:
    path = Path(model.path)
    return {text.lower() for text in (model.name, model.variant, path.name, path.stem) if text}


def _names(models: Iterable[ModelInfo]) -> str:
    return ", ".join(sorted({model.name for model in models})[:12])


# The report of check-model


def check_report(
    info: ModelInfo, hashes: bool = False, on_bytes: OnBytes | None = None
) -> tuple[str, dict[str, Any]]:
    """(text for people, the same for programs).  hashes: read every file whole and compare its sha256 where the
    download left the right one behind.  on_bytes(file, read so far, size) is told now and then."""
    data: dict[str, Any] = {
        "path": info.path,
        "name": info.name,
        "variant": info.variant,
        "title": info.row.title if info.variant else "",
        "complete": info.complete,
        "size": info.size,
        "capabilities": list(info.capabilities),
        "parts": {name: _part_report(part) for name, part in info.parts.items()},
        "missing": [{"part": gap.part, "reason": gap.reason, "command": gap.command} for gap in info.missing],
        "problems": [str(problem) for problem in info.problems],
        "notes": list(info.notes),
    }
    if hashes:
        data["hashes"] = _hashes(info, on_bytes)
        data["problems"] += [
            f"{h['file']}: {h['verdict']}" for h in data["hashes"] if h["verdict"].startswith("differs")
        ]
        data["complete"] = info.complete and len(data["problems"]) == len(info.problems)
    return "\n".join(_report_lines(data)), data


def _part_report(part: PartInfo) -> dict[str, Any]:
    return {
        "layout": part.layout,
        "format": part.format,
        "dtype": part.dtype,
        "quantization": part.quantization,
        "size": part.size,
        "files": list(part.files),
        "description": part.describe(),
        "problems": list(part.problems),
    }


def _report_lines(data: dict[str, Any]) -> list[str]:
    """One fact a line, in columns."""
    state = "complete" if data["complete"] else "NOT complete"
    lines = [f"{data['title'] or 'no known model'}: {state}, {_in_gigabytes(data['size'])}", f"  {data['path']}"]
    for name, part in data["parts"].items():
        files = ", ".join(Path(file).name for file in part["files"][:1])
        more = f" and {len(part['files']) - 1} more" if len(part["files"]) > 1 else ""
        size = _in_gigabytes(part["size"])
        lines.append(f"  {PART_TITLES[name].removeprefix('the '):18s} {size:>9s}  {part['description']}: {files}{more}")
    if data["capabilities"]:
        lines.append(f"  {'can':18s} {', '.join(data['capabilities'])}")
    lines += [f"  note: {note}" for note in data["notes"]]
    lines += [f"  PROBLEM: {problem}" for problem in data["problems"]]
    for gap in data["missing"]:
        lines += [f"  MISSING: {gap['reason']}", f"           {gap['command']}"]
    lines += [f"  sha256 {entry['sha256']}  {entry['verdict']}  {entry['file']}" for entry in data.get("hashes", [])]
    return lines


def _in_gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _hashes(info: ModelInfo, on_bytes: OnBytes | None) -> list[dict[str, str]]:
    """Raises ModelError if a file can't be read."""
    files = sorted({file for part in info.parts.values() for file in part.files if Path(file).is_file()})
    result = []
    for file in files:
        size = Path(file).stat().st_size
        hear = functools.partial(on_bytes, file, size=size) if on_bytes else None
        try:
            value, wanted = sha256_of(file, hear), expected_sha256(file)
        except OSError as error:
            raise ModelError(f"can't be read ({error.strerror or error})", where=file) from error
        verdict = "as published" if value == wanted else f"differs from the published {wanted}: download it again"
        result.append({"file": file, "sha256": value, "verdict": verdict if wanted else "no published value at hand"})
    return result


def sample_into(digest: hashlib._Hash, path: Path) -> None:
    """Add a file's size and samples of its bytes to a hash: a file of 60 GB isn't read whole before every render."""
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for k in range(_SAMPLES + 1):
            file.seek(max(0, size - _SAMPLE_BYTES) * k // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))


_SHA256 = re.compile(r"[0-9a-f]{64}")


def expected_sha256(file: str | os.PathLike[str]) -> str:
    """The published sha256 of a file, where its download left it: the name of the blob in a Hugging Face cache,
    the metadata beside a --local-dir download, or a SHA256SUMS file.  "" if there is none."""
    path = Path(file)
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    for folder in list(path.parents)[:4]:
        inside = path.relative_to(folder)
        try:
            metadata = folder / ".cache" / "huggingface" / "download" / f"{inside}.metadata"
            if metadata.is_file():
                lines = metadata.read_text("utf-8").split()
                return lines[1] if len(lines) > 1 and _SHA256.fullmatch(lines[1]) else ""
            sums = folder / "SHA256SUMS"
            if sums.is_file():
                listed = [line.split(maxsplit=1) for line in sums.read_text("utf-8").splitlines()]
                named = {pair[1].lstrip("*"): pair[0] for pair in listed if len(pair) == 2}
                return named.get(inside.as_posix(), "")
        except (OSError, ValueError):
            continue
    return ""
