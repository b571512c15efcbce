"""Something of ours is broken, for instance by half an update: there is a tab that says what, and the WebUI is whole.

The extension's files are really broken here, in a copy.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tab_pages import HERE, WebUI, opened

ROOT = HERE.parents[1]
HELPERS = Path("scripts", "deforum_helpers")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=("gradio3", "gradio4"))
def python(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_python"))


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A copy of what a WebUI loads."""
    copy = tmp_path / "extension"
    shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "javascript", copy / "javascript")
    shutil.copy(ROOT / "style.css", copy)
    (copy / "models").symlink_to(ROOT / "models", target_is_directory=True)
    return copy


@contextlib.contextmanager
def running(python: str, folder: Path, extension: Path) -> Iterator[WebUI]:
    webui = WebUI(python, folder, "--extension", str(extension))
    try:
        yield webui
    finally:
        webui.stop()


@contextlib.contextmanager
def page_of(browser: Any, webui: WebUI) -> Iterator[Any]:
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.route("**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
        page.goto(webui.url)
        yield page
        assert page.locator("#txt2img_prompt").count() == 1  # the rest of the WebUI is there


def halved(file: Path) -> str:
    """Cut a file in the middle of a word, as a full disk does.  Returns what it was."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: text.index("def ") + 3], encoding="utf-8")
    return text


def test_code_that_cant_be_loaded_is_named_and_mended_by_a_reload(python, browser, tmp_path, extension) -> None:
    file = extension / HELPERS / "settings.py"
    whole = halved(file)
    with running(python, tmp_path, extension) as webui:
        with page_of(browser, webui) as page:
            page.wait_for_selector("#deforum_wan_failure:has-text('could not be loaded')")
            assert "SyntaxError" in page.inner_text("#deforum_wan_failure")
            assert "settings.py" in page.inner_text("#deforum_wan_failure")
        file.write_text(whole, encoding="utf-8")
        webui.reload()
        with opened(browser, webui.url) as page:
            assert page.locator("#deforum_wan_failure").count() == 0


def test_a_tab_that_cant_be_built_names_the_cause(python, browser, tmp_path, extension) -> None:
    file = extension / HELPERS / "ui" / "page.py"
    file.write_text(file.read_text(encoding="utf-8").replace("data = escape(", "data = 1 / 0 + len("), encoding="utf-8")
    with running(python, tmp_path, extension) as webui, page_of(browser, webui) as page:
        page.wait_for_selector(".dw-bad:has-text('ZeroDivisionError')")


def test_routes_that_cant_be_added_say_so_in_the_tab(python, browser, tmp_path, extension) -> None:
    halved(extension / HELPERS / "web" / "service.py")
    with running(python, tmp_path, extension) as webui, page_of(browser, webui) as page:
        page.wait_for_selector(".dw-root :text('Deforum Wan could not be started: SyntaxError')")
        assert webui.ask("GET", "state") == {"error": {"field": "", "message": ""}}  # strangers aren't told
