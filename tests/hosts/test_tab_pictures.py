"""Pictures of the tab in each state, for docs/tab: with DEFORUM_WAN_PICTURES=1 they are written there.

Without it they go to a temporary folder, and the test holds only that each state can be reached and nothing overflows.
"""

from __future__ import annotations

import json
import os
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from tab_pages import ROOT, opened, set_field

pytestmark = pytest.mark.timeout(900)

TIDY = "() => { window.deforumWan.notices.replaceChildren(); document.activeElement.blur(); scrollTo(0, 0); }"
# Places of the machine that makes the pictures are nobody's business.
HIDE_PLACES = """places => {
    const walk = document.createTreeWalker(document.querySelector(".dw-app"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        for (const [from, to] of places) walk.currentNode.data = walk.currentNode.data.replaceAll(from, to);
    }
    for (const input of document.querySelectorAll(".dw-app input[type=text], .dw-app textarea"))
        for (const [from, to] of places) input.value = input.value.replaceAll(from, to);
}"""
ENVIRONMENT = str(Path(sys.executable).parents[2])
HOME = f"{Path.home()}/."
PICTURES = {"0": "desert.png", "40": "mountains.png"}
THEMES = {"gradio3": "light", "gradio4": "dark", "standalone": "light"}


@pytest.fixture
def shot(tmp_path):
    folder = ROOT / "docs" / "tab" if os.environ.get("DEFORUM_WAN_PICTURES") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name: str, whole: bool = True) -> None:
        page.evaluate(TIDY)
        page.evaluate(
            HIDE_PLACES,
            [[str(tmp_path.parent), "~/webui"], [str(ROOT), "~/deforum-wan"], [ENVIRONMENT, "~/env"], [HOME, "~/."]],
        )
        page.wait_for_timeout(400)
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the window"
        picture = Image.open(BytesIO(page.screenshot(full_page=whole))).convert("RGB")
        picture.save(folder / f"{name}.png", optimize=True)

    return take


def test_first_look_in_each_generation(webui, browser, shot) -> None:
    with opened(browser, webui.url, theme=THEMES[webui.generation]) as page:
        shot(page, f"first_{webui.generation}_{THEMES[webui.generation]}")


def test_every_state(standalone, browser, shot) -> None:
    with opened(browser, standalone.url) as page:
        set_field(page, "strength", "0: (1), 40: (1), 41: (0), 42: (1)")
        set_field(page, "guidance_scale", "0: (4), 40: (7*(1+sin(t/8))/2+1), 70: (5)")
        set_field(page, "width", "100")
        page.wait_for_selector("[data-field=width].dw-wrong")
        shot(page, "schedules_and_an_error")
        page.evaluate("() => window.deforumWan.resetForm()")
        page.evaluate("() => document.querySelectorAll('details.dw-section').forEach((one) => { one.open = false; })")
        page.evaluate("() => { document.querySelector('#deforum_wan_environment').open = true; }")
        page.wait_for_selector("#deforum_wan_environment dd")
        shot(page, "environment")
        page.evaluate("() => { document.querySelector('#deforum_wan_environment').open = false; }")
        set_field(page, "num_inference_steps", "400")
        page.evaluate("() => document.querySelectorAll('details.dw-section').forEach((one) => { one.open = false; })")
        page.click("#deforum_wan_generate")
        page.click("#deforum_wan_enqueue")
        page.click("#deforum_wan_enqueue")
        page.wait_for_selector("img.dw-frame")
        page.wait_for_selector(".dw-strip svg")
        page.wait_for_function("() => document.querySelector('img.dw-frame').naturalWidth > 0")
        shot(page, "running")
        with opened(browser, standalone.url, width=2560, height=1300, theme="dark") as wide:
            wide.wait_for_selector("img.dw-frame")
            wide.wait_for_function("() => document.querySelector('img.dw-frame').naturalWidth > 0")
            shot(wide, "running_wide_dark")
        page.click("text=Stop, keep frames")
        page.wait_for_selector(".dw-status:has-text('cancelled')")
        waiting = [job["id"] for job in standalone.ask("GET", "jobs?states=pending")["jobs"]]
        standalone.ask("POST", "jobs/cancel", {"ids": waiting})
        set_field(page, "num_inference_steps", "14")
        page.evaluate("() => document.querySelectorAll('details.dw-section').forEach((one) => { one.open = false; })")
        page.click("#deforum_wan_generate")
        page.wait_for_selector("video.dw-frame", timeout=240_000)
        page.wait_for_function("() => document.querySelector('video.dw-frame').readyState >= 2")
        page.click("role=tab[name=History]")
        page.wait_for_selector(".dw-ended-jobs .dw-done")
        shot(page, "done_and_history")
        page.click(".dw-live >> text=Again from a clip…")
        page.locator(".dw-dialog .dw-choice").nth(3).click()
        shot(page, "again_from_a_clip", whole=False)
        page.keyboard.press("Escape")
        page.locator(".dw-ended-jobs [title=More]").first.click()
        page.click("text=Details: files, settings, error")
        page.wait_for_selector(".dw-files button")
        page.wait_for_function("() => [...document.querySelectorAll('.dw-frames img')].every(one => one.complete)")
        shot(page, "details", whole=False)
    with opened(browser, standalone.url, theme="dark") as page:
        page.click("text=Add as grid…")
        page.wait_for_selector(".dw-grid-rows")
        shot(page, "grid_dark", whole=False)


def test_sections_in_the_dark(standalone, browser, shot) -> None:
    """Those that are closed when the tab is opened, with something in them."""
    values = {
        "zoom": "0: (1), 40: (1.02), 80: (1)",
        "translation_x": "0: (2*sin(t/10))",
        "init_images": json.dumps({key: str(ROOT / "examples" / "pictures" / name) for key, name in PICTURES.items()}),
        "loras": "grain = 0: (0.2), 60: (0.9)",
    }
    with opened(browser, standalone.url, theme="dark") as page:
        page.evaluate("() => document.querySelectorAll('details.dw-section').forEach((one) => { one.open = false; })")
        page.evaluate(
            """() => ["continuity", "images", "lora", "camera"].forEach(
                (id) => { document.querySelector(`[data-section=${id}]`).open = true; })"""
        )
        for name, value in values.items():
            set_field(page, name, value)
        page.wait_for_selector("[data-field=zoom] .dw-schedule-curve svg")
        page.evaluate("() => document.querySelectorAll('.dw-as-text').forEach((one) => { one.open = false; })")
        shot(page, "sections_dark")
