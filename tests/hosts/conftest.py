"""Fixtures for the tests that run the tab in the hosts' versions of gradio, and in a browser.

A machine that can't have one of these skips the tests that need it, with the reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from deforum_helpers.errors import SetupError
from host_environments import PINS, find_browser, host_python


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
