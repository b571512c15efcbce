"""While a job runs: pause and go on, what there is so far, skip, a second look; and what can be made of it then."""

from __future__ import annotations

import json

import pytest
from tab_pages import all_over, opened, set_field, until, values

pytestmark = pytest.mark.timeout(900)

SAYS = ".dw-problem, .dw-notice, .dw-dialog, .dw-error, .dw-status"  # where the page tells why it doesn't do a thing
LONG, SHORT = "90", "2"  # steps; long enough to press something in the second clip


@pytest.fixture(scope="module")
def page(standalone, browser):
    with opened(browser, standalone.url) as page:
        yield page


@pytest.fixture(autouse=True)
def _idle(standalone, page):
    """Every test begins with nothing running or waiting, and an open queue."""
    all_over(standalone, page)
    standalone.ask("POST", "queue/resume", {})
    page.evaluate("() => window.deforumWan.resetForm()")
    set_field(page, "max_frames", "33")


def generate(page, steps: str, prompt: str = "a red balloon over the sea") -> int:
    page.evaluate("text => window.deforumWan.store.set('prompts', text)", json.dumps({"0": prompt}))
    page.fill("#deforum_wan_num_inference_steps_plain", steps)
    page.fill("#deforum_wan_seed", "7")
    listed = "() => window.deforumWan.api('jobs').then((found) => found.jobs.map((job) => job.id))"
    before = set(page.evaluate(listed))
    page.click("#deforum_wan_generate")
    try:
        # Not by what the page says: an earlier job's word that it begins may still be there.
        until(lambda: set(page.evaluate(listed)) - before)
    except AssertionError:
        pytest.fail("no job was added; the page says: " + " | ".join(page.locator(SAYS).all_inner_texts()))
    return (set(page.evaluate(listed)) - before).pop()


def done(page, standalone, job: int) -> dict:
    page.wait_for_selector(f".dw-status:has-text('job {job} · done')", timeout=240_000)
    return standalone.ask("GET", f"jobs/{job}")


def clip_is(page, number: int) -> None:
    page.wait_for_selector(f".dw-status:has-text('clip {number} of')", timeout=120_000)


def test_pause_after_the_clip_and_go_on(page, standalone) -> None:
    job = generate(page, LONG)
    clip_is(page, 1)
    page.click("text=Pause after this clip")
    page.wait_for_selector(".dw-status:has-text('stops after this clip')")
    page.wait_for_selector(f".dw-status:has-text('job {job} · paused')", timeout=120_000)
    paused = standalone.ask("GET", f"jobs/{job}")
    assert (paused["state"], paused["paused"], paused["frames"]) == ("interrupted", True, 17)
    assert "paused" in page.inner_text(".dw-queue .dw-banner").lower()
    page.click(".dw-queue-head >> text=Resume")
    assert done(page, standalone, job)["frames"] == 33


def test_the_frames_so_far_are_a_video(page, standalone) -> None:
    generate(page, LONG)
    clip_is(page, 2)
    page.wait_for_selector(".dw-so-far:visible")
    page.click(".dw-so-far")
    page.wait_for_selector(".dw-stage video")
    page.wait_for_function("() => document.querySelector('.dw-stage video').readyState >= 2")
    length = page.evaluate("() => document.querySelector('.dw-stage video').duration")
    assert length == pytest.approx(17 / 16, abs=0.1)
    page.wait_for_selector(".dw-so-far:has-text('Show the preview')")
    page.click(".dw-so-far")
    page.wait_for_selector("img.dw-frame")
    page.click("text=Stop, keep frames")
    page.wait_for_selector(".dw-status:has-text('cancelled')")


def test_a_reload_and_a_second_browser_show_the_same_run(page, standalone, browser) -> None:
    job = generate(page, "200")
    clip_is(page, 1)
    page.reload()
    with opened(browser, standalone.url) as other:
        for one in (page, other):
            one.wait_for_selector(f".dw-status:has-text('job {job} · clip 1 of 3 · step')")
            one.wait_for_selector("img.dw-frame")
            one.wait_for_selector(f".dw-waiting-jobs [data-job='{job}'] .dw-running")
            one.wait_for_selector(".dw-strip .dw-playhead", state="attached")
        other.click("text=Stop, keep frames")
        page.wait_for_selector(f".dw-waiting-jobs [data-job='{job}']", state="detached")
        for one in (page, other):  # neither of them chose the job: they only watched it
            one.wait_for_selector(f".dw-status:has-text('job {job} · cancelled')")


def test_a_job_that_waits_for_another_shows_that_one_with_its_timeline(page, standalone) -> None:
    """So it is chosen when it was added before the page saw that the other had begun."""
    generate(page, "300")
    clip_is(page, 1)
    page.wait_for_selector(".dw-strip svg")
    page.click("#deforum_wan_enqueue")
    page.wait_for_selector(".dw-notice:has-text('waits in the queue')")
    waiting = standalone.ask("GET", "jobs?states=pending")["jobs"][0]["id"]
    page.evaluate("id => window.deforumWan.look(`job-${id}`)", waiting)
    page.wait_for_selector(".dw-strip svg")
    for _ in range(2):  # and still is when the job has gone on
        told = page.inner_text(".dw-status")
        page.wait_for_function("told => document.querySelector('.dw-status').textContent !== told", arg=told)
    for part in (".dw-strip svg", ".dw-live .dw-bar"):
        assert page.is_visible(part), part
    standalone.ask("POST", "jobs/cancel", {"ids": [waiting]})


def test_skip_goes_on_with_the_next(page, standalone) -> None:
    first = generate(page, "300")
    clip_is(page, 1)
    page.fill("#deforum_wan_num_inference_steps_plain", SHORT)
    page.keyboard.press("Control+e")
    page.wait_for_selector(".dw-notice:has-text('waits in the queue')")
    second = standalone.ask("GET", "jobs?states=pending")["jobs"][0]["id"]
    page.click("text=Skip to the next")
    done(page, standalone, second)  # it is what the page shows by itself
    assert standalone.ask("GET", f"jobs/{first}")["state"] == "cancelled"
    assert standalone.ask("GET", "state")["queue"]["paused"] == ""


def test_it_goes_on_from_a_jobs_end(page, standalone) -> None:
    first = done(page, standalone, generate(page, SHORT, "a yellow boat on the sea"))
    page.click(".dw-live >> text=Continue from its end")
    page.wait_for_selector(".dw-chip")
    asked = values(page)
    assert asked["continue_from"] == first["settings_file"] != ""
    assert json.loads(asked["prompts"]) == {"0": "a yellow boat on the sea"}
    second = done(page, standalone, generate(page, SHORT, "a yellow boat in fog"))
    assert second["settings"]["continue_from"] == first["settings_file"]
    assert second["frames"] == 33
    page.click(".dw-chip button")
    assert values(page)["continue_from"] == ""


def test_again_from_a_clip(page, standalone) -> None:
    first = done(page, standalone, generate(page, SHORT))
    page.click(".dw-live >> text=Again from a clip…")
    dialog = page.locator(".dw-dialog")
    dialog.locator("input").first.fill("9")
    dialog.locator(".dw-primary").click()
    page.wait_for_selector(".dw-dialog .dw-error:has-text('clip')")
    dialog.locator(".dw-choice").nth(2).click()
    assert "Clips 1 to 2 stay" in dialog.inner_text()
    dialog.locator("input").last.fill("77")
    dialog.locator(".dw-primary").click()
    page.wait_for_selector(".dw-dialog", state="detached")
    again = done(page, standalone, first["id"] + 1)
    assert again["settings"]["seed_schedule"] == "0: (7), 17: (8), 29: (77)"
    assert again["title"].endswith("again from clip 3") and again["folder"] != first["folder"]


def test_another_seed_its_settings_and_its_files(page, standalone) -> None:
    first = done(page, standalone, generate(page, SHORT, "a boat"))
    page.click(".dw-live >> text=Details…")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.dw-frames img')].filter((one) => one.naturalWidth === 128).length === 6"
    )
    with page.expect_download() as download:
        page.click(".dw-files >> text=settings")
    assert download.value.suggested_filename == f"{first['timestring']}_settings.txt"
    page.keyboard.press("Escape")
    page.click(".dw-live >> text=Again, another seed")
    again = done(page, standalone, first["id"] + 1)
    assert again["seed"] != 7 == first["seed"]
    page.evaluate("() => window.deforumWan.resetForm()")
    page.click(".dw-live >> text=Use these settings")
    page.wait_for_function("() => JSON.parse(window.deforumWan.store.values.prompts)['0'] === 'a boat'")
