"""The queue and the history in the tab, on a queue that is paused, so that nothing renders meanwhile."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from tab_pages import all_over, opened, set_field, until, values

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def page(standalone, browser):
    standalone.ask("POST", "queue/pause", {"reason": "for this test"})
    with opened(browser, standalone.url) as page:
        yield page


@pytest.fixture(autouse=True)
def _empty(standalone, page):
    """Every test begins with an empty queue and without a dialog."""
    all_over(standalone, page)
    ended = [job["id"] for job in standalone.ask("GET", "jobs?limit=200")["jobs"]]
    if ended:
        standalone.ask("POST", "jobs/delete", {"ids": ended})
    page.evaluate("() => window.deforumWan.poll()")
    page.wait_for_selector(".dw-waiting-jobs .dw-empty")


def add(page, standalone, *names: str) -> None:
    for name in names:
        standalone.ask("POST", "jobs", {"settings": {"prompts": {"0": f"a {name}"}, "max_frames": 17}, "name": name})
    page.evaluate("() => window.deforumWan.poll()")
    page.wait_for_function(f"() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === {len(names)}")


def order(page) -> list[str]:
    return [title.split(" ", 1)[1] for title in page.locator(".dw-waiting-jobs .dw-job-title").all_inner_texts()]


def shows(page, *names: str) -> None:
    page.wait_for_function(
        "names => [...document.querySelectorAll('.dw-waiting-jobs .dw-job-title')]"
        ".map((one) => one.textContent.replace(/^.*?#\\d+ /, '')).join() === names",
        arg=",".join(names),
    )


def row(page, name: str):
    return page.locator(".dw-job:visible", has=page.locator(f".dw-job-title:has-text('{name}')"))


def test_add_by_key_and_by_button(page, standalone) -> None:
    page.click("#deforum_wan_max_frames")
    page.keyboard.press("Control+e")
    page.wait_for_selector(".dw-waiting-jobs [data-job]")
    page.click("#deforum_wan_enqueue")
    page.wait_for_function("() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === 2")
    job = standalone.ask("GET", "jobs?states=pending")["jobs"][0]
    assert (job["width"], job["height"], job["max_frames"]) == (128, 80, 81)
    assert "paused" in page.inner_text(".dw-queue .dw-banner").lower()


def test_move_and_run_next(page, standalone) -> None:
    add(page, standalone, "one", "two", "three")
    shows(page, "one", "two", "three")
    row(page, "three").locator("[title='Move up']").click()
    shows(page, "one", "three", "two")
    row(page, "one").locator("[title='Move down']").click()
    shows(page, "three", "one", "two")
    row(page, "two").locator("[title='Run next']").click()
    shows(page, "two", "three", "one")
    row(page, "two").drag_to(row(page, "one"), target_position={"x": 90, "y": 40})
    shows(page, "three", "one", "two")


def test_edit_a_waiting_job(page, standalone) -> None:
    add(page, standalone, "one")
    row(page, "one").locator("[title^='Edit']").click()
    page.wait_for_selector("text=Save changes to job")
    assert json.loads(values(page)["prompts"]) == {"0": "a one"}
    set_field(page, "max_frames", "33")
    page.click("text=Save changes to job")
    page.wait_for_selector(".dw-waiting-jobs .dw-job:has-text('33 frames')")
    assert page.locator("#deforum_wan_generate").count() == 1


def test_cancel_history_search_retry_delete(page, standalone) -> None:
    add(page, standalone, "one", "two")
    row(page, "one").locator("[title='Cancel']").click()
    row(page, "two").locator("[title='Cancel']").click()
    page.wait_for_selector(".dw-waiting-jobs .dw-empty")
    page.click("role=tab[name=History]")
    page.wait_for_function("() => document.querySelectorAll('.dw-ended-jobs .dw-cancelled').length === 2")
    page.fill("[aria-label='Search the history']", "two")
    page.wait_for_function("() => document.querySelectorAll('.dw-ended-jobs .dw-cancelled').length === 1")
    row(page, "two").locator("[title^='Bookmark']").click()
    row(page, "two").locator("text=★").first.wait_for()
    page.fill("[aria-label='Search the history']", "")
    page.select_option("[aria-label='Which jobs']", "★")
    page.wait_for_function("() => document.querySelectorAll('.dw-ended-jobs .dw-cancelled').length === 1")
    page.select_option("[aria-label='Which jobs']", "")
    row(page, "one").locator("[title=More]").click()
    page.click("text=Delete (its files stay)")
    page.click(".dw-dialog .dw-danger")
    row(page, "one").wait_for(state="detached")
    row(page, "two").locator("text=Resume").click()
    page.click("role=tab[name=Queue]")
    page.wait_for_selector(".dw-waiting-jobs .dw-job:has-text('two')")


def test_menu_duplicate_rename_use_settings(page, standalone) -> None:
    add(page, standalone, "one")
    row(page, "one").locator("[title=More]").click()
    page.click("text=Duplicate >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === 2")
    page.locator(".dw-waiting-jobs [data-job]").last.locator("[title=More]").click()
    page.click("text=Rename…")
    page.fill(".dw-dialog input", "<b>renamed</b>")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-job-title:has-text('<b>renamed</b>')")
    page.evaluate("() => window.deforumWan.resetForm()")
    row(page, "one").locator("[title=More]").click()
    page.click("text=Use these settings")
    page.wait_for_function("() => window.deforumWan.store.values.prompts.includes('a one')")


def test_escape_closes_a_dialog_wherever_the_focus_is(page, standalone) -> None:
    page.click("text=Add as grid…")
    page.click(".dw-dialog p")  # on words: the focus is nowhere
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Escape")
    page.wait_for_selector(".dw-dialog", state="detached")
    assert page.evaluate("() => document.activeElement.textContent") == "Add as grid…"


def test_grid(page, standalone) -> None:
    page.click("text=Add as grid…")
    page.fill(".dw-grid-rows input >> nth=0", "5, 7-8")
    page.click("text=+ field")
    page.fill(".dw-grid-rows input >> nth=1", "3; 0: (2), 9: (6)")
    page.wait_for_selector(".dw-dialog:has-text('6 jobs')")
    page.fill(".dw-dialog [aria-label='Name of the batch']", "grid")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_function("() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === 6")
    jobs = standalone.ask("GET", "jobs?states=pending")["jobs"]
    assert sorted({job["seed"] for job in jobs}) == [5, 7, 8]


def test_files_export_import(page, standalone, tmp_path) -> None:
    files = []
    for number in (1, 2):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(json.dumps({"prompts": {"0": f"file {number}"}, "max_frames": 17}))
    with page.expect_file_chooser() as chooser:
        page.click("text=Add files…")
    chooser.value.set_files([str(file) for file in files])
    page.wait_for_function("() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === 2")
    with page.expect_download() as download:
        page.click(".dw-foot >> text=Export")
    exported = tmp_path / "queue.json"
    exported.write_bytes(Path(download.value.path()).read_bytes())
    with page.expect_file_chooser() as chooser:
        page.click("text=Import… >> nth=0")
    chooser.value.set_files(str(exported))
    page.wait_for_function("() => document.querySelectorAll('.dw-waiting-jobs [data-job]').length === 4")
    row(page, "file 2").first.locator("[title=More]").click()
    with page.expect_download() as download:
        page.click("text=Export as a file")
    one = json.loads(Path(download.value.path()).read_text())
    assert [job["settings"]["prompts"] for job in one["jobs"]] == [{"0": "file 2"}]


def test_a_folder_on_the_server(page, standalone) -> None:
    folder = standalone.folder / "out" / "tonight"
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        (folder / f"{number}.txt").write_text(json.dumps({"prompts": {"0": f"file {number}"}, "max_frames": 17}))
    page.click("text=Add folder…")
    page.fill(".dw-dialog input", "/etc")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-dialog .dw-error:has-text('certain folders')")
    assert page.input_value(".dw-dialog input") == "/etc"
    page.fill(".dw-dialog input", str(folder))
    page.keyboard.press("Enter")
    shows(page, "1", "2")
    assert standalone.ask("GET", "jobs?states=pending")["jobs"][0]["batch"] == "tonight"


def test_moved_by_keys_the_focus_stays_with_the_job(page, standalone) -> None:
    add(page, standalone, "one", "two", "three")
    row(page, "three").focus()
    page.keyboard.press("Alt+ArrowUp")
    shows(page, "one", "three", "two")
    page.wait_for_function("() => /#\\d+ three/.test(document.activeElement.textContent)")
    page.keyboard.press("Alt+ArrowUp")
    shows(page, "three", "one", "two")
    row(page, "three").locator("[title='Move down']").focus()
    page.keyboard.press("Enter")
    shows(page, "one", "three", "two")
    page.wait_for_function("() => document.activeElement.title === 'Move down'")
    page.keyboard.press("Enter")
    shows(page, "one", "two", "three")


def test_all_failed_ones_wait_again(page, standalone) -> None:
    added = [standalone.ask("POST", "jobs", {"settings": {"prompts": {"0": "a"}, "model": "nosuch"}, "name": name})
             for name in ("one", "two")]  # fmt: skip
    standalone.ask("POST", "queue/resume", {})
    until(lambda: standalone.ask("GET", "jobs?states=failed")["total"] == 2)
    standalone.ask("POST", "queue/pause", {"reason": "for this test"})
    page.click("role=tab[name=History]")
    page.wait_for_selector(".dw-ended-jobs .dw-error:has-text('nosuch')")
    page.click("role=tab[name=Queue]")
    page.click("text=Retry failed")
    shows(page, "one", "two")
    assert all(standalone.ask("GET", f"jobs/{one['jobs'][0]['id']}")["state"] == "pending" for one in added)


def test_options_are_kept_and_checked(page, standalone) -> None:
    page.click("text=Options…")
    attempts = page.locator(".dw-option:has-text('Most attempts') input")
    attempts.fill("many")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-dialog .dw-error:has-text('most_attempts')")
    attempts.fill("5")
    page.locator(".dw-option:has-text('Go on by itself') input").check()
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-dialog", state="detached")
    options = standalone.ask("GET", "state")["queue"]["options"]
    assert (options["most_attempts"], options["auto_resume"]) == (5, True)


def test_a_word_about_the_queues_file_is_shown_until_it_is_dismissed(page, standalone) -> None:
    data = Path(standalone.ask("GET", "environment")["data_folder"])
    with sqlite3.connect(data / "queue.sqlite3") as db:
        notice = json.dumps([{"time": 1.0, "text": "The queue's file was damaged and set aside"}])
        db.execute("INSERT OR REPLACE INTO facts (key, value) VALUES ('notices', ?)", (notice,))
        db.execute("UPDATE facts SET value = value + 1 WHERE key = 'version'")
    page.wait_for_selector(".dw-banner li:has-text('damaged and set aside')")
    page.click("[title='Forget these notices']")
    page.wait_for_selector(".dw-banner li:has-text('damaged and set aside')", state="detached")


def test_a_second_browser_shows_the_same(page, standalone, browser) -> None:
    add(page, standalone, "one")
    with opened(browser, standalone.url) as other:
        other.wait_for_selector(".dw-waiting-jobs .dw-job:has-text('one')")
        row(other, "one").locator("[title='Cancel']").click()
        page.wait_for_selector(".dw-waiting-jobs .dw-empty")
