"""The tab in a real WebUI, started as its users start it, on a CPU and without any of its models.

Skipped unless a tree is named:  DEFORUM_WAN_FORGE=<Forge's folder>, DEFORUM_WAN_REFORGE, DEFORUM_WAN_A1111.  Its Python
is <folder>/venv's, or the one that DEFORUM_WAN_FORGE_PYTHON (and so on) names; it must have what the WebUI needs.
docs/hosts.md says what such a tree needs, and what came of it.  The tree is only read: data go elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tab_pages import HERE, OPEN_ALL_AROUND, environment, free_port

ROOT = HERE.parents[1]
TREES = ("FORGE", "REFORGE", "A1111")
FLAGS = ["--skip-prepare-environment", "--skip-python-version-check", "--skip-torch-cuda-test", "--skip-version-check",
         "--ui-debug-mode", "--api"]  # fmt: skip
START_SECONDS = 420
pytestmark = pytest.mark.timeout(1500)


class RealWebUI:
    """One run of a WebUI with this extension in a data folder of its own."""

    def __init__(self, name: str, folder: Path, *flags: str) -> None:
        tree = Path(os.environ[f"DEFORUM_WAN_{name}"])
        python = os.environ.get(f"DEFORUM_WAN_{name}_PYTHON") or str(tree / "venv" / "bin" / "python")
        (folder / "extensions").mkdir(parents=True)
        (folder / "extensions" / "deforum-wan").symlink_to(ROOT, target_is_directory=True)
        self.name, self.port, self.log = name, free_port(), folder / "webui.log"
        cpu = "--always-cpu" if "FORGE" in name else "--use-cpu=all"
        # With data elsewhere, gradio 4 refuses the WebUI's own scripts unless its folder is allowed by name.
        places = ["--data-dir", str(folder), "--gradio-allowed-path", str(tree)]
        words = [python, "-u", "launch.py", *FLAGS, cpu, *places, "--port", str(self.port), *flags]
        variables = {**environment(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._out = self.log.open("wb")
        self.process = subprocess.Popen(
            words, cwd=tree, stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.STDOUT, env=variables
        )
        self.wait_until_up()

    def wait_until_up(self) -> float:
        """Seconds until the routes answer."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                # gradio answers before our routes are there: with {"detail": "Not Found"}.
                if self.state().get("detail") != "Not Found":
                    return time.monotonic() - began
            time.sleep(0.5)
        raise AssertionError(f"it did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            data = json.dumps(body) if body is not None else "{}" if method == "POST" else None
            connection.request(method, path, data, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def state(self) -> dict[str, Any]:
        return self.ask("GET", "/deforum-wan/api/state")

    def job(self, number: int) -> dict[str, Any]:
        return self.ask("GET", f"/deforum-wan/api/jobs/{number}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._out.close()


@pytest.fixture(scope="module", params=TREES)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWebUI]:
    one = RealWebUI(_named(request.param), tmp_path_factory.mktemp(request.param) / "data")
    yield one
    one.stop()


def _named(name: str) -> str:
    if not os.environ.get(f"DEFORUM_WAN_{name}"):
        pytest.skip(f"DEFORUM_WAN_{name} names no tree")
    return name


@contextlib.contextmanager
def tab_of(real: RealWebUI, browser: Any) -> Iterator[Any]:
    """The tab, opened among the WebUI's own."""
    with contextlib.closing(browser.new_context(viewport={"width": 1400, "height": 950})) as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(f"{error} {getattr(error, 'stack', '')}"))
        page.route("**/*", lambda route: route.continue_() if _is_near(route.request.url) else route.abort())
        page.goto(f"http://127.0.0.1:{real.port}/")
        choose_tab(page, "Deforum Wan")
        page.wait_for_selector(".dw-app svg.dw-timeline")
        yield page
        assert [fault for fault in faults if "deforum_wan" in fault] == []


def choose_tab(page: Any, name: str) -> None:
    """One of the WebUI's own tabs: plain buttons in gradio 3, buttons with a role in gradio 4."""
    page.locator("#tabs button").filter(has_text=re.compile(rf"^\s*{name}\s*$")).first.click()


def _is_near(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


def start_job(page: Any, steps: int) -> int:
    """Generate, as a user does.  Returns the number of the job that runs."""
    for name, value in {"max_frames": 17, "num_inference_steps": steps, "seed": 7}.items():
        control = page.locator(f"#deforum_wan_{name}")
        control.evaluate(OPEN_ALL_AROUND)
        control.fill(str(value))
    page.wait_for_selector("svg.dw-timeline[data-frames='17']")
    page.click("#deforum_wan_generate")
    page.wait_for_selector(".dw-status:has-text('step ')")
    return int(page.inner_text(".dw-status").split("job ")[1].split()[0])


def reload_ui(real: RealWebUI, page: Any) -> None:
    """Press "Reload UI", and wait until it is there again.

    The host's page loads itself anew two seconds later; on a busy machine that can overtake the press.
    """
    for _ in range(4):
        choose_tab(page, "Settings")
        page.click("#settings_restart_gradio")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: _is_down(real), 30)
            print(f"{real.name}: Reload UI took {real.wait_until_up():.1f} s")
            return
        page.goto(f"http://127.0.0.1:{real.port}/")
    raise AssertionError("the WebUI did not reload")


def wait_for(true: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_job_outlives_reload_ui_and_ends_with_interrupt(real: RealWebUI, browser: Any) -> None:
    pictures = os.environ.get("DEFORUM_WAN_PICTURES", "")
    with tab_of(real, browser) as page:
        number = start_job(page, 990)
        progress = real.ask("POST", "/internal/progress", {"id_task": f"task(deforum-wan-{number})"})
        assert progress["active"] and "clip 1 of" in progress["textinfo"]
        if pictures:
            page.screenshot(path=str(Path(pictures) / f"{real.name.lower()}_running.png"))
        worker = _worker_of(real)
        assert len(worker) == 1
        reload_ui(real, page)
    running = real.state()["running"]
    assert [(job["id"], job["here"]) for job in running] == [(number, True)]
    assert _worker_of(real) == worker
    with tab_of(real, browser) as page, tab_of(real, browser) as other:
        for shown in (page, other):
            shown.wait_for_selector(f".dw-status:has-text('job {number} ')")
        real.ask("POST", "/sdapi/v1/interrupt")
        wait_for(lambda: real.job(number)["state"] == "cancelled")
        page.wait_for_selector(".dw-status:has-text('cancelled')")
        other.wait_for_selector(".dw-status:has-text('cancelled')")
    state = real.ask("GET", "/sdapi/v1/progress?skip_current_image=true")["state"]
    assert (state["job"], state["interrupted"]) == ("", False)


def test_generate_and_play(real: RealWebUI, browser: Any) -> None:
    with tab_of(real, browser) as page:
        number = start_job(page, 20)
        wait_for(lambda: real.job(number)["state"] == "done")
        page.wait_for_selector("video.dw-frame")
        page.wait_for_function("() => document.querySelector('video.dw-frame').readyState >= 1")
        seekable = page.evaluate("() => document.querySelector('video.dw-frame').seekable.end(0)")
        assert seekable == pytest.approx(17 / 16, abs=0.1)
        if pictures := os.environ.get("DEFORUM_WAN_PICTURES", ""):
            page.screenshot(path=str(Path(pictures) / f"{real.name.lower()}_done.png"))


@pytest.mark.parametrize("name", TREES)
def test_without_a_page_and_with_passwords(name: str, tmp_path: Path) -> None:
    one = RealWebUI(_named(name), tmp_path / "data", "--nowebui", "--deforum-api", "--api-auth", "me:secret")
    try:
        assert one.state()["error"]["message"].startswith("a user name and a password are needed")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)) as connection:
            connection.request("GET", "/deforum_api/jobs", headers={"Authorization": "Basic bWU6c2VjcmV0"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {})
    finally:
        one.stop()


def _is_down(real: RealWebUI) -> bool:
    try:
        return real.state().get("detail") == "Not Found"
    except (OSError, http.client.HTTPException):
        return True


def _worker_of(real: RealWebUI) -> list[int]:
    """The workers that the WebUI has started and that still run: it starts short processes of its own, too."""
    children = Path(f"/proc/{real.process.pid}/task").glob("*/children")
    return sorted(int(word) for child in children for word in child.read_text().split() if _is_worker(int(word)))


def _is_worker(process: int) -> bool:
    with contextlib.suppress(OSError):
        return b"wan_worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False
