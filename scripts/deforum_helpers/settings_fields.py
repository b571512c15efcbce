"""What one field of the settings may hold, and how it is checked and read from text."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from .errors import SettingsError

Kind = Literal["int", "float", "bool", "text", "path", "choice", "schedule", "prompts", "files", "extra"]

_LONGEST = {"text": 20_000, "path": 4_096, "choice": 100, "schedule": 200_000}
_LONGEST_PROMPT, _MOST_PROMPTS = 20_000, 10_000
_MOST_LEVELS = 100
_YES = {"true", "yes", "on", "1"}
_NO = {"false", "no", "off", "0"}
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Field:
    """One field: the single source of its default, its range and its description.

    minimum, maximum: of the value, or of every value of a schedule; above_minimum: the minimum itself is excluded.
    multiple, remainder: a whole number must leave `remainder` divided by `multiple`; 0 is exempt ("automatic").
    choices: the words allowed; pattern and pattern_words: a regular expression for a text, and what it means.
    deforum: its names in a Deforum settings file, the one we write first; () = only our own name.
    group: the part of the tab and of the documentation it belongs to.
    """

    name: str
    kind: Kind
    default: Any
    hint: str
    group: str
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    multiple: int = 1
    remainder: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = ""
    pattern_words: str = ""
    deforum: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The range in words, "" if there is nothing to say."""
        if self.choices:
            return ", ".join(choice or '"" (the model\'s own)' for choice in self.choices)
        if self.pattern_words:
            return self.pattern_words
        if self.minimum is None or self.maximum is None:
            return {"bool": "true or false", "path": "a path on this machine", "files": '{"frame": "path", ...}'}.get(
                self.kind, ""
            )
        reach = f"{self.minimum} to {self.maximum}"
        if self.above_minimum:
            reach = f"above {self.minimum}, up to {self.maximum}"
        if self.multiple > 1:
            rest = f" plus {self.remainder}" if self.remainder else ""
            reach += f", a multiple of {self.multiple}{rest}"
        return reach if self.kind != "schedule" else f"values {reach}"

    def check(self, value: Any) -> Any:
        """The value in its own type, or SettingsError.  Whole floats pass as int, numbers as schedules."""
        match self.kind:
            case "bool":
                if not isinstance(value, bool):
                    raise self.error("must be true or false", value)
                return value
            case "int":
                return self._checked_int(value)
            case "float":
                return self._checked_float(value)
            case "prompts":
                return _checked_prompts(value)
            case "files":
                return _checked_files(value, self.name)
            case "extra":
                return _checked_extra(value)
        if self.kind == "schedule" and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(self._checked_finite(value))
        return self._checked_text(value)

    def parse(self, text: str) -> Any:
        """Read the value from text, such as a command line's; checked as well."""
        word = text.strip()
        match self.kind:
            case "bool":
                if word.lower() not in _YES | _NO:
                    raise self.error("must be true or false", text)
                return word.lower() in _YES
            case "int" | "float":
                try:
                    return self.check(float(word) if self.kind == "float" or not _is_whole(word) else int(word))
                except ValueError:
                    raise self.error("must be a number", text) from None
            case "prompts" if not word.startswith("{"):
                return self.check({"0": text})
            case "choice":
                return self.check(word)
        return self.check(text)

    def error(self, what: str, got: Any, next_step: str = "") -> SettingsError:
        return SettingsError(what, where=self.name, got=got, allowed=self.allowed, next_step=next_step)

    def _checked_finite(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error("must be a number", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error("must be finite", value)
        return value

    def _checked_int(self, value: Any) -> int:
        value = self._checked_finite(value)
        if value != int(value):
            raise self.error("must be a whole number", value)
        value = int(value)
        self._check_range(value)
        if value and value % self.multiple != self.remainder:
            raise self.error(f"must be a multiple of {self.multiple}{self._rest()}", value, self._nearest(value))
        return value

    def _checked_float(self, value: Any) -> float:
        value = self._checked_finite(value)
        self._check_range(value)
        return float(value)

    def _check_range(self, value: float) -> None:
        low, high = self.minimum, self.maximum
        if (low is not None and (value < low or (self.above_minimum and value == low))) or (
            high is not None and value > high
        ):
            raise self.error("is out of range", value)

    def _rest(self) -> str:
        return f" plus {self.remainder}" if self.remainder else ""

    def _nearest(self, value: int) -> str:
        below = value - (value - self.remainder) % self.multiple
        near = [n for n in (below, below + self.multiple) if n and self.minimum <= n <= self.maximum]
        return f"the nearest: {' or '.join(map(str, near))}"

    def _checked_text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.error("must be text", value)
        longest = _LONGEST[self.kind]
        if len(value) > longest:
            raise self.error(f"is too long ({len(value)} characters, at most {longest})", value)
        _check_characters(value, self.name)
        if self.choices and value not in self.choices:
            near = get_close_matches(value.lower(), self.choices, 1)
            raise self.error("unknown choice", value, f'did you mean "{near[0]}"?' if near and near[0] else "")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise self.error("is not usable", value)
        if self.kind == "path" and _URL.match(value):
            raise self.error("must be a file; nothing is fetched from the net", value, "download it first")
        if self.kind == "path" and value.startswith("~"):
            try:
                Path(value).expanduser()
            except RuntimeError:
                raise self.error("begins with the home folder of a user who isn't known here", value) from None
        return value


def prompts_from_json(text: str) -> tuple[dict[str, Any], list[str]]:
    """Read a prompt set from JSON text.  Returns it and notes on keys given twice.  Raises SettingsError."""
    return json_object(text, "prompts")


def named_files(text: str, where: str) -> dict[str, str]:
    """What a field of files holds: {"frame": "path", ...} as JSON text, or "".  Raises SettingsError."""
    if text.strip() and not text.lstrip().startswith("{"):
        allowed = '{"0": "a.png", "max_f/2": "b.png"}'
        raise SettingsError("must be files by frame", where=where, got=text, allowed=allowed)
    return json_object(text, where)[0] if text.strip() else {}


def _checked_files(value: Any, where: str) -> str:
    """Files by frame, as JSON text again; "" for none."""
    if isinstance(value, str):
        value = named_files(value, where)
    if not isinstance(value, Mapping):
        raise SettingsError("must be an object", where=where, got=value, allowed='{"frame": "path", ...}')
    path = Field(where, "path", "", "", "")
    checked: dict[str, str] = {}
    for key, file in value.items():
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise SettingsError("a key must be a frame or an expression", where=where, got=key)
        _check_characters(str(key), where)
        if file:
            checked[str(key).strip()] = path.check(file)
    return json.dumps(checked, ensure_ascii=False) if checked else ""


def json_object(text: str, where: str) -> tuple[dict[str, Any], list[str]]:
    """Parse one JSON object.  Returns it and notes on keys given twice.  Raises SettingsError with line and column."""
    notes: list[str] = []

    def keep_last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = [name for name, count in counts.items() if count > 1]
            notes.extend(f'{where}: "{name}" is given twice; the last one counts' for name in twice)
        return kept

    try:
        raw = json.loads(text, object_pairs_hook=keep_last, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise SettingsError(f"not valid JSON: {error.msg}", where=place, next_step="correct it there") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not valid JSON: {str(error)[:120]}", where=where) from None
    if not isinstance(raw, dict):
        raise SettingsError(
            "must be one JSON object", where=where, got=type(raw).__name__, allowed='{"name": value, ...}'
        )
    if _is_deeper(raw, _MOST_LEVELS):
        raise SettingsError("is nested too deeply", where=where, allowed=f"up to {_MOST_LEVELS} levels")
    return raw, notes


def _is_deeper(value: dict[str, Any], levels: int) -> bool:
    """Whether lists and objects lie in each other more than so many times.

    Python reads and writes JSON by recursion: what was read at one depth of the stack must not fail at another.
    """
    layer: list[Any] = [value]
    for _ in range(levels):
        inside = (inner for outer in layer for inner in (outer.values() if isinstance(outer, dict) else outer))
        layer = [inner for inner in inside if isinstance(inner, dict | list)]
        if not layer:
            return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON has")


def _check_characters(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError("holds half a character (a lone surrogate)", where=where, got=value) from None
    if "\0" in value:
        raise SettingsError("holds a null character", where=where, got=value)


def _checked_prompts(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value, twice = prompts_from_json(value)
        if twice:
            raise SettingsError(twice[0].removeprefix("prompts: "), where="prompts", next_step="keep one of them")
    if not isinstance(value, Mapping):
        raise SettingsError(
            "must be an object", where="prompts", got=value, allowed='{"frame": "positive --neg negative", ...}'
        )
    if len(value) > _MOST_PROMPTS:
        raise SettingsError("too many prompts", where="prompts", got=len(value), allowed=f"up to {_MOST_PROMPTS}")
    checked: dict[str, str] = {}
    for key, text in value.items():
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise SettingsError("a key must be a frame or an expression", where="prompts", got=key)
        if not isinstance(text, str):
            raise SettingsError(f'the prompt at "{key}" must be text', where="prompts", got=text)
        if len(text) > _LONGEST_PROMPT:
            raise SettingsError(f'the prompt at "{key}" is longer than {_LONGEST_PROMPT}', where="prompts", got=text)
        name = str(key).strip()
        if name in checked:
            raise SettingsError(f'"{name}" is given twice', where="prompts", next_step="keep one of them")
        _check_characters(name + text, "prompts")
        checked[name] = text
    return checked


def _checked_extra(value: Any) -> dict[str, Any]:
    """A copy that JSON gives back unchanged."""
    if not isinstance(value, Mapping):
        raise SettingsError("must be a mapping", where="extra", got=value)
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"holds what JSON can't: {str(error)[:120]}", where="extra") from None


def _is_whole(word: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]{1,18}", word))
