"""A file as an answer: whole or in ranges, so that a player can seek, whichever starlette the host brings.

Source: RFC 9110, sections 13 (conditional requests) and 14 (ranges).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import IO
from urllib.parse import quote

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import NotFound

_CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{1,18})?|-\s*(\d{1,18}))")


@dataclass(frozen=True)
class ServedFile:
    """A file to hand out.  download: the name it is saved under, "" to be shown in the page."""

    path: Path
    media_type: str
    download: str = ""


def file_response(request: Request, served: ServedFile) -> Response:
    """Answer a GET or HEAD.  206 for one range that fits, 416 for one that doesn't, 304 for a copy that is still good;
    what is no range, or several at once, gets the whole.  Raises NotFound."""
    facts = _facts(served.path)
    headers = _headers(served, facts)
    if _has_copy(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    first, last, status = 0, facts.st_size - 1, 200
    wanted = request.headers.get("range", "")
    if wanted and _range_counts(request, headers):
        found = byte_range(wanted, facts.st_size)
        if found == "beyond":
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{facts.st_size}"})
        if isinstance(found, tuple):
            first, last, status = *found, 206
            headers["Content-Range"] = f"bytes {first}-{last}/{facts.st_size}"
    length = last - first + 1
    if request.method == "HEAD":
        response = Response(status_code=status, media_type=served.media_type)
        response.headers.update({**headers, "Content-Length": str(length)})
        return response
    if length <= _CHUNK:
        with _opened(served.path) as file:
            file.seek(first)
            return Response(file.read(length), status, headers, served.media_type)
    headers["Content-Length"] = str(length)
    return StreamingResponse(_chunks(served.path, facts, first, length), status, headers, served.media_type)


def byte_range(header: str, size: int) -> tuple[int, int] | str | None:
    """(first, last) of a Range header, "beyond" if it lies past the end, None if it isn't one range of bytes."""
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return "beyond" if int(suffix) == 0 or size == 0 else (max(0, size - int(suffix)), size - 1)
    if last is not None and int(last) < int(first):
        return None
    if int(first) >= size:
        return "beyond"
    return int(first), min(int(last), size - 1) if last is not None else size - 1


def _facts(path: Path) -> os.stat_result:
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        raise _gone(path) from error
    if not stat.S_ISREG(facts.st_mode):
        raise _gone(path)
    return facts


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise _gone(path) from error


def _gone(path: Path) -> NotFound:
    return NotFound("this file isn't there", got=path.name, next_step="it may have been moved or deleted")


def _headers(served: ServedFile, facts: os.stat_result) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"',
        "Last-Modified": formatdate(facts.st_mtime, usegmt=True),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        # Keeps a host's GZipMiddleware from packing a part of a video, which no player could make sense of.
        "Content-Encoding": "identity",
    }
    if served.download:
        plain = re.sub(r'[^ -~]|["\\]', "_", served.download)
        headers["Content-Disposition"] = (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(served.download, safe='')}"
        )
    return headers


def _has_copy(request: Request, tag: str) -> bool:
    known = [entry.strip().removeprefix("W/") for entry in request.headers.get("if-none-match", "").split(",")]
    return tag in known or "*" in known


def _range_counts(request: Request, headers: dict[str, str]) -> bool:
    """If-Range: a range of another version of the file would not fit to what the caller has."""
    wanted = request.headers.get("if-range")
    return wanted is None or wanted in (headers["ETag"], headers["Last-Modified"])


async def _chunks(path: Path, facts: os.stat_result, first: int, length: int) -> AsyncIterator[bytes]:
    """The bytes of the file that was promised.  Of one that has changed since, or is cut short under our hands, too
    few come: the server then ends the connection, and the caller knows."""
    file = await anyio.to_thread.run_sync(_opened, path)
    try:
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (facts.st_size, facts.st_mtime_ns):
            return
        file.seek(first)
        while length > 0 and (chunk := await anyio.to_thread.run_sync(file.read, min(_CHUNK, length))):
            length -= len(chunk)
            yield chunk
    finally:
        file.close()
