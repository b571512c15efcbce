"""A job in the words of Deforum's API, in every state it can be in."""

import pytest
from deforum_helpers.job_queue import Job
from deforum_helpers.web.deforum_api import job_status

KEYS = {
    "id", "status", "phase", "error_type", "phase_progress", "started_at", "last_updated", "execution_time",
    "update_interval_time", "updates", "message", "outdir", "timestring", "deforum_settings", "options_overrides",
}  # fmt: skip


def job(state, kind="", **progress):
    times = {"created": 1.0, "started": 2.0 if state != "pending" else 0.0, "updated": 4.0}
    return Job(7, "", state, {"W": 64}, 1, 0, error_kind=kind, progress=progress, **times)


@pytest.mark.parametrize(
    ("given", "status", "phase", "error_type"),
    [
        (job("pending"), "ACCEPTED", "QUEUED", "NONE"),
        (job("running", phase="preparing"), "ACCEPTED", "PREPARING", "NONE"),
        (job("running", phase="loading"), "ACCEPTED", "PREPARING", "NONE"),
        (job("running", phase="sampling", clip=1, clips=2), "ACCEPTED", "GENERATING", "NONE"),
        (job("running", phase="decoding", clip=1, clips=2), "ACCEPTED", "GENERATING", "NONE"),
        (job("running", phase="writing", clip=1, clips=2), "ACCEPTED", "GENERATING", "NONE"),
        (job("running", phase="writing", clip=2, clips=2), "ACCEPTED", "POST_PROCESSING", "NONE"),
        (job("done"), "SUCCEEDED", "DONE", "NONE"),
        (job("cancelled", "cancelled", phase="sampling"), "CANCELLED", "GENERATING", "NONE"),
        (job("interrupted", "paused", phase="writing"), "ACCEPTED", "QUEUED", "NONE"),
        (job("interrupted", "interrupted", phase="sampling"), "FAILED", "GENERATING", "RETRYABLE"),
        (job("interrupted", "worker_died", phase="sampling"), "FAILED", "GENERATING", "RETRYABLE"),
        (job("failed", "out_of_memory", phase="sampling"), "FAILED", "GENERATING", "RETRYABLE"),
        (job("failed", "output", phase="writing", clip=1, clips=1), "FAILED", "POST_PROCESSING", "RETRYABLE"),
        (job("failed", "settings", phase="preparing"), "FAILED", "PREPARING", "TERMINAL"),
        (job("failed", "model", phase="loading"), "FAILED", "PREPARING", "TERMINAL"),
    ],
    ids=lambda value: f"{value.state} {value.error_kind}" if isinstance(value, Job) else value,
)  # fmt: skip
def test_status_phase_and_error_of_each_state(given, status, phase, error_type):
    told = job_status(given)
    assert (told["status"], told["phase"], told["error_type"]) == (status, phase, error_type)
    assert set(told) == KEYS and told["id"] == "7"


def test_times_and_progress_stand_a_clock_that_went_back():
    told = job_status(job("running", phase="sampling", fraction=0.25, updates=4))
    assert (told["phase_progress"], told["updates"], told["update_interval_time"]) == (0.25, 4, 0.5)
    back = Job(7, "", "running", {}, 1, 0, created=9.0, started=8.0, updated=2.0, progress={"updates": 3})
    assert (job_status(back)["execution_time"], job_status(back)["update_interval_time"]) == (0.0, 0.0)
    assert job_status(job("running", fraction=None))["phase_progress"] == 0.0
