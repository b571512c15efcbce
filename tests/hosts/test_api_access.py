"""What the API refuses: bad input, foreign pages, strangers; and what the launch flags do."""

from __future__ import annotations

import base64
import json

import pytest
from api_client import GENERATIONS, SETTINGS, THIS_PYTHON, Server, python_of, shared_server

QUEUE = '{"format": "deforum-wan-queue", "version": 1}'


@pytest.fixture(scope="module", params=GENERATIONS)
def server(request):
    """A WebUI with its page and Deforum's API, in each generation."""
    return shared_server(request, request.param)


@pytest.fixture
def start(request, tmp_path):
    """start(**options) -> a server in the current versions, for what doesn't depend on them."""
    started = []

    def begin(python="current", **options):
        started.append(Server(python_of(request, python), tmp_path, **options))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("jobs", {}, "settings"),
        ("jobs", {"settings": []}, "settings"),
        ("jobs", {"jobs": [1]}, "jobs"),
        ("jobs", {"settings": SETTINGS, "jobs": [SETTINGS]}, "settings"),
        ("jobs", {"settings": {**SETTINGS, "W": "wide"}}, "width"),
        ("jobs", {"settings": SETTINGS, "frist": True}, "frist"),
        ("jobs", {"settings": SETTINGS, "first": 1}, "first"),
        ("jobs", {"settings": {**SETTINGS, "prompts": {"0": "\ud800"}}}, "prompts"),
        ("jobs/cancel", {"ids": ["1"]}, "ids"),
        ("jobs/delete", {"ids": [2**70]}, "ids"),
        ("jobs/grid", {"settings": SETTINGS, "axes": {"seed": []}}, "seed"),
        ("jobs/grid", {"settings": SETTINGS, "axes": {}}, "axes"),
        ("jobs/import", {"text": "{"}, "text"),
        ("jobs/import", {"text": f'{QUEUE[:-1]}, "jobs": [{{"settings": {{"W": 1}}}}]}}'}, "width"),
        ("presets/import", {"name": "a", "text": "{"}, "text"),
        ("presets", {"name": "../a", "settings": SETTINGS}, "name"),
        ("settings/import", {"text": "{"}, "text"),
        ("jobs/1/move", {"before": 2, "after": 3}, "before"),
        ("jobs/1/move", {}, "before"),
        ("jobs/1/retake", {}, "clip"),
        ("jobs/1/retake", {"clip": "two"}, "clip"),
        ("queue/options", {"at_once": 0}, "at_once"),
        ("plan", {"settings": {}, "width": 5}, "width"),
        ("plan", {}, "settings"),
    ],
)
def test_a_value_of_the_wrong_shape_is_named(server, path, body, field):
    answer = server.post(path, body)
    assert (answer.status, answer.json["error"]["field"]) == (422, field)
    assert answer.json["detail"][0]["loc"] == ["body", field]


def test_bodies_that_are_no_json(server):
    for body in (b"{", b'{"settings": NaN}', b"[" * 100_000, b"\xff\xfe"):
        answer = server.post("jobs", body, Content_Type="application/json")
        assert (answer.status, answer.json["error"]["field"]) == (422, "body"), body[:20]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert server.post("jobs", b"{}", Content_Type=kind).status == 415


def test_a_body_that_is_too_large(server):
    body = b'{"settings": {"prompts": {"0": "' + b"a" * (9 * 1024 * 1024) + b'"}}}'
    assert server.post("jobs", body, Content_Type="application/json").status == 413
    # One that doesn't say how large it is, piece by piece.
    pieces = server.ask("POST", "jobs", iter([b"a" * 65536] * 160), Content_Type="application/json")
    assert pieces.status == 413
    # The sender of a much larger one hears it too, and a queue to import may be that large.
    for path, status in (("jobs", 413), ("jobs/import", 422)):
        assert server.post(path, b" " * (70 * 1024 * 1024), Content_Type="application/json").status == status


def test_a_foreign_page_changes_nothing(server):
    own = {"Host": f"127.0.0.1:{server.port}"}
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{server.port + 1}"},
        {"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://[broken"},
        {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-site"},
    ):  # fmt: skip
        for method, path in (("POST", "queue/pause"), ("DELETE", "/deforum-wan/api/jobs/1"),
                             ("POST", "/deforum_api/batches")):  # fmt: skip
            answer = server.ask(method, path, {}, **own, **headers)
            assert answer.status == 403, headers
    assert server.get("state").json["queue"]["paused"] == ""
    for headers in (
        {"Origin": f"http://127.0.0.1:{server.port}"}, {"Sec_Fetch_Site": "same-origin", "Origin": "http://proxy"}, {},
        {"Origin": "https://outside.example", "X_Forwarded_Host": "outside.example"},
    ):  # fmt: skip
        assert server.post("queue/resume", **own, **headers).status == 200, headers


def test_no_such_route_or_method(server):
    assert server.get("no/such/route").status == 404
    assert server.get("jobs/cancel").status in (404, 405)


# Passwords, --nowebui, the original


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("python", ["current", "gradio3", "gradio4"])
def test_api_auth_without_a_page(start, python):
    server = start(python, host="a1111", flags={"api_auth": "me:se:cret,you:other", "deforum_api": True})
    for path in ("/deforum-wan/api/state", "/deforum_api/jobs", "/deforum-wan/api/jobs/1/files/video"):
        refused = server.get(path)
        assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert server.get(path, Authorization=basic("me", "wrong")).status == 401
        assert server.get(path, Authorization=basic("me", "other")).status == 401
        assert server.get(path, Authorization="Basic ???").status == 401
        assert server.get(path, Authorization="Bearer me:se:cret").status == 401
        assert server.get(path, Authorization=basic("me", "se:cret")).status in (200, 404)
        assert server.get(path, Authorization=basic("you", "other")).status in (200, 404)
    assert server.post("queue/pause").status == 401
    assert "www-authenticate" not in server.get("state", Sec_Fetch_Mode="cors").headers
    assert server.get("state?token=wrong").status == 401


@pytest.mark.parametrize("python", ["current", "gradio3", "gradio4"])
def test_a_gradio_login_opens_the_routes(start, python):
    server = start(python, page=True, gradio_auth="me:secret", host="a1111")
    assert server.get("state").status == 401
    form = b"username=me&password=secret"
    login = server.ask("POST", "/login", form, Content_Type="application/x-www-form-urlencoded")
    assert login.status == 200
    cookie = "; ".join(part.split(";")[0] for part in login.headers["set-cookie"].split(", ") if "access-token" in part)
    assert server.get("state", Cookie=cookie).status == 200
    assert server.get("state", Cookie=cookie.partition("=")[0] + "=guess").status == 401
    assert server.get("state", Authorization=basic("me", "secret")).status == 200
    assert server.get("state", Authorization=basic("me", "guess")).status == 401


def test_the_token_of_the_page_opens_the_routes(start):
    server = start(host="a1111", flags={"api_auth": "me:secret"}, tell_token=True)
    token = next(line for line in server.said if line.startswith("token ")).split()[1]
    assert server.get("state", X_Deforum_Wan_Token=token).status == 200
    assert server.get(f"state?token={token}").status == 200


def test_without_the_flag_deforums_api_is_off(start):
    server = start(host="a1111")
    assert server.get("/deforum_api/jobs").status == 404
    assert server.get("state").status == 200


def test_beside_the_original_its_routes_stay_its_own(start):
    server = start(host="a1111", flags={"deforum_api": True}, original=True)
    assert server.get("/deforum_api/jobs").json == {"original": True}
    assert server.get("/deforum_wan_api/jobs").json == {}
    assert any("/deforum_wan_api" in line for line in server.said)


def test_run_now_renders_and_leaves(tmp_path):
    file = tmp_path / "now.txt"
    file.write_text(json.dumps(SETTINGS))
    flags = {"deforum_run_now": str(file), "deforum_terminate_after_run_now": True}
    server = Server(THIS_PYTHON, tmp_path, host="a1111", flags=flags)
    try:
        assert server.process.wait(60) == 0
    finally:
        server.stop()
    assert list((tmp_path / "out" / "batch").glob("*.mp4"))


def test_a_data_folder_that_cant_be_used_is_told_and_mended(start, tmp_path):
    (tmp_path / "data").write_text("in the way")
    server = start(host="a1111", broken_data=True)
    answer = server.get("state")
    assert answer.status == 503
    assert str(tmp_path / "data") in answer.json["error"]["message"]
    (tmp_path / "data").unlink()
    assert server.get("state").status == 200
