"""Which files of this machine a request may name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..errors import InputError, SettingsError
from ..lora_files import as_path
from ..planning.loras import lora_lines
from ..settings import RenderSettings
from ..wan_integration import lora_search_folders, model_search_folders
from . import host


def allowed_folder(folder: str) -> Path:
    """A folder that the API may read settings files from.  Raises InputError."""
    allowed = [place for place in host.readable_folders() if place.is_dir()]
    if folder.strip() and any(_is_inside(folder, place) for place in allowed):
        path = Path(folder).expanduser().resolve()
        if path.is_dir():
            return path
    raise InputError(
        "settings files are read from certain folders only", where="folder", got=folder,
        allowed=", ".join(str(place) for place in allowed), next_step="move them there, or drop the files into the tab",
    )  # fmt: skip


def foreign_paths(settings: RenderSettings) -> list[SettingsError]:
    """An error for each file of this machine that somebody at another one may not name."""
    allowed = [*host.readable_folders(), *model_search_folders(host.model_folders())]
    errors = []
    for name, path in settings.files():
        is_name = name == "model" and not any(mark in path for mark in "/\\:{~")
        if not is_name and not any(_is_inside(path, place) for place in allowed):
            errors.append(SettingsError(
                "from another machine only files in this one's own folders may be named", where=name, got=path,
                allowed=", ".join(str(place) for place in host.readable_folders()),
            ))  # fmt: skip
    with suppress(SettingsError):  # a line that can't be read is told by whoever plans
        for line in lora_lines(settings.loras):
            if (as_path(line.name).is_absolute() or ".." in Path(line.name).parts) and not any(
                _is_inside(line.name, place) for place in (*allowed, *lora_search_folders(host.lora_folders()))
            ):
                errors.append(SettingsError(
                    "from another machine a LoRA is named as the list of LoRAs has it", where="loras", got=line.name
                ))  # fmt: skip
    return errors


def refuse_foreign_paths(settings: RenderSettings) -> None:
    """Raises the first of those errors."""
    for error in foreign_paths(settings):
        raise error


def _is_inside(path: str, folder: Path) -> bool:
    """Links are followed first."""
    try:
        return Path(path).expanduser().resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False
