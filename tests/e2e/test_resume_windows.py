"""Clips in several windows, loops, and models of one timestep: killed in their sampling or decode, they end as if they
never were."""

import os
import signal
import sys
from pathlib import Path

import pytest
from deforum_helpers.errors import WorkerDied
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
from deforum_helpers.variants import DEMO, VARIANTS
from deforum_helpers.video.frames import read_png

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "continuity"))

from plain_demo import new_plain_worker

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")

# Steps enough that word of the first one comes back, on a busy machine too, before the clip is done.
ONE_PROMPT = {"prompts": {"0": "a red ball rolls over green hills"}, "fps": 16, "steps": 12}
WAYS = {
    "joint": {**ONE_PROMPT, "continuity": "joint", "joint_windows": 2, "max_frames": 44},
    "loop": {**ONE_PROMPT, "loop": True, "max_frames": 24},
    "plain": {**ONE_PROMPT, "continuity": "latents", "max_frames": 29},
    "plain joint": {**ONE_PROMPT, "continuity": "joint", "joint_windows": 2, "max_frames": 44},
}


def pictures(files: JobFiles) -> list[bytes]:
    return [read_png(path).tobytes() for path in files.pictures()]


@pytest.fixture
def renderer(way, worker, monkeypatch):
    """A worker that takes the demo for what it is, or for plain text-to-video weights."""
    if not way.startswith("plain"):
        yield worker
        return
    monkeypatch.setitem(VARIANTS, DEMO, VARIANTS[DEMO])  # put back afterwards
    with new_plain_worker() as plain:
        yield plain


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", ["sampling", "decoding"])
def test_a_killed_render_goes_on_to_the_same_frames(renderer, settings_file, tmp_path, way, phase):
    worker = renderer
    settings, _ = load_settings(settings_file(**WAYS[way]))
    whole = render_wan(settings, tmp_path / "undisturbed", worker=worker)
    wanted = pictures(JobFiles(whole.folder, whole.timestring))
    assert len(set(wanted)) == len(wanted) == settings.max_frames
    struck, steps, last = [], [], 1 if way == "loop" else 2

    def kill_whenever_it_gets_there(progress):
        if progress.clip == last and progress.phase == phase and (progress.step or phase == "decoding") and worker.pid:
            os.kill(worker.pid, signal.SIGKILL)
            struck.append(progress.phase)

    with pytest.raises(WorkerDied, match="SIGKILL"):
        render_wan(settings, tmp_path, worker=worker, timestring="1", on_progress=kill_whenever_it_gets_there)
    assert len(struck) >= 2, "the second try as well"
    files = JobFiles(tmp_path / "batch", "1")
    assert files.latents(last - 1).exists() == (phase == "decoding"), "latents are on disk before the decode"

    def count_steps(progress):
        if progress.phase == "sampling" and progress.step:
            steps.append((progress.clip, progress.step))

    render_wan(settings, tmp_path, worker=worker, timestring="1", resume=True, on_progress=count_steps)
    assert {clip for clip, _ in steps} == ({last} if phase == "sampling" else set()), "nothing is sampled twice"
    assert pictures(files) == wanted
