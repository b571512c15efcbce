"""The API over HTTP in the hosts' versions of fastapi, starlette, pydantic and gradio, and in the current ones."""

from __future__ import annotations

import base64
import json
import time

import pytest
from api_client import THIS_PYTHON, Server

SETTINGS = {
    "prompts": {"0": "a red ball", "16": "a blue ball"}, "W": 32, "H": 16, "max_frames": 24, "seed": 5, "model": "demo",
    "batch_name": "batch", "ffmpeg_preset": "ultrafast",
}  # fmt: skip
SLOW = {**SETTINGS, "prompts": {"0": "a slow red ball"}, "steps": 200, "max_frames": 17}


def _python(request, name: str) -> str:
    """The interpreter of a generation; skips where this machine has none."""
    return THIS_PYTHON if name == "current" else str(request.getfixturevalue(f"{name}_python"))


@pytest.fixture(scope="module", params=["current", "gradio3", "gradio4"])
def server(request, tmp_path_factory):
    """A WebUI with its page, Deforum's API switched on, in each generation."""
    folder = tmp_path_factory.mktemp(request.param)
    one = Server(_python(request, request.param), folder, page=True, host="a1111", flags={"deforum_api": True})
    yield one
    one.stop()


@pytest.fixture
def start(request, tmp_path):
    """start(**options) -> a server in the current versions, for what doesn't depend on them."""
    started = []

    def begin(python="current", **options):
        started.append(Server(_python(request, python), tmp_path, **options))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def rendered(server):
    """A job that is done."""
    job_id = server.post("jobs", {"settings": SETTINGS, "name": "first"}).json["jobs"][0]["id"]
    job = server.ended(job_id)
    assert (job["state"], job["error"]) == ("done", None)
    return job


# The page's routes


def test_a_job_from_settings_to_a_playable_video(server, rendered):
    assert rendered["frames"] == 24
    assert {entry["kind"] for entry in rendered["files"]} >= {"video", "subtitles", "settings", "thumbnail"}
    video = server.get(rendered["video"])
    assert (video.status, video.headers["content-type"]) == (200, "video/mp4")
    assert video.body[4:8] == b"ftyp"
    assert server.get(f"jobs/{rendered['id']}/files/frame/23").body.startswith(b"\x89PNG")
    assert server.get(f"jobs/{rendered['id']}/files/frame/24").status == 404


def test_the_page_of_the_host_is_still_there(server):
    page = server.get("/")
    assert page.status == 200
    assert b"<html" in page.body.lower()


def test_ranges(server, rendered):
    whole = server.get(rendered["video"]).body
    size = len(whole)
    cases = {
        "bytes=0-9": (0, 9), "bytes=5-": (5, size - 1), "bytes=-7": (size - 7, size - 1),
        f"bytes={size - 1}-{size + 5}": (size - 1, size - 1), f"bytes=-{size * 9}": (0, size - 1),
    }  # fmt: skip
    for wanted, (first, last) in cases.items():
        part = server.get(rendered["video"], Range=wanted)
        assert part.status == 206, wanted
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.body == whole[first : last + 1]
    for beyond in (f"bytes={size}-", "bytes=-0"):
        part = server.get(rendered["video"], Range=beyond)
        assert (part.status, part.headers["content-range"]) == (416, f"bytes */{size}")
    for ignored in ("bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=x"):
        assert server.get(rendered["video"], Range=ignored).status == 200


def test_a_large_file_comes_in_chunks_and_unpacked(server, rendered):
    large = server.folder / "out" / "batch" / f"{rendered['timestring']}.gif"
    content = bytes(range(256)) * 4096
    large.write_bytes(content)
    answer = server.get(f"jobs/{rendered['id']}/files/gif", Accept_Encoding="gzip")
    assert answer.body == content
    part = server.get(f"jobs/{rendered['id']}/files/gif", Accept_Encoding="gzip", Range="bytes=1000-600999")
    assert (part.status, part.body) == (206, content[1000:601000])
    large.unlink()


def test_head_and_copies_that_are_still_good(server, rendered):
    whole = server.get(rendered["video"])
    head = server.ask("HEAD", f"/deforum-wan/api/{rendered['video']}")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert head.headers["accept-ranges"] == "bytes"
    tag = whole.headers["etag"]
    assert server.get(rendered["video"], If_None_Match=tag).status == 304
    assert server.get(rendered["video"], Range="bytes=0-3", If_Range=tag).status == 206
    assert server.get(rendered["video"], Range="bytes=0-3", If_Range='"other"').status == 200


def test_only_a_jobs_own_files_are_served(server, rendered):
    secret = server.folder / "out" / "batch" / "secret.txt"
    secret.write_text("secret")
    base = f"jobs/{rendered['id']}/files"
    names = (
        "secret.txt",
        "../secret.txt",
        "..%2Fsecret.txt",
        "%2e%2e/secret.txt",
        "frame/-1",
        "frame/0x1",
        "frame/1e1",
    )
    for name in (*names, "frame/..%2f..%2fsecret.txt", "video/../../secret.txt", "manifest", "work"):
        assert server.get(f"{base}/{name}").status in (404, 405), name
    assert server.get("jobs/999/files/video").status == 404
    assert server.get("jobs/1%20or%201/files/video").status == 404


def test_a_download_bears_its_name(server, rendered):
    answer = server.get(f"{rendered['video']}?download=1")
    assert answer.headers["content-disposition"].startswith('attachment; filename="2')
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_watching(server):
    seen = server.get("state").json
    assert server.get(f"state?since={seen['version']}").json == {"version": seen["version"], "changed": False}
    job = server.post("jobs", {"settings": SLOW}).json["jobs"][0]
    deadline = time.monotonic() + 30
    while not (running := server.get("state").json["running"]) or not running[0]["progress"].get("steps"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (running[0]["id"], running[0]["progress"]["steps"]) == (job["id"], 200)
    assert server.post(f"jobs/{job['id']}/skip").status == 200
    assert server.ended(job["id"])["state"] == "cancelled"


def test_the_queue_from_end_to_end(server):
    server.post("queue/pause", {"reason": "a test"})
    try:
        batch = server.post("jobs", {"jobs": [SETTINGS, SETTINGS, SETTINGS], "batch": "three"}).json["jobs"]
        first, second, third = (job["id"] for job in batch)

        def order():
            return [job["id"] for job in server.get("state").json["waiting"]]

        assert order() == [first, second, third]
        server.post(f"jobs/{third}/run-next")
        assert order() == [third, first, second]
        server.post(f"jobs/{third}/move", {"after": first})
        assert order() == [first, third, second]
        server.post(f"jobs/{second}/move", {"places": -2})
        assert order() == [second, first, third]
        copy = server.post(f"jobs/{first}/duplicate", {"seed": 9}).json
        assert (copy["seed"], order()[-1]) == (9, copy["id"])
        edited = server.post(f"jobs/{first}/edit", {"settings": {**SETTINGS, "max_frames": 30}}).json
        assert edited["max_frames"] == 30
        assert server.post(f"jobs/{first}/rename", {"name": "a  new\nname"}).json["name"] == "a new name"
        assert server.post(f"jobs/{first}/bookmark", {"marked": True}).json["bookmark"] is True
        found = server.get("jobs?bookmarked=1&text=NEW&states=pending&limit=5").json
        assert ([job["id"] for job in found["jobs"]], found["total"]) == ([first], 1)
        exported = server.get(f"jobs/export?ids={first},{second}")
        assert exported.headers["content-disposition"] == 'attachment; filename="deforum-wan-queue.json"'
        taken = server.post("jobs/import", {"text": exported.body.decode()}).json["jobs"]
        assert [job["seed"] for job in taken] == [5, 5]
        ids = [job["id"] for job in taken]
        assert {job["state"] for job in server.post("jobs/cancel", {"ids": ids}).json["jobs"]} == {"cancelled"}
        assert {job["state"] for job in server.post("jobs/retry", {"ids": ids}).json["jobs"]} == {"pending"}
        assert server.post("jobs/delete", {"ids": ids}).json == {"deleted": ids}
        assert server.ask("DELETE", f"/deforum-wan/api/jobs/{copy['id']}").status == 200
        assert server.get(f"jobs/{copy['id']}").status == 404
        assert server.post("queue/options", {"keep_days": 3, "auto_resume": True}).json["options"]["keep_days"] == 3
        server.post("queue/options", {"keep_days": 0, "auto_resume": False})
        server.post("jobs/cancel", {"ids": [first, second, third]})
    finally:
        assert server.post("queue/resume").json["paused"] == ""


def test_grids_and_folders(server):
    server.post("queue/pause")
    grid = server.post("jobs/grid", {"settings": SETTINGS, "axes": {"seed": "1-2", "shift": [3, 5]}})
    assert (grid.status, len(grid.json["jobs"])) == (201, 4)
    folder = server.folder / "out" / "tonight"
    folder.mkdir()
    (folder / "one.txt").write_text(json.dumps({**SETTINGS, "cadence": 2}))
    added = server.post("jobs/folder", {"folder": str(folder)}).json
    assert [job["name"] for job in added["jobs"]] == ["one"]
    assert added["notes"]
    refused = server.post("jobs/folder", {"folder": "/etc"})
    assert (refused.status, refused.json["error"]["field"]) == (422, "folder")
    server.post("jobs/cancel", {"ids": [job["id"] for job in (*grid.json["jobs"], *added["jobs"])]})
    server.post("queue/resume")


def test_a_plan_with_errors_at_their_fields(server):
    shown = server.post("plan", {"settings": {**SETTINGS, "fps": 0, "strength_schedule": "0: (1), 5: (2*)"}}).json
    found = {error["field"]: error for error in shown["errors"]}
    assert set(found) == {"fps", "strength"}
    assert (found["strength"]["keyframe"], found["strength"]["column"] > 0) == ("5", True)
    assert shown["plan"]["clip_count"] == 2
    assert shown["svg"].startswith("<svg")
    good = server.post("plan", {"settings": SETTINGS}).json
    assert good["ok"]
    assert good["estimate"]["seconds"] > 0


def test_models_fields_and_environment(server):
    models = server.get("models").json
    assert [model["name"] for model in models["models"] if model["demo"]] == ["demo"]
    assert models["default"]
    assert {field["name"] for field in server.get("fields").json["fields"]} >= {"prompts", "width", "fps"}
    told = server.get("environment").json
    assert told["host"]["name"] == "a1111"
    assert "status" in told
    assert server.get("environment/log").json["lines"] == []


def test_presets(server):
    saved = server.post("presets", {"name": "mine", "settings": {**SETTINGS, "crf": 22}})
    assert (saved.status, saved.json["settings"]["crf"]) == (201, 22)
    assert "prompts" not in saved.json["settings"]
    again = server.post("presets", {"name": "mine", "settings": SETTINGS})
    assert again.status == 409
    assert server.post("presets", {"name": "../mine", "settings": SETTINGS}).json["error"]["field"] == "name"
    assert server.post("presets/mine/apply", {"settings": SETTINGS}).json["settings"]["crf"] == 22
    assert server.post("presets/default", {"name": "mine"}).json == {"default": "mine"}
    text = server.get("presets/mine/export").body.decode()
    assert server.post("presets/import", {"name": "copy", "text": text}).status == 201
    assert server.post("presets/mine/rename", {"name": "ours"}).json["name"] == "ours"
    assert {entry["name"] for entry in server.get("presets").json["presets"]} >= {"ours", "copy", "Quality"}
    for name in ("ours", "copy"):
        assert server.ask("DELETE", f"/deforum-wan/api/presets/{name}").status == 200
    assert server.ask("DELETE", "/deforum-wan/api/presets/ours").status == 404


def test_settings_files(server):
    read = server.post("settings/import", {"text": json.dumps(SETTINGS)}).json
    assert read["settings"]["width"] == 32
    assert json.loads(server.post("settings/export", {"settings": read["settings"]}).json["text"])["W"] == 32
    broken = server.post("settings/import", {"text": '{"W": 32,'})
    assert (broken.status, "line 1" in broken.json["error"]["message"]) == (422, True)


# Bad input


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
        ("jobs/grid", {"settings": SETTINGS, "axes": {"seed": []}}, "seed"),
        ("queue/options", {"at_once": 0}, "at_once"),
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


# Deforum's API


def test_deforums_batches(server):
    body = {"deforum_settings": [SETTINGS, SETTINGS], "options_overrides": {"CLIP_stop_at_last_layers": 2}, "more": 1}
    made = server.ask("POST", "/deforum_api/batches", body)
    assert made.status == 202
    batch, ids = made.json["batch_id"], made.json["job_ids"]
    assert len(ids) == 2
    assert server.get("/deforum_api/batches").json[batch] == ids
    for job_id in ids:
        server.ended(int(job_id))
    jobs = server.get(f"/deforum_api/batches/{batch}").json
    job = jobs[0]
    assert (job["id"], job["status"], job["phase"], job["error_type"]) == (ids[0], "SUCCEEDED", "DONE", "NONE")
    assert (job["phase_progress"], job["timestring"] in job["deforum_settings"]["batch_name"]) == (1.0, False)
    assert job["outdir"].endswith("batch")
    assert job["updates"] > 0
    assert server.get("/deforum_api/jobs").json[ids[1]]["status"] == "SUCCEEDED"
    gone = server.ask("DELETE", f"/deforum_api/jobs/{ids[0]}")
    assert gone.status == 400


def test_deforums_cancel_works_on_waiting_and_running_jobs(server):
    made = server.ask("POST", "/deforum_api/batches", {"deforum_settings": [SLOW, SETTINGS]}).json
    running, waiting = made["job_ids"]
    deadline = time.monotonic() + 30
    while server.get(f"/deforum_api/jobs/{running}").json["phase"] != "GENERATING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.ask("DELETE", f"/deforum_api/jobs/{waiting}").json["message"] == "Job cancelled."
    assert server.get(f"/deforum_api/jobs/{waiting}").json["status"] == "CANCELLED"
    told = server.ask("DELETE", f"/deforum_api/batches/{made['batch_id']}").json
    assert told == {"ids": [running], "message": "1 job(s) cancelled."}
    assert server.ended(int(running))["state"] == "cancelled"


def test_deforums_answers_to_what_isnt_there(server):
    assert server.get("/deforum_api/jobs/nothing").json == {"id": "nothing", "status": "NOT FOUND"}
    assert server.get("/deforum_api/jobs/nothing").status == 404
    assert server.get("/deforum_api/batches/nothing").status == 404
    assert server.ask("DELETE", "/deforum_api/batches/nothing").status == 404
    assert server.ask("DELETE", "/deforum_api/jobs/999").status == 404
    assert server.ask("POST", "/deforum_api/batches", {}).status == 400
    refused = server.ask("POST", "/deforum_api/batches", {"deforum_settings": {**SETTINGS, "W": 33}})
    assert (refused.status, refused.json["error"]["field"]) == (422, "width")


def test_the_schema_lists_every_route(server):
    paths = server.get("/openapi.json").json["paths"]
    assert {"post", "get"} <= set(paths["/deforum_api/batches"])
    assert {"get", "delete"} <= set(paths["/deforum_api/jobs/{id}"])
    assert set(paths["/deforum-wan/api/jobs/{job}"]) == {"get", "delete"}
    described = paths["/deforum-wan/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "settings" in described["properties"]


def test_routes_are_there_once_though_the_app_was_given_twice(server):
    paths = server.get("/openapi.json").json["paths"]
    operations = [entry["operationId"] for path in paths.values() for entry in path.values() if "operationId" in entry]
    ours = [name for name in operations if name.startswith("deforum")]
    assert len(ours) == len(set(ours))


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
