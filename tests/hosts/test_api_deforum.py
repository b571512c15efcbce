"""Deforum's own API and the schema, in each generation."""

from __future__ import annotations

import time

import pytest
from api_client import GENERATIONS, SETTINGS, SLOW, shared_server


@pytest.fixture(scope="module", params=GENERATIONS)
def server(request):
    """A WebUI with its page and Deforum's API, in each generation."""
    return shared_server(request, request.param)


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
