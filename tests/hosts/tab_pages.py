"""Starts the tab in a WebUI of each generation of gradio, or standalone, and opens it in a Chromium."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GENERATIONS = ("gradio3", "gradio4", "standalone")
START_SECONDS, WAIT = 240, 90_000  # on a busy machine
OPEN_ALL_AROUND = (
    "from => { for (let at = from; at; at = at.parentElement) if (at.tagName === 'DETAILS') at.open = true }"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"]


class WebUI:
    """One running server.  python: of a host's environment; "" = standalone, on the Python that runs the tests."""

    def __init__(self, python: str, folder: Path, *more: str) -> None:
        self.folder, self.port = folder, free_port()
        self.log, self.is_host = folder / "server.log", bool(python)
        if python:
            words = [python, str(HERE / "fake_webui.py"), str(self.port), str(folder / "data"), *more]
        else:
            words = [sys.executable, str(ROOT / "scripts" / "deforum_wan.py"), "serve", "--port", str(self.port)]
        self._out = self.log.open("wb")
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env=environment(folder),
            cwd=folder,
        )
        self.url = f"http://127.0.0.1:{self.port}/"
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, KeyError):  # KeyError: served, but not all routes are there
                self.ask("GET", "/fake-host/state" if self.is_host else "state")["made" if self.is_host else "version"]
                return
            time.sleep(0.3)
        raise AssertionError(f"the server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One of our routes, without the page; with a slash in front, one of the host's."""
        path = path if path.startswith("/") else f"/deforum-wan/api/{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def reload(self) -> float:
        """What "Reload UI" does in a host.  Returns the seconds until the new page is served."""
        made, began = self.ask("GET", "/fake-host/state")["made"], time.monotonic()
        self.ask("POST", "/fake-host/reload")
        while time.monotonic() - began < START_SECONDS:
            with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
                if self.ask("GET", "/fake-host/state")["made"] > made:
                    return time.monotonic() - began
            time.sleep(0.1)
        raise AssertionError(f"it did not come back:\n{self.log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._out.close()


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DEFORUM_WAN_DATA"))}
    if importlib.util.find_spec("torch") and "DEFORUM_WAN_WORKER_PYTHON" not in kept:
        kept["DEFORUM_WAN_WORKER_PYTHON"] = sys.executable
    return {
        **kept, "DEFORUM_WAN_STATE": str(folder / "state"), "DEFORUM_WAN_DATA": str(folder / "data"),
        "DEFORUM_WAN_OUT": str(folder / "out"), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def opened(browser: Any, url: str, *, width: int = 1280, height: int = 900, theme: str = "light") -> Iterator[Any]:
    """The tab in a browser of its own, with nothing from the net; fails on an error of our page code."""
    with contextlib.closing(browser.new_context(viewport={"width": width, "height": height})) as context:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(f"{error} {getattr(error, 'stack', '')}"))
        page.route("**/*", lambda route: route.continue_() if _is_ours(route.request.url) else route.abort())
        page.goto(f"{url}?__theme={theme}")
        page.wait_for_selector(".dw-app svg.dw-timeline")
        yield page
        ours = [fault for fault in faults if "deforum_wan" in fault]
        assert ours == []


def _is_ours(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


def set_field(page: Any, name: str, value: str | bool) -> None:
    """Type into a field of the form, wherever it stands."""
    control = page.locator(f"#deforum_wan_{name}")
    control.evaluate(OPEN_ALL_AROUND)
    if control.get_attribute("type") == "checkbox":
        control.set_checked(bool(value))
    elif control.evaluate("element => element.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(str(value))


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what the server says; the page's own waits don't wait for a promise."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def values(page: Any) -> dict[str, Any]:
    """What the form would send."""
    return page.evaluate("() => window.deforumWan.store.request()")


def all_over(webui: WebUI, page: Any) -> None:
    """Nothing runs or waits any more; the page shows the queue, without dialogs and notices."""
    page.keyboard.press("Escape")
    live = webui.ask("GET", "jobs?states=pending,running,interrupted&limit=200")["jobs"]
    if live:
        webui.ask("POST", "jobs/cancel", {"ids": [job["id"] for job in live]})
    until(lambda: webui.ask("GET", "jobs?states=pending,running")["total"] == 0)
    page.evaluate("() => window.deforumWan.notices.replaceChildren()")
    page.click("role=tab[name=Queue]")
