"""Pictures, videos and sounds that a page hands over: kept among the data, so that a job of tomorrow still finds them.

A file is kept under the hash of its bytes: the same one twice takes its room once, and nothing of its name but the
ending reaches the disk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..atomic_files import write_bytes
from ..errors import OutputError, SettingsError
from .routes import Call, Reply, Route

FOLDER = "uploads"
_LARGEST = 40 * 1024 * 1024
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SOUNDS = (".mp3", ".wav", ".flac", ".ogg", ".m4a", ".aac", ".opus", ".mp4", ".mkv", ".webm", ".mov")
_VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".mpg", ".ts")
_ENDINGS = {"init_image": _PICTURES, "init_images": _PICTURES, "init_video": _VIDEOS, "soundtrack": _SOUNDS}


def upload_routes(base: str) -> list[Route]:
    return [
        Route("POST", f"{base}/uploads", upload, "Hand over a picture, a video or a sound",
              {"field": ", ".join(_ENDINGS), "name": "the file's name", "data": "its bytes in base64"},
              largest=_LARGEST * 4 // 3 + 10_000),
    ]  # fmt: skip


def upload(call: Call) -> Reply:
    """Keep the file.  Returns its path, for the field."""
    body = call.body
    field, name = body.choice("field", _ENDINGS), body.text("name", longest=400)
    ending = Path(name).suffix.lower()
    if ending not in _ENDINGS[field]:
        raise SettingsError("is no file for this field", where=field, got=name[:100], allowed=" ".join(_ENDINGS[field]))
    data = _decoded(body.text("data", longest=_LARGEST * 4 // 3 + 8), field)
    if _ENDINGS[field] is _PICTURES:
        _check_picture(data, field, name)
    path = call.service.data / FOLDER / f"{hashlib.sha256(data).hexdigest()[:20]}{ending}"
    _keep(path, data)
    return Reply({"path": str(path), "name": name, "size": len(data)}, 201)


def _decoded(text: str, field: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError("is not base64", where="data") from None
    if not data:
        raise SettingsError("the file is empty", where=field)
    return data


def _check_picture(data: bytes, field: str, name: str) -> None:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()
    except UnidentifiedImageError:
        raise SettingsError("is no picture", where=field, got=name[:100]) from None
    except Exception as error:  # Pillow raises whatever its readers do
        words = " ".join(str(error).split())[:120]
        raise SettingsError(f"can't be read as a picture ({words})", where=field, got=name[:100]) from None


def _keep(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder for uploads can't be made", got=error.strerror or str(error), where=str(path.parent),
            next_step="check its permissions",
        ) from error  # fmt: skip
    if not path.exists():
        write_bytes(path, data)
