"""Before anything can be rendered, and when the server goes away: the page says what, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tab_pages import WebUI, opened

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def no_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DEFORUM_WAN_ENV", str(tmp_path / "none"))
    monkeypatch.setenv("DEFORUM_WAN_WORKER_PYTHON", "")


@pytest.fixture
def damaged_queue(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "queue.sqlite3").write_bytes(b"no database " * 4000)


@pytest.fixture
def webui(tmp_path) -> Iterator[WebUI]:
    """The standalone program, of this test alone; what it is to find stands in front of this fixture."""
    pytest.importorskip("gradio")
    one = WebUI("", tmp_path)
    yield one
    if one.process.poll() is None:
        one.stop()


def test_without_the_environment(no_environment, webui, browser) -> None:
    with opened(browser, webui.url) as page:
        page.wait_for_selector(".dw-banner.dw-warn:has-text('never set up')")
        page.click("#deforum_wan_generate")
        page.wait_for_selector(".dw-problem:has-text('isolated environment is missing')")
        assert page.locator("#deforum_wan_environment[open]").count() == 1
        assert webui.ask("GET", "jobs")["total"] == 0


def test_installing_shows_its_log_live_and_can_be_stopped(no_environment, webui, browser) -> None:
    with opened(browser, webui.url) as page:
        page.click(".dw-banner >> text=Install")
        page.wait_for_selector("#deforum_wan_environment[open] .dw-log:has-text('[1/')")
        page.wait_for_selector(".dw-setup-state:has-text('install is under way')")
        page.click("#deforum_wan_environment button:has-text('Stop')")
        page.wait_for_selector(".dw-setup-state .dw-error:has-text('stopped')")
        page.wait_for_selector("#deforum_wan_environment button:has-text('Install'), button:has-text('Go on')")


def test_the_self_test_renders_and_says_so(webui, browser) -> None:
    with opened(browser, webui.url) as page:
        page.click("#deforum_wan_environment summary")
        page.click("#deforum_wan_environment button:has-text('Self-test')")
        page.wait_for_selector(".dw-setup-state .dw-good:has-text('the self-test passed: 17 frames')")
        page.wait_for_selector("#deforum_wan_environment .dw-log:has-text('the self-test passed')")  # a poll later
        assert "sampling" in page.inner_text("#deforum_wan_environment .dw-log")


def test_a_models_files_are_read_whole_on_demand(webui, browser) -> None:
    with opened(browser, webui.url) as page:
        page.click("summary:has-text('What it is loaded from')")
        page.click("text=Check the files")
        page.wait_for_selector("#deforum_wan_environment[open] .dw-log:has-text('no published value at hand')")
        page.wait_for_selector(".dw-setup-state .dw-good:has-text('files read')")


def test_a_server_that_went_away_is_said(webui, browser) -> None:
    with opened(browser, webui.url) as page:
        webui.stop()
        page.wait_for_selector(".dw-banner:has-text('does not answer')", timeout=60_000)
        page.click("#deforum_wan_enqueue")
        page.wait_for_selector(".dw-problem:has-text('does not answer')")


def test_a_damaged_queue_is_set_aside_with_a_word(damaged_queue, webui, browser, tmp_path) -> None:
    with opened(browser, webui.url) as page:
        page.wait_for_selector(".dw-queue .dw-banner:has-text('set aside')")
        assert "[object" not in page.inner_text(".dw-queue")
        assert list((tmp_path / "data").glob("queue.damaged-*.sqlite3"))
        page.click("[title='Forget these notices']")
        page.wait_for_selector(".dw-queue .dw-banner", state="detached")
        page.click("#deforum_wan_enqueue")
        page.wait_for_selector(".dw-notice:has-text('waits in the queue')")
