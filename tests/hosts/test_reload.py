"""A job in a WebUI, through "Reload UI", in two browsers, to its end by the WebUI's own Interrupt button."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tab_pages import WebUI, opened

# The second clip outlasts a reload and the opening of two pages: as large as makes it minutes, and is interrupted then.
TWO_CLIPS = {
    "prompts": {"0": "a red ball in a meadow", "17": "a bird over the sea"}, "W": 256, "H": 160, "max_frames": 29,
    "seed": 7, "model": "demo", "steps_schedule": "0: (3), 17: (990)", "enable_steps_scheduling": True,
}  # fmt: skip
RELOAD_SECONDS = 60  # 2 to 4 on a machine of its own
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=("gradio3", "gradio4"))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    python = request.getfixturevalue(f"{request.param}_python")
    one = WebUI(str(python), tmp_path_factory.mktemp(request.param))
    yield one
    one.stop()


def wait_for(true: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def seen(host: WebUI) -> dict[str, Any]:
    """What the WebUI sees of us."""
    return host.ask("GET", "/fake-host/state")


def test_a_job_outlives_reload_ui_and_ends_with_interrupt(host: WebUI, browser: Any) -> None:
    number = host.ask("POST", "jobs", {"settings": TWO_CLIPS})["jobs"][0]["id"]
    with opened(browser, host.url) as page:
        page.set_default_timeout(120_000)
        page.wait_for_selector(".dw-status:has-text('clip 2 of 2')")
        wait_for(lambda: seen(host)["sampling_steps"] == 990 and seen(host)["pictures"])
        before = seen(host)
        assert before["job"] == f"task(deforum-wan-{number})"
        assert (before["job_no"], before["job_count"], before["locked"]) == (1, 2, True)
        assert re.match(r"clip 2 of 2, .+ left", before["textinfo"])
        assert ["queued", before["job"]] in before["told"]
        assert any("unloaded" in entry for entry in before["told"])  # the WebUI's models, before the worker's

        assert host.reload() < RELOAD_SECONDS
        wait_for(lambda: seen(host)["sampling_step"] > before["sampling_step"])
        after = seen(host)
        assert after["threads"].count("deforum-wan-runner") == 1
        assert (after["job"], after["locked"], after["calls"]) == (before["job"], True, before["calls"])
        assert host.ask("GET", f"jobs/{number}")["attempts"] == 1
        page.reload()
        with opened(browser, host.url) as other:
            for shown in (page, other):
                shown.wait_for_selector(f".dw-status:has-text('job {number} · clip 2 of 2')")
            host.ask("POST", "/fake-host/interrupt")
            for shown in (page, other):
                shown.wait_for_function("() => !document.querySelector('.dw-status').textContent.includes('step ')")
                shown.wait_for_selector(":text('running 0 ·')")
    job = host.ask("GET", f"jobs/{number}")
    assert (job["state"], job["frames"]) == ("cancelled", 17)
    assert Path(job["folder"]).is_dir() and job["video"]  # what was finished is a video
    wait_for(lambda: not seen(host)["locked"])
    left = seen(host)
    assert (left["job"], left["interrupted"]) == ("", False)
    assert left["calls"] == [["begin", before["job"]], ["end", before["job"]]]
