#!/usr/bin/env python3
"""The API under load: pages that poll, lists, plans, additions, ranges of a video, all against one server process.

    python bench/api_load.py [--seconds S] [--clients N] [--jobs N] [--out FILE.json]

The server is the real one with a full queue and no worker.  Clients are threads of this process with connections that
stay open, as a browser's do.  Prints requests a second and the spread of answer times; writes them as JSON.
Client and server share the machine, so the figures are a floor.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "prompts": {str(frame): f"a red balloon over green hills, part {frame}" for frame in range(0, 480, 48)},
    "max_frames": 480, "W": 128, "H": 80, "seed": 1, "model": "demo", "cfg_scale_schedule": "0: (4), 240: (4+2*sin(t))",
}  # fmt: skip
_SERVER = """
import os, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import uvicorn
from deforum_helpers.job_queue import NewJob
from deforum_helpers.web.serve import OnlyKnownNames
from deforum_helpers.web.service import Service
from deforum_helpers import api
from fastapi import FastAPI
folder, jobs, settings = Path(sys.argv[2]), int(sys.argv[3]), __import__("json").loads(sys.argv[4])
service = Service(folder, out_dir=lambda: folder, run=False)
service.queue.pause()
for first in range(0, jobs, 500):
    service.queue.add_many([NewJob(settings, f"job {n}") for n in range(first, min(first + 500, jobs))])
app = FastAPI()
api.register(app, deforum=True, service=lambda: service)
server = uvicorn.Server(uvicorn.Config(OnlyKnownNames(app), host="127.0.0.1", port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started: pass
print(server.servers[0].sockets[0].getsockname()[1], flush=True)
sys.stdin.read()
os._exit(0)
"""

Ask = Callable[[http.client.HTTPConnection], int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each case; default %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="default %(default)s")
    parser.add_argument("--jobs", type=int, default=1000, help="in the queue; default %(default)s")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deforum_wan_") as folder:
        server, port = started(Path(folder), given.jobs)
        try:
            figures = measured(port, given)
        finally:
            server.stdin.close()  # type: ignore[union-attr]
            server.wait(10)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if any(case["failed"] for case in figures["cases"]) else 0


def started(folder: Path, jobs: int) -> tuple[subprocess.Popen[str], int]:
    variables = {**os.environ, "DEFORUM_WAN_STATE": str(folder / "state"), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", _SERVER, str(ROOT / "scripts"), str(folder), str(jobs), json.dumps(SETTINGS)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
    return server, int(server.stdout.readline())  # type: ignore[union-attr]


def measured(port: int, given: argparse.Namespace) -> dict[str, Any]:
    version = json.loads(fetched(port, "GET", "state"))["version"]
    cases: list[tuple[str, int, Ask]] = [
        ("a page that polls, nothing new", given.clients, asking("GET", f"state?since={version}")),
        ("a page that polls, everything new", given.clients, asking("GET", "state")),
        ("a list of 50 jobs", given.clients, asking("GET", "jobs?limit=50")),
        ("a search", given.clients, asking("GET", "jobs?text=balloon%20hills%2048&limit=20")),
        ("a plan of 480 frames", 4, asking("POST", "plan", {"settings": SETTINGS})),
        ("a job added", 4, asking("POST", "jobs", {"settings": SETTINGS})),
    ]
    figures = [run(port, name, clients, given.seconds, ask) for name, clients, ask in cases]
    figures.append(mixed(port, given))
    for case in figures:
        spread = "  ".join(f"{name} {case[f'{name}_ms']:7.1f}" for name in ("median", "p95", "p99", "max"))
        print(f"{case['name']:38s} {case['clients']:3d} clients {case['per_second']:8.1f}/s   {spread} ms"
              f"   failed {case['failed']}")  # fmt: skip
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    return {"machine": machine, "jobs": given.jobs, "seconds": given.seconds, "cases": figures}


def mixed(port: int, given: argparse.Namespace) -> dict[str, Any]:
    """Pages that poll as they do, twice a second each, while jobs are added: is any of them kept waiting?"""
    over = threading.Event()
    add = asking("POST", "jobs", {"settings": SETTINGS})

    def write() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not over.wait(0.2):
            add(connection)

    writer = threading.Thread(target=write)
    writer.start()
    poll = asking("GET", "state")
    case = run(port, "pages at 2/s while jobs are added", given.clients, 2 * given.seconds, poll, pause=0.5)
    over.set()
    writer.join()
    return case


def asking(method: str, path: str, body: Any = None) -> Ask:
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}

    def ask(connection: http.client.HTTPConnection) -> int:
        connection.request(method, f"/deforum-wan/api/{path}", data, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


def fetched(port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, f"/deforum-wan/api/{path}")
    return connection.getresponse().read()


def run(port: int, name: str, clients: int, seconds: float, ask: Ask, pause: float = 0.0) -> dict[str, Any]:
    """Have so many clients ask for so long, each as fast as it is answered, or with pauses."""
    times: list[float] = []
    failed: list[object] = []
    end = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (began := time.monotonic()) < end:
            try:
                if (status := ask(connection)) >= 400:
                    failed.append(status)
            except OSError as error:
                failed.append(error)
                connection.close()
            times.append(time.monotonic() - began)
            time.sleep(pause)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    return {
        "name": name, "clients": clients, "requests": len(times), "failed": len(failed),
        "per_second": round(len(times) / (time.monotonic() - began), 1), "median_ms": round(1000 * cuts[49], 1),
        "p95_ms": round(1000 * cuts[94], 1), "p99_ms": round(1000 * cuts[98], 1), "max_ms": round(1000 * max(times), 1),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
