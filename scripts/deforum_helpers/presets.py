"""Named settings: those that come with the program, and the user's own, one JSON file each in one folder.

    {"format": "deforum-wan-preset", "version": 1, "description": "...", "settings": {"width": 832, ...}}

A preset holds some fields of the settings and leaves the others as they are.  Its name is its file's; a plain
settings file put into the folder is a preset too.  What a newer version wrote into a file stays in it.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import deforum_files
from .atomic_files import inside, naming, write_bytes
from .builtin_presets import ROWS
from .errors import Conflict, InputError, NotFound, OutputError, SettingsError
from .settings import FIELDS, RenderSettings, apply_overrides
from .settings_fields import json_object
from .variants import Variant

__all__ = ["CONTENT", "Preset", "PresetFolder", "apply_preset", "builtin_presets", "preset_values"]

FORMAT = "deforum-wan-preset"
VERSION = 1
# What a video shows, not how it is made.
CONTENT = frozenset({"prompts", "seed", "init_image", "init_images", "init_video", "soundtrack", "extra"})
_LONGEST_NAME, _MOST_BYTES = 80, 200  # a file's name has 255; what is being written has a longer one for a moment
_NO_NAME = re.compile(r'[/\\:*?"<>|]|^[.\s]|[.\s]$')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\s*\..*)?", re.IGNORECASE)  # also "COM¹"
_JOINERS = "\u200c\u200d"  # unseen, but some scripts and emoji can't be written without them
_LARGEST_FILE = 1024 * 1024
_MOST = 2000
_DEFAULT = "default.txt"  # holds the name of the preset that the tab opens with


@dataclass(frozen=True)
class Preset:
    """settings: some fields, by our names or Deforum's.  other: what a newer version keeps beside them."""

    name: str
    settings: dict[str, Any]
    description: str = ""
    built_in: bool = False
    other: dict[str, Any] = field(default_factory=dict)


def builtin_presets(variant: Variant) -> tuple[Preset, ...]:
    """The presets that come with the program, as they apply to this model."""
    rows = ((name, description, values(variant)) for name, description, values in ROWS)
    return tuple(Preset(name, values, description, built_in=True) for name, description, values in rows if values)


def apply_preset(settings: RenderSettings, preset: Preset) -> tuple[RenderSettings, list[str]]:
    """The settings with the preset's fields in place.

    Returns notes on fields that have no meaning here as well.  Raises SettingsError, naming the field.
    """
    values, _, notes = deforum_files.translate(preset.settings, FIELDS)
    return apply_overrides(settings, values), notes


def preset_values(settings: RenderSettings, *, with_content: bool = False) -> dict[str, Any]:
    """What a preset made of these settings holds.  with_content: prompts, seed, picture and sound too."""
    return {
        name: getattr(settings, name) for name in FIELDS if name != "extra" and (with_content or name not in CONTENT)
    }


class PresetFolder:
    """The user's presets.  The folder is made with the first one.

    notices: a line for each file that could not be used, and what became of it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.notices: list[str] = []

    def presets(self) -> list[Preset]:
        """All that can be read, by name.  A damaged file is set aside."""
        found = [preset for path in self._files() if (preset := self._read(path))]
        return sorted(found, key=lambda preset: _key(preset.name))

    def get(self, name: str) -> Preset:
        """Raises NotFound where there is none, or none that can be read, InputError for what is no name."""
        path = self._path(name)
        preset = self._read(path) if path.exists() else None
        if preset is None:
            raise _unknown(name)
        return preset

    def save(self, name: str, settings: Mapping[str, Any], *, description: str = "", overwrite: bool = False) -> Preset:
        """Write a preset.  overwrite: in place of one of this name, keeping what a newer version put in there.

        settings: as preset_values() gives them.  Raises InputError, Conflict, SettingsError, OutputError.
        """
        path = self._path(name)
        preset = Preset(path.stem, dict(settings), description)
        if path.exists():
            if not overwrite:
                raise _taken(name)
            if old := self._read(path):
                unknown = deforum_files.translate(old.settings, FIELDS)[1]
                preset = replace(preset, settings={**unknown, **preset.settings}, other=old.other)
        self._write(path, preset)
        return preset

    def rename(self, name: str, new_name: str) -> Preset:
        """Raises InputError, NotFound, Conflict, OutputError."""
        preset, path, target = self.get(name), self._path(name), inside(self.folder, f"{_checked(new_name)}.json")
        if _key(new_name) != _key(name) and self._path(new_name).exists():
            raise _taken(new_name)
        was_default = _key(self.default) == _key(name)
        with naming(target):
            path.rename(target)
        if was_default:
            self.set_default(target.stem)
        return replace(preset, name=target.stem)

    def delete(self, name: str) -> None:
        """Raises InputError, NotFound, OutputError."""
        path, was_default = self._path(name), _key(self.default) == _key(name)
        if not path.exists():
            raise _unknown(name)
        with naming(path):
            path.unlink()
        if was_default:
            self.set_default("")

    def export_text(self, name: str) -> str:
        """The preset as a file's text."""
        return _as_text(self.get(name))

    def import_text(self, text: str | bytes, name: str, *, overwrite: bool = False) -> Preset:
        """Take in a preset or a settings file from anywhere.

        Raises InputError, Conflict, SettingsError, OutputError.
        """
        if len(text) > _LARGEST_FILE:
            raise InputError("is too large for a preset", where="text", allowed=f"up to {_LARGEST_FILE} bytes")
        preset = _parse(text, _checked(name), "text")
        path = self._path(name)
        if path.exists() and not overwrite:
            raise _taken(name)
        self._write(path, replace(preset, name=path.stem))
        return replace(preset, name=path.stem)

    @property
    def default(self) -> str:
        """The preset that the tab opens with, "" for none."""
        try:
            name = (self.folder / _DEFAULT).read_text(encoding="utf-8", errors="replace").strip()
            return name if name and (name in _BUILT_IN or self._path(name).exists()) else ""
        except (OSError, InputError):
            return ""

    def set_default(self, name: str) -> None:
        """name: one of the user's, a built-in one's, or "" for none.  Raises InputError, NotFound, OutputError."""
        if name and name not in _BUILT_IN:
            name = self.get(name).name
        self._make_folder()
        write_bytes(self.folder / _DEFAULT, name.encode())

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.glob("*.json") if path.is_file())[:_MOST]
        except OSError as error:
            self._notice(f"the presets can't be read: {error.strerror or error}")
            return []

    def _path(self, name: str) -> Path:
        """The file of a preset, there or not; one that differs only in case or in how it is encoded is the same."""
        name = _checked(name)
        same = [path for path in self._files() if _key(path.stem) == _key(name)]
        return inside(self.folder, same[0].name if same else f"{name}.json")

    def _read(self, path: Path) -> Preset | None:
        try:
            with inside(self.folder, path.name).open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
            if len(data) > _LARGEST_FILE:
                raise SettingsError(f"is larger than {_LARGEST_FILE} bytes")
            return _parse(data, _checked(path.stem))
        except OSError as error:
            self._notice(f"{path.name} can't be read: {error.strerror or error}")
        except SettingsError as error:
            self._set_aside(path, error)
        except InputError as error:  # of a newer version, or a name that can't be used: it stays as it is
            self._notice(f"{path.name} is left out: {error.one_line()}")
        return None

    def _set_aside(self, path: Path, error: SettingsError) -> None:
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            path.rename(aside)
        except OSError:
            self._notice(f"{path.name} is damaged: {error.one_line()}")
        else:
            self._notice(f"{path.name} was damaged and set aside as {aside.name}: {error.one_line()}")

    def _write(self, path: Path, preset: Preset) -> None:
        apply_preset(RenderSettings(), preset)
        try:
            data = _as_text(preset).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise SettingsError(f"a preset can't hold this: {str(error)[:120]}", where="settings") from error
        if len(data) > _LARGEST_FILE:
            allowed = f"up to {_LARGEST_FILE} bytes"
            raise SettingsError("a preset can't hold this much", where="settings", allowed=allowed)
        self._make_folder()
        write_bytes(path, data)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "the presets' folder can't be made", got=error.strerror or str(error), where=str(self.folder),
                next_step="check its permissions",
            ) from error  # fmt: skip

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices = [*self.notices[-19:], text]


_BUILT_IN = frozenset(name for name, _, _ in ROWS)


def _from_plain_settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 0: a settings file, ours or Deforum's."""
    return {"settings": deforum_files.translate(raw, FIELDS)[0]}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_plain_settings}  # from that version


def _unknown(name: str) -> NotFound:
    return NotFound("there is no such preset", got=name, next_step="choose one of the list")


def _taken(name: str) -> Conflict:
    return Conflict("there is a preset of this name", got=name, next_step="choose another name")


def _parse(data: str | bytes, name: str, where: str = "") -> Preset:
    """Raises SettingsError for what is no preset, InputError for one of a newer version; where: what they name."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise SettingsError(f"is not UTF-8 text (byte {error.start})", where=where) from None
    raw, _ = json_object(text, where or name)
    version = raw.pop("version", None) if raw.pop("format", None) == FORMAT else 0
    if type(version) is not int or version < 0:
        raise SettingsError("has no version", where=where, got=version)
    if version > VERSION:
        raise InputError(
            "was made by a newer version", where=where, got=version, allowed=f"up to {VERSION}",
            next_step="update the extension",
        )  # fmt: skip
    for step in range(version, VERSION):
        raw = _MIGRATIONS[step](raw)
    settings, description = raw.pop("settings", None), raw.pop("description", "")
    if not isinstance(settings, dict) or not isinstance(description, str):
        raise SettingsError("holds no settings", where=where, got=settings)
    if not settings:
        raise SettingsError("holds none of the settings", where=where, allowed=", ".join(sorted(FIELDS)[:8]) + " ...")
    return Preset(name, settings, description, other=raw)


def _as_text(preset: Preset) -> str:
    own = {"format": FORMAT, "version": VERSION, "description": preset.description, "settings": preset.settings}
    content = {**own, **{key: value for key, value in preset.other.items() if key not in own}}
    return json.dumps(content, ensure_ascii=False, indent=4, allow_nan=False) + "\n"


def _checked(name: str) -> str:
    """The name in one encoding; one that is a file's on every system and can't pass for another.

    Raises InputError: not SettingsError, which would have a file of such a name set aside as damaged.
    """
    name = unicodedata.normalize("NFC", name)
    unseen = any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS for c in name)
    if (
        unseen or _NO_NAME.search(name) or _DEVICE.fullmatch(unicodedata.normalize("NFKC", name))
        or not 1 <= len(name) <= _LONGEST_NAME or len(name.encode("utf-8", "replace")) > _MOST_BYTES
    ):  # fmt: skip
        raise InputError(
            "is no name for a preset", where="name", got=name, next_step="choose another name",
            allowed=f'up to {_LONGEST_NAME} characters without / \\ : * ? " < > |, no dot or space at its ends',
        )  # fmt: skip
    if _key(name) in {_key(built_in) for built_in in _BUILT_IN}:
        raise InputError("is the name of a built-in preset", where="name", got=name, next_step="choose another name")
    return name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
