"""LoRA files on this machine: found in the folders where the field's tools keep them, named, checked for a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .checkpoints import sample_into
from .errors import ModelError, SettingsError, first_few
from .model_files import ModelInfo, read_tensor_file, walk
from .model_files.assemble import noise_level_in_name
from .model_files.lora_header import looks_like_wan_lora, read_lora
from .planning.loras import FIELD, lora_lines
from .settings import RenderSettings

_FOLDERS = ("lora", "loras", "Lora", "Loras", "LoRA")
_SUFFIXES = (".safetensors", ".sft")
_LEVELS_UP, _DEEPEST, _MOST_FILES = 4, 5, 5000
_MOST_NAMED = 8


@dataclass(frozen=True)
class LoraChoice:
    """One file.  name: its path in its folder, without the ending; what a settings file calls it."""

    name: str
    path: str
    size: int


@dataclass(frozen=True)
class UsedLora:
    """A LoRA of a job.  name: as the settings have it.  expert: "high", "low", or "" for all backbones of the model.
    identity: a hash of its weights.  note: what in the file the model has no place for."""

    name: str
    path: str
    expert: str
    identity: str
    note: str


def lora_folders(root: Path, extra: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
    """Folders that LoRAs are looked for in, those that exist.  root: the extension's own folder.

    extra: folders of models, the host's or the user's; a folder for LoRAs is looked for in and beside each, and one
    with "lora" in its name is one.
    """
    above = list(root.parents)[:_LEVELS_UP]
    extra = [Path(folder).expanduser() for folder in extra]
    named = [folder for folder in extra if "lora" in folder.name.lower()]
    places = [place for folder in extra for place in (folder, folder.parent)]
    places += [root / "models", *(folder / "models" for folder in above)]
    places += [folder / "ComfyUI" / "models" for folder in above]
    result: list[Path] = []
    for folder in (*named, *(place / name for place in places for name in _FOLDERS)):
        try:
            if folder.is_dir() and not any(folder.samefile(other) for other in result):
                result.append(folder)
        except OSError:
            continue
    return result


def find_loras(folders: Sequence[Path]) -> list[LoraChoice]:
    """Every LoRA for some Wan model in these folders, by name; other models' and broken files are left out."""
    found: dict[str, LoraChoice] = {}
    for folder in folders:
        for path in _files(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            try:
                header = read_tensor_file(path)
                if name not in found and looks_like_wan_lora(header.tensors):
                    found[name] = LoraChoice(name, str(path), path.stat().st_size)
            except (ModelError, OSError):
                continue
    return sorted(found.values(), key=lambda lora: lora.name.lower())


def used_loras(settings: RenderSettings, model: ModelInfo, folders: Sequence[Path]) -> tuple[UsedLora, ...]:
    """The files that the settings name, each checked by its header to fit the model.  Raises SettingsError."""
    used = []
    for line in lora_lines(settings.loras):
        path = _resolve(line.name, folders)
        expert = noise_level_in_name(path) if model.row.experts else ""
        parts = [name for name in model.parts if name == "dit" or name == f"dit_{expert or name[4:]}"]
        try:
            notes = [
                read_lora(str(path), {name: source.shape for name, source in model.parts[part].sources.items()}).note()
                for part in parts
            ]
            identity = _identity(path)
        except ModelError as error:
            raise SettingsError(
                f"line {line.line}: {error.what}", where=FIELD, got=line.name, allowed=error.allowed or "",
                next_step=error.next_step or "choose another file",
            ) from error  # fmt: skip
        used.append(UsedLora(line.name, str(path), expert, identity, next(filter(None, notes), "")))
    return tuple(used)


def lora_beside(name: str, folder: Path) -> str:
    """A LoRA of a settings file: the file of that name, with its ending, in the settings file's own folder, else the
    name as it is."""
    path = folder / as_path(name)
    usable = path.suffix.lower() in _SUFFIXES and "=" not in str(path) and _is_file(path)
    return str(path.absolute()) if usable else name


def _identity(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        sample_into(digest, path)
    except OSError as error:
        raise ModelError(f"can't be read ({error.strerror or error})", where=str(path)) from error
    return digest.hexdigest()


def as_path(name: str) -> Path:
    """The path that a name would be; ~ stays where nobody's home folder is known."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be entered, a name longer than a file system has
        return False


def _resolve(name: str, folders: Sequence[Path]) -> Path:
    """A name in one of the folders, with or without its ending, or a path of this machine."""
    path = as_path(name)
    if path.is_absolute() and _is_file(path):
        return path
    wanted = Path(name).as_posix().lower()
    bare: list[Path] = []
    for folder in folders:
        for file in _files(folder):
            inside = file.relative_to(folder)
            if wanted in (inside.as_posix().lower(), inside.with_suffix("").as_posix().lower()):
                return file
            if wanted in (file.name.lower(), file.stem.lower()):
                bare.append(file)
    if len(bare) == 1:
        return bare[0]
    if bare:
        raise SettingsError(
            "is the name of several files", where=FIELD, got=name, allowed=", ".join(map(str, bare[:_MOST_NAMED]))
        )
    known = [lora.name for lora in find_loras(folders)]
    raise SettingsError(
        "there is no such LoRA", where=FIELD, got=name,
        allowed=first_few(known, _MOST_NAMED) if known else "none found yet",
        next_step="put the file into models/lora of this extension, or check the name",
    )  # fmt: skip


def _files(folder: Path) -> list[Path]:
    """Weights files below a folder, nearest first, by name."""
    result: list[Path] = []
    for here, names in walk(folder, _DEEPEST, []):
        wanted = (here / name for name in names if Path(name).suffix.lower() in _SUFFIXES)
        result += [path for path in wanted if _is_file(path)]
        if len(result) >= _MOST_FILES:
            break
    return result
