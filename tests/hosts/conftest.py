"""Fixtures for the tests that run the tab in the hosts' versions of gradio, and in a browser.

A machine that can't have one of these skips the tests that need it, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from deforum_helpers.errors import SetupError
from host_environments import PINS, find_browser, host_python
from tab_pages import FLAGS, GENERATIONS, WebUI


@pytest.fixture(scope="session")
def gradio3_python() -> Path:
    """A Python with gradio 3.41.2 and what goes with it (pydantic 1, numpy 1)."""
    return _python_or_skip("gradio3")


@pytest.fixture(scope="session")
def gradio4_python() -> Path:
    """A Python with gradio 4.40.0 and what goes with it (pydantic 2, numpy 1)."""
    return _python_or_skip("gradio4")


@pytest.fixture(scope="session", params=sorted(PINS))
def host_gradio_python(request: pytest.FixtureRequest) -> Path:
    """Each of the hosts' environments in turn."""
    return _python_or_skip(request.param)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; start it with --no-sandbox where the tests run as root."""
    return find_browser() or pytest.skip("no chromium on PATH")


def _python_or_skip(name: str) -> Path:
    try:
        return host_python(name)
    except SetupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """A real Chromium for all tests; each opens pages of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=GENERATIONS)
def webui(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A WebUI with the tab, in each generation of gradio."""
    yield from _running(request, request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def standalone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """The tab standalone, for what is the page code's own and doesn't depend on gradio."""
    yield from _running(request, "standalone", tmp_path_factory)


def _running(request: pytest.FixtureRequest, name: str, folders: pytest.TempPathFactory) -> Iterator[WebUI]:
    if name == "standalone":
        pytest.importorskip("gradio")
    python = "" if name == "standalone" else str(request.getfixturevalue(f"{name}_python"))
    one = WebUI(python, folders.mktemp(name))
    one.generation = name
    yield one
    one.stop()
