"""The passwords of the WebUI in a browser: who has logged in has the whole tab, a stranger nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from tab_pages import WebUI

QUICK = {"prompts": {"0": "a red ball"}, "W": 128, "H": 80, "max_frames": 5, "steps": 2, "model": "demo"}
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("generation", ["gradio3", "gradio4"])
def test_the_tab_works_for_who_has_logged_in(generation: str, request, browser: Any, tmp_path) -> None:
    python = request.getfixturevalue(f"{generation}_python")
    webui = WebUI(str(python), tmp_path, "--auth", "me:secret", "--flag", "api_auth=other:word")
    try:
        refused = webui.ask("GET", "state")["error"]["message"]
        assert refused.startswith("a user name and a password are needed")
        with contextlib.closing(browser.new_context()) as context:
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.route("**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
            page.goto(webui.url)
            page.wait_for_selector("input[type=password]")
            assert page.locator(".dw-root").count() == 0
            page.locator("input:not([type=password]), textarea").first.fill("me")
            page.fill("input[type=password]", "secret")
            page.get_by_role("button", name="Login").click()
            page.wait_for_selector(".dw-app svg.dw-timeline")
            page.evaluate("settings => window.deforumWan.api('jobs', { settings })", QUICK)
            page.wait_for_function("() => (document.querySelector('video.dw-frame') || {}).readyState >= 1")
        assert webui.ask("GET", "jobs")["error"]["message"] == refused
    finally:
        webui.stop()
