"""The whole way in each generation of gradio: open the tab, edit, Generate, watch it, play the video."""

from __future__ import annotations

import json
import re

import pytest
from tab_pages import opened, set_field, values

pytestmark = pytest.mark.timeout(900)

SLOW = {"max_frames": "33", "num_inference_steps": "900", "seed": "7"}


def test_edit_generate_watch_and_play(webui, browser) -> None:
    with opened(browser, webui.url) as page:
        if webui.generation != "standalone":  # nothing of ours is pinned by the host
            log = webui.log.read_text()
            assert "torch False" in log and "up: gradio" in log
        assert values(page)["width"] == "128"  # the demo's own size, without a step by anybody
        edit(page)
        page.click("#deforum_wan_generate")
        page.wait_for_selector(".dw-status:has-text('step ')")
        assert re.search(r"job \d+ · clip 1 of \d · step \d+ of 900", page.inner_text(".dw-status"))
        page.wait_for_selector("img.dw-frame")
        watch_elsewhere(webui, browser)
        page.click("text=Stop, keep frames")
        page.wait_for_selector(".dw-status:has-text('cancelled')")
        set_field(page, "num_inference_steps", "4")
        page.keyboard.press("Control+Enter")
        play(page)
        page.reload()
        play(page)


def edit(page) -> None:
    page.click("role=tab[name=JSON]")
    page.fill("#deforum_wan_prompts", json.dumps({"0": "a red ball in a meadow", "max_f/2": "a bird --neg blurry"}))
    page.click("role=tab[name=Table]")
    assert page.locator(".dw-table tbody tr").count() == 2
    assert page.input_value("tbody tr:nth-child(2) td.dw-not textarea") == "blurry"
    for name, value in SLOW.items():
        set_field(page, name, value)
    page.wait_for_selector("svg.dw-timeline[data-frames='33']")
    assert page.locator("svg.dw-timeline .dw-prompt").count() == 2


def watch_elsewhere(webui, browser) -> None:
    """Another browser shows the running job, too, and so does a page that is loaded anew."""
    with opened(browser, webui.url) as page:
        page.wait_for_selector(".dw-job .dw-state.dw-running")
        page.wait_for_selector(".dw-live .dw-bar:not([hidden])")
        assert "job 1" in page.inner_text(".dw-status")


def play(page) -> None:
    page.wait_for_selector("video.dw-frame")
    page.wait_for_function("() => document.querySelector('video.dw-frame').readyState >= 1")
    at = page.evaluate("""() => new Promise((done, failed) => {
        const video = document.querySelector("video.dw-frame");
        video.pause();
        video.onseeked = () => done([video.currentTime, video.duration, video.seekable.end(0)]);
        video.onerror = () => failed(new Error("the video can't be played"));
        video.currentTime = 1.25;
    })""")
    assert at[0] == pytest.approx(1.25, abs=0.07)
    assert at[1] == at[2] == pytest.approx(33 / 16, abs=0.1)
