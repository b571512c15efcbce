"""A service on folders of its own with a fake in the worker's place, for the tests of what tab and API share."""

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deforum_helpers.errors import RenderCancelled
from deforum_helpers.wan_isolated_env import EnvironmentState
from deforum_helpers.web import environment
from deforum_helpers.web.service import Service
from fake_worker import FakeRenderer

SETTINGS = {
    "prompts": {"0": "a red ball", "16": "a blue ball"}, "W": 32, "H": 16, "max_frames": 24, "seed": 5, "model": "demo",
    "batch_name": "batch", "ffmpeg_preset": "ultrafast",
}  # fmt: skip


class Gated(FakeRenderer):
    """A worker that waits at each clip until it is let on, or cancelled.  at: clips begun."""

    def __init__(self):
        super().__init__()
        self.gate, self.at = threading.Semaphore(0), 0

    def run(self, request, on_event=None, cancel=None):
        self.at += 1
        while not self.gate.acquire(timeout=0.02):
            if cancel.is_set():
                raise RenderCancelled("cancelled")
        return super().run(request, on_event, cancel)


@contextmanager
def services(tmp_path, monkeypatch) -> Iterator:
    """make(worker, ...) -> a service; all are closed at the end.  The environment counts as ready."""
    for name in ("state", "out", "data"):
        monkeypatch.setenv(f"DEFORUM_WAN_{name.upper()}", str(tmp_path / name))
    ready = EnvironmentState("ready", "", Path("here"), Path("python"), {"python": "3.11", "torch": "2.13"})
    monkeypatch.setattr(environment, "check", lambda: ready)
    made = []

    def make(worker=None, **options):
        made.append(Service(tmp_path / "data", worker=worker or FakeRenderer(), **options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.close(10)
            one.queue.close()


def wait_until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_state(one, job_id, *states):
    """The job, once it is in one of these states."""
    wait_until(lambda: one.queue.job(job_id).state in states)
    return one.queue.job(job_id)


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: where tests of a browser ran before, this one has an event loop that never ends."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def ask(app, method, path, body=None, *, cut=False):
    """One request straight into the app, without a server.  Returns (status, JSON).  cut: who asks is gone."""
    data, sent = b"" if body is None else json.dumps(body).encode(), []
    path, _, query = path.partition("?")
    headers = [(b"content-type", b"application/json")] if body is not None else []
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
             "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": query.encode(),
             "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}  # fmt: skip

    async def receive():
        return {"type": "http.disconnect"} if cut else {"type": "http.request", "body": data, "more_body": False}

    async def send(message):
        sent.append(message)

    run_async(app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(content) if content else None
