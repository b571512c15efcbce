"""The real worker with the demo checkpoint, on the interpreter that runs the tests where that has torch."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "W": 64, "H": 48, "max_frames": 24, "fps": 20, "seed": 11, "steps": 2, "batch_name": "batch", "model": "demo",
    "prompts": {"0": "a red ball rolls over green hills", "9": "a blue cube at sea", "18": "a yellow cone at night"},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _isolation(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFORUM_WAN_STATE", str(tmp_path_factory.mktemp("state")))
        if importlib.util.find_spec("torch") and not os.environ.get("DEFORUM_WAN_WORKER_PYTHON"):
            patch.setenv("DEFORUM_WAN_WORKER_PYTHON", sys.executable)
        yield


@pytest.fixture(scope="session")
def worker(_isolation):
    """One warm worker for all tests."""
    from deforum_helpers.wan_integration import new_worker

    with new_worker() as worker:
        yield worker


@pytest.fixture
def settings_file(tmp_path):
    def write(name="settings.txt", **changes):
        path = tmp_path / name
        path.write_text(json.dumps({**SMALL, **changes}), encoding="utf-8")
        return path

    return write
