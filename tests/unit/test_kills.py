"""A render killed at every place where a file takes its final name, by a fake worker: what is left can go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deforum_helpers.job_files import JobFiles
from deforum_helpers.manifest import load_manifest
from deforum_helpers.video.ffmpeg import count_frames
from deforum_helpers.video.frames import read_png

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")

RENDER = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from fake_worker import FakeRenderer
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
fatal, done, replace = int(sys.argv[5]), 0, os.replace
os.fsync = lambda handle: None  # that is for power cuts; a killed process loses nothing it has written

def deadly(part, path):
    global done
    done += 1
    if done == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)

os.replace = deadly
model = inspect_model(Path(sys.argv[1]).parent / "models" / "demo")
settings, _ = load_settings(sys.argv[3])
render_wan(settings, Path(sys.argv[4]), worker=FakeRenderer(), model=model, timestring="1", resume=True)
print(done)
"""
UNIT = Path(__file__).parent


def render(settings: Path, out: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", RENDER, UNIT.parents[1] / "scripts", UNIT, settings, out, fatal]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=60)


def test_a_render_killed_at_every_rename_goes_on_to_the_same_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    settings = tmp_path / "settings.txt"
    settings.write_text(json.dumps({"W": 32, "H": 16, "max_frames": 8, "seed": 1, "batch_name": "b", "fps": 16,
                                    "prompts": {"0": "a", "4": "b"}, "ffmpeg_preset": "ultrafast"}))  # fmt: skip
    whole = render(settings, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    renames = int(whole.stdout)
    assert renames > 15
    wanted = [read_png(path).tobytes() for path in JobFiles(tmp_path / "whole" / "b", "1").pictures()]
    for fatal in range(1, renames + 1, 3):
        out = tmp_path / str(fatal)
        assert render(settings, out, fatal).returncode == -9
        resumed = render(settings, out, 0)
        assert resumed.returncode == 0, resumed.stderr
        made = [JobFiles(path.parent.parent, path.parent.name.removesuffix("_work"))
                for path in out.glob("b/*_work/manifest.json")]  # fmt: skip
        assert len(made) == 1
        assert [read_png(path).tobytes() for path in made[0].pictures()] == wanted
        assert load_manifest(made[0].manifest).state == "done"
        assert count_frames(made[0].result(".mp4")) == 8
        assert not list(out.rglob("*.part"))
