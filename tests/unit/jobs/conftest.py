"""A queue to test, in memory where the system has such a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from deforum_helpers.job_queue import JobQueue
from queue_world import Clock, Deaths, folder_in_memory


@pytest.fixture
def tmp_path():
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


@pytest.fixture
def queue(tmp_path: Path, deaths: Deaths):
    queue = JobQueue(tmp_path / "queue" / "jobs.db", clock=Clock(), witness=deaths)
    yield queue
    queue.close()
