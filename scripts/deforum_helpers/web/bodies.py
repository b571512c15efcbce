"""Requests' bodies: read in bounded chunks, strictly JSON, each value checked by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request

from ..errors import SettingsError
from ..settings_fields import json_object
from .faults import Refused

LARGEST = 8 * 1024 * 1024
_LARGEST_DRAINED = 1024 * 1024 * 1024
_MOST = 2**53  # beyond it JavaScript rounds


async def read_object(request: Request, largest: int = LARGEST) -> dict[str, Any]:
    """The JSON object that a request carries.

    Raises Refused (413, 415) or SettingsError.  A page elsewhere can send forms and plain text, but not this
    content type, without the browser asking us first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("the body must be JSON", 415, got=kind or "no Content-Type", allowed="application/json")
    return parse_object(await _read(request, largest))


async def _read(request: Request, largest: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > _LARGEST_DRAINED:
        raise _too_large(largest)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= largest:
            chunks.append(chunk)
        elif size <= _LARGEST_DRAINED:  # read on and forget, so that the sender gets to hear the answer
            chunks.clear()
        else:
            break
    if size > largest:
        raise _too_large(largest)
    return b"".join(chunks)


def _too_large(largest: int) -> Refused:
    return Refused("the body is too large", 413, allowed=f"up to {largest} bytes", headers={"Connection": "close"})


def parse_object(data: bytes) -> dict[str, Any]:
    """Raises SettingsError for what is no JSON object."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"is not UTF-8 text (byte {error.start})", where="body") from None
    return json_object(text, "body")[0] if text.strip() else {}


def _is_whole(value: object) -> bool:
    return type(value) is int and -_MOST <= value <= _MOST


class Fields:
    """Named values of a request, from its body or its address, each taken out in the kind that is wanted.

    All methods raise SettingsError, naming the field.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def _take(self, name: str, default: Any, kind: type | tuple[type, ...], words: str) -> Any:
        value = self._values.get(name)
        if value is None:
            if default is ...:
                raise SettingsError("is missing", where=name, allowed=words)
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SettingsError("is of the wrong kind", where=name, got=value, allowed=words)
        return value

    def text(self, name: str, default: Any = ..., *, longest: int = 1000) -> str:
        value = self._take(name, default, str, "text")
        if value and len(value) > longest:
            raise SettingsError("is too long", where=name, got=value, allowed=f"up to {longest} characters")
        try:
            (value or "").encode()
        except UnicodeEncodeError:
            raise SettingsError("holds half a character (a lone surrogate)", where=name, got=value) from None
        return value

    def choice(self, name: str, choices: Iterable[str], default: Any = ...) -> str:
        value, allowed = self._take(name, default, str, "text"), tuple(choices)
        if value not in allowed:
            raise SettingsError("unknown choice", where=name, got=value, allowed=", ".join(allowed))
        return value

    def flag(self, name: str, default: Any = False) -> bool:
        return self._take(name, default, bool, "true or false")

    def whole(self, name: str, default: Any = ..., *, least: int = -_MOST, most: int = _MOST) -> int:
        value = self._take(name, default, int, "a whole number")
        if value is not None and not least <= value <= most:
            raise SettingsError("is out of range", where=name, got=value, allowed=f"{least} to {most}")
        return value

    def wholes(self, name: str, default: Any = ..., *, most: int = 1000) -> list[int]:
        values = self._take(name, default, list, "a list of whole numbers")
        if values is not None and (len(values) > most or any(not _is_whole(value) for value in values)):
            raise SettingsError("is of the wrong kind", where=name, got=values, allowed=f"up to {most} whole numbers")
        return values

    def object(self, name: str, default: Any = ...) -> dict[str, Any]:
        return self._take(name, default, dict, "an object")

    def objects(self, name: str, default: Any = ...) -> list[dict[str, Any]]:
        values = self._take(name, default, list, "a list of objects")
        if values is not None and any(not isinstance(value, dict) for value in values):
            raise SettingsError("is of the wrong kind", where=name, got=values, allowed="a list of objects")
        return values

    def value(self, name: str) -> Any:
        """As it is; somebody else checks it."""
        return self._values.get(name)

    def given(self, name: str) -> bool:
        return self._values.get(name) is not None

    def only(self, names: Iterable[str]) -> None:
        """Refuse a name that nobody asks for: a misspelt one must not be dropped in silence."""
        if unknown := sorted(set(self._values) - set(names)):
            raise SettingsError("unknown field", where=unknown[0][:100], allowed=", ".join(sorted(names)))


class Query(Fields):
    """The part of an address behind "?": text that is read as what is wanted."""

    def whole(self, name: str, default: Any = ..., *, least: int = -_MOST, most: int = _MOST) -> int:
        text = self.text(name, None, longest=20)
        if text is None:
            return super().whole(name, default, least=least, most=most)
        try:
            return Fields({name: int(text)}).whole(name, least=least, most=most)
        except ValueError:
            raise SettingsError("is of the wrong kind", where=name, got=text, allowed="a whole number") from None

    def wholes(self, name: str, default: Any = ..., *, most: int = 1000) -> list[int]:
        text = self.text(name, "", longest=20 * most)
        try:
            values = [int(part) for part in text.split(",")] if text else None
        except ValueError:
            raise SettingsError("must be whole numbers with commas between", where=name, got=text) from None
        return Fields({name: values}).wholes(name, default, most=most)

    def flag(self, name: str, default: Any = False) -> bool:
        text = self.text(name, None, longest=5)
        if text is None:
            return default
        if text.lower() not in ("0", "1", "true", "false"):
            raise SettingsError("is of the wrong kind", where=name, got=text, allowed="true or false")
        return text.lower() in ("1", "true")
