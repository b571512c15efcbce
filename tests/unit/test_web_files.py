"""Ranges of bytes, and files that change while they are served."""

import os

import pytest
from deforum_helpers.errors import NotFound
from deforum_helpers.web.files import ServedFile, byte_range, file_response
from hypothesis import given
from hypothesis import strategies as st
from service_kit import run_async
from starlette.requests import Request


def request(**headers):
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "query_string": b""})


def body_of(response):
    if hasattr(response, "body"):
        return response.body

    async def gather():
        return b"".join([part async for part in response.body_iterator])

    return run_async(gather())


@given(st.integers(0, 300), st.integers(0, 400), st.integers(0, 400))
def test_a_range_never_leaves_the_file(size, first, last):
    found = byte_range(f"bytes={first}-{last}", size)
    if last < first:
        assert found is None
    elif first >= size:
        assert found == "beyond"
    else:
        assert found == (first, min(last, size - 1))


@given(st.integers(0, 300), st.integers(0, 400))
def test_the_end_of_a_file(size, count):
    found = byte_range(f"bytes=-{count}", size)
    assert found == ("beyond" if not size or not count else (max(0, size - count), size - 1))


@given(st.text(max_size=40))
def test_no_header_is_too_strange(header):
    found = byte_range(header, 100)
    assert found is None or found == "beyond" or 0 <= found[0] <= found[1] < 100


@given(st.integers(1, 3_000_000), st.data())
def test_every_range_is_the_files_own_bytes(size, data):
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    content = CONTENT[:size]
    path = FOLDER / "file"
    path.write_bytes(content)
    response = file_response(request(Range=f"bytes={first}-{last}"), ServedFile(path, "video/mp4"))
    assert response.status_code == 206
    assert int(response.headers["content-length"]) == last - first + 1
    assert body_of(response) == content[first : last + 1]


CONTENT = bytes(range(251)) * 12_000
FOLDER = None


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("files")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    answer = file_response(request(), ServedFile(tmp_path / "empty", "video/mp4"))
    assert (answer.status_code, body_of(answer), answer.headers["content-length"]) == (200, b"", "0")
    assert file_response(request(Range="bytes=0-"), ServedFile(tmp_path / "empty", "video/mp4")).status_code == 416


def test_a_file_that_was_replaced_meanwhile_is_not_mixed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:1_000_000])
    response = file_response(request(), ServedFile(path, "video/mp4"))
    path.write_bytes(b"x" * 900_000)
    assert body_of(response) == b""


def test_another_version_has_another_tag(tmp_path):
    path = tmp_path / "file"
    tags = set()
    for content in (b"a", b"bb", b"c"):
        path.write_bytes(content)
        tags.add(file_response(request(), ServedFile(path, "image/png")).headers["etag"])
    assert len(tags) == 3


def test_folders_and_missing_files_are_not_found(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "null\0"):
        with pytest.raises(NotFound):
            file_response(request(), ServedFile(path, "image/png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_a_files_place_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFound):
        file_response(request(), ServedFile(tmp_path / "pipe", "image/png"))


def test_a_name_for_saving_can_hold_anything(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    answer = file_response(request(), ServedFile(tmp_path / "file", "video/mp4", 'a "b"\r\nÄ.mp4'))
    saved_as, in_unicode = answer.headers["content-disposition"].split("; filename*=")
    assert saved_as == 'attachment; filename="a _b____.mp4"'
    assert in_unicode == "UTF-8''a%20%22b%22%0D%0A%C3%84.mp4"
