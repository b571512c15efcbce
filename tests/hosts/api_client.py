"""Starts api_server.py in an interpreter and talks to it, without a library of the web between."""

from __future__ import annotations

import http.client
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
GENERATIONS = ("current", "gradio3", "gradio4")
THIS_PYTHON = sys.executable
SETTINGS = {
    "prompts": {"0": "a red ball", "16": "a blue ball"}, "W": 32, "H": 16, "max_frames": 24, "seed": 5, "model": "demo",
    "batch_name": "batch", "ffmpeg_preset": "ultrafast",
}  # fmt: skip
SLOW = {**SETTINGS, "prompts": {"0": "a slow red ball"}, "steps": 200, "max_frames": 17}
_START_SECONDS = 180  # gradio's first import on a busy machine


class Answer:
    """status, headers (names in lower case), body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """One run of api_server.py.  options: see there."""

    def __init__(self, python: str, folder: Path, **options: Any) -> None:
        self.folder = folder
        words = [python, str(HERE / "api_server.py"), json.dumps({"folder": str(folder), **options})]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        path = os.pathsep.join([str(_folder_with_ffmpeg(folder)), kept["PATH"]])
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            env={**kept, "PYTHONDONTWRITEBYTECODE": "1", "PATH": path},
        )  # fmt: skip
        self.said: list[str] = []
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()
        self.port = self._port(lines)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Headers by keyword, with _ for -.  body: bytes, an iterator of them, or what becomes JSON.  A path without a
        slash in front is one of our own routes."""
        if not path.startswith("/"):
            path = f"/deforum-wan/api/{path}"
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes | Iterator):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, {} if body is None else body, **headers)

    def ended(self, job_id: int) -> dict[str, Any]:
        """The job, once it has ended."""
        deadline = time.monotonic() + 60
        while (job := self.get(f"jobs/{job_id}").json)["state"] in ("pending", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _listen(self, lines: queue.Queue[str | None]) -> None:
        try:
            for line in self.process.stdout:
                self.said.append(line)
                lines.put(line)
        except ValueError:  # closed by stop()
            pass
        lines.put(None)

    def _port(self, lines: queue.Queue[str | None]) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                line = lines.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.process.kill()
                pytest.fail(f"the server did not start:\n{''.join(self.said)}")
            if line.startswith('{"port"'):
                return json.loads(line)["port"]


def _folder_with_ffmpeg(folder: Path) -> Path:
    """A folder for PATH with the ffmpeg of the interpreter that runs the tests; a WebUI's has none."""
    import imageio_ffmpeg

    programs = folder / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    name = programs / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    if not name.exists():
        name.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return programs


_shared: dict[str, Server] = {}


def shared_server(request: pytest.FixtureRequest, generation: str) -> Server:
    """One server for each generation, for all tests of a session: a WebUI with its page and Deforum's API."""
    if generation not in _shared:
        folder = Path(tempfile.mkdtemp(prefix="deforum_wan_"))
        python = python_of(request, generation)
        server = Server(python, folder, page=True, host="a1111", flags={"deforum_api": True})
        _shared[generation] = server
        request.config.add_cleanup(lambda: (server.stop(), shutil.rmtree(folder, ignore_errors=True)))
    return _shared[generation]


def python_of(request: pytest.FixtureRequest, generation: str) -> str:
    """The interpreter of a generation; skips where this machine has none."""
    return THIS_PYTHON if generation == "current" else str(request.getfixturevalue(f"{generation}_python"))
