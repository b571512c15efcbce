"""The routes of the page over HTTP, in the versions of fastapi, pydantic and gradio that the hosts have, and now."""

from __future__ import annotations

import json
import time

import pytest
from api_client import GENERATIONS, SETTINGS, SLOW, shared_server


@pytest.fixture(scope="module", params=GENERATIONS)
def server(request):
    """A WebUI with its page and Deforum's API, in each generation."""
    return shared_server(request, request.param)


@pytest.fixture(scope="module")
def rendered(server):
    """A job that is done."""
    job_id = server.post("jobs", {"settings": SETTINGS, "name": "first"}).json["jobs"][0]["id"]
    job = server.ended(job_id)
    assert (job["state"], job["error"]) == ("done", None)
    return job


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
