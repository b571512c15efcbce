"""Presets in the tab: saved, renamed, opened with, given away and taken in, and a file of them that is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tab_pages import opened, values

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def page(standalone, browser):
    with opened(browser, standalone.url) as page:
        yield page


def folder(standalone) -> Path:
    return standalone.folder / "data" / "presets"


def menu(page, entry: str) -> None:
    page.click(".dw-presets >> text=⋯")
    page.click(f".dw-menu >> text={entry}")


def save(page, name: str) -> None:
    page.click("text=Save…")
    page.fill(".dw-dialog input[aria-label=Name]", name)
    page.click(".dw-dialog .dw-primary")


def holds(page, field: str, value: str) -> None:
    page.wait_for_function("([field, value]) => window.deforumWan.store.values[field] === value", arg=[field, value])


def test_a_preset_is_saved_applied_and_deleted(page, standalone) -> None:
    page.select_option("#deforum_wan_preset", "Quick look")
    holds(page, "num_inference_steps", "8")
    save(page, "../mine")
    page.wait_for_selector(".dw-dialog .dw-error:has-text('name')")
    assert page.input_value(".dw-dialog input[aria-label=Name]") == "../mine"  # kept as it was typed
    page.fill(".dw-dialog input[aria-label=Name]", "mine")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-notice:has-text('mine is saved')")
    page.evaluate("() => window.deforumWan.resetForm()")
    page.select_option("#deforum_wan_preset", "Quality")
    page.select_option("#deforum_wan_preset", "mine")
    holds(page, "num_inference_steps", "8")
    menu(page, "Delete")
    page.click(".dw-dialog .dw-danger")
    page.wait_for_selector("#deforum_wan_preset option[value=mine]", state="detached")
    assert not list(folder(standalone).glob("*.json"))


def test_one_is_renamed_and_opened_with(page, standalone, browser) -> None:
    page.fill("#deforum_wan_fps", "12")
    save(page, "slow")
    page.wait_for_selector("#deforum_wan_preset option[value=slow]", state="attached")
    menu(page, "Rename…")
    page.fill(".dw-dialog input", "slower")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector("#deforum_wan_preset option[value=slower]", state="attached")
    menu(page, "Open the tab with this preset")
    page.wait_for_selector("#deforum_wan_preset option:has-text('slower (default)')", state="attached")
    with opened(browser, standalone.url) as other:  # another browser, where nothing was typed yet
        holds(other, "fps", "12")
        menu(other, "Open the tab without a preset")
        other.wait_for_selector("#deforum_wan_preset option:has-text('(default)')", state="detached")
    with opened(browser, standalone.url) as other:
        holds(other, "fps", "16")


def test_one_is_given_away_and_taken_in(page, standalone, tmp_path) -> None:
    page.evaluate("() => window.deforumWan.store.set('crf', '30')")
    save(page, "small")
    page.wait_for_selector("#deforum_wan_preset option[value=small]", state="attached")
    with page.expect_download() as download:
        menu(page, "Export as a file")
    given = tmp_path / "given.json"
    given.write_bytes(Path(download.value.path()).read_bytes())
    assert json.loads(given.read_text())["format"] == "deforum-wan-preset"
    with page.expect_file_chooser() as chooser:
        menu(page, "Import a file…")
    chooser.value.set_files(str(given))
    page.wait_for_selector(".dw-dialog input[aria-label=Name]")
    page.click(".dw-dialog .dw-primary")  # under the file's own name
    page.wait_for_selector("#deforum_wan_preset option[value=given]", state="attached")
    page.evaluate("() => window.deforumWan.resetForm()")
    page.select_option("#deforum_wan_preset", "given")
    holds(page, "crf", "30")
    given.write_text('{"format": "deforum-wan-preset", "version": 99, "settings": {}}')
    with page.expect_file_chooser() as chooser:
        menu(page, "Import a file…")
    chooser.value.set_files(str(given))
    page.fill(".dw-dialog input[aria-label=Name]", "from the future")
    page.click(".dw-dialog .dw-primary")
    page.wait_for_selector(".dw-dialog .dw-error:has-text('newer version')")


def test_a_damaged_file_is_set_aside_with_a_word(page, standalone) -> None:
    page.evaluate("() => window.deforumWan.store.set('crf', '31')")
    save(page, "whole")
    page.wait_for_selector("#deforum_wan_preset option[value=whole]", state="attached")
    (folder(standalone) / "broken.json").write_bytes(b'{"format": "deforum-wan-preset", "vers')
    page.reload()
    page.wait_for_selector(".dw-notice.dw-bad:has-text('broken.json was damaged and set aside')")
    assert page.locator("#deforum_wan_preset option[value=whole]").count() == 1
    assert [path.name.split("-")[0] for path in folder(standalone).glob("broken.json*")] == ["broken.json.damaged"]
    assert values(page)["crf"] == "31"
