"""Files that a page hands over: kept under their hash in one folder, and only if they are what their field takes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.web.bodies import Fields
from deforum_helpers.web.uploads import upload
from PIL import Image


def call(folder: Path, field: str, name: str, data: str) -> SimpleNamespace:
    body = Fields({"field": field, "name": name, "data": data})
    return SimpleNamespace(body=body, service=SimpleNamespace(data=folder))


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "teal").save(file, "PNG")
    return file.getvalue()


def handed(folder: Path, field: str, name: str, data: bytes):
    return upload(call(folder, field, name, base64.b64encode(data).decode()))


@pytest.mark.parametrize("field", ["init_image", "init_images"])
def test_a_picture_is_kept_once_under_its_hash(tmp_path, field) -> None:
    first = handed(tmp_path, field, "../../a.png", png())
    again = handed(tmp_path, field, "b.PNG", png())
    assert first.status == 201
    assert first.content["path"] == again.content["path"]
    kept = Path(first.content["path"])
    assert kept.parent == tmp_path / "uploads" and kept.read_bytes() == png()
    assert len(list(kept.parent.iterdir())) == 1


@pytest.mark.parametrize("field", ["init_image", "init_images"])
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.png", b"<!DOCTYPE html><p>not found", "is no picture"),
        ("a.png", png()[:40], "picture"),
        ("a.png", b"", "is empty"),
        ("a.svg", b"<svg/>", "is no file for this field"),
        ("a", png(), "is no file for this field"),
    ],
)
def test_what_is_no_picture_is_refused_at_its_field(tmp_path, field, name, data, words) -> None:
    with pytest.raises(SettingsError) as raised:
        handed(tmp_path, field, name, data)
    assert raised.value.where == field and words in str(raised.value)
    assert not (tmp_path / "uploads").exists()


def test_a_sound_is_no_picture(tmp_path) -> None:
    assert handed(tmp_path, "soundtrack", "a.mp3", b"ID3").status == 201
    assert handed(tmp_path, "init_video", "a.MKV", b"EBML").content["path"].endswith(".mkv")
    with pytest.raises(SettingsError, match="no file for this field"):
        handed(tmp_path, "init_video", "a.m3u8", b"#EXTM3U")
    with pytest.raises(SettingsError, match="is no file for this field"):
        handed(tmp_path, "init_image", "a.mp3", b"ID3")


def test_what_is_not_base64_is_refused(tmp_path) -> None:
    with pytest.raises(SettingsError, match="base64"):
        upload(call(tmp_path, "init_image", "a.png", "%%%"))
