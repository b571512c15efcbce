"""Killed renders: whatever was killed and when, the resumed job's frames are those of an undisturbed run."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deforum_helpers.errors import WorkerDied
from deforum_helpers.job_files import JobFiles
from deforum_helpers.manifest import load_manifest
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
from deforum_helpers.video.ffmpeg import count_frames
from deforum_helpers.video.frames import read_png

ENTRY = Path(__file__).resolve().parents[2] / "scripts" / "deforum_wan.py"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")


def hashes(files: JobFiles) -> list[int]:
    return [hash(read_png(path).tobytes()) for path in files.pictures()]


@pytest.fixture
def undisturbed(worker, settings_file, tmp_path):
    result = render_wan(load_settings(settings_file())[0], tmp_path / "undisturbed", worker=worker)
    return hashes(JobFiles(result.folder, result.timestring))


def test_a_killed_worker_is_replaced_and_its_clip_made_again(worker, settings_file, tmp_path, undisturbed):
    kills = []

    def kill_in_the_second_clip(progress):
        if progress.clip == 2 and progress.phase in ("sampling", "decoding") and progress.phase not in kills:
            if not kills:
                os.kill(worker.pid, signal.SIGKILL)
            kills.append(progress.phase)

    said = []
    result = render_wan(
        load_settings(settings_file())[0], tmp_path, worker=worker, on_progress=kill_in_the_second_clip,
        say=said.append,
    )  # fmt: skip
    assert kills
    assert "SIGKILL" in said[0]
    assert hashes(JobFiles(result.folder, result.timestring)) == undisturbed


def test_a_worker_killed_in_its_decode_leaves_latents_that_are_used(worker, settings_file, tmp_path, undisturbed):
    settings, _ = load_settings(settings_file())

    def kill_in_every_decode(progress):
        if progress.clip == 2 and progress.phase == "decoding" and worker.pid:
            os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied, match="SIGKILL"):
        render_wan(settings, tmp_path, worker=worker, timestring="1", on_progress=kill_in_every_decode)
    files, steps = JobFiles(tmp_path / "batch", "1"), []
    if not files.latents(1).exists():
        pytest.fail("the latents must be on disk before the decode")

    def count_steps(progress):
        if progress.clip == 2 and progress.phase == "sampling":
            steps.append(progress.step)

    render_wan(settings, tmp_path, worker=worker, timestring="1", resume=True, on_progress=count_steps)
    assert steps == []
    assert hashes(files) == undisturbed


MOMENTS = ("while the model loads", "step 1 in clip 1", "decode of clip 2", "first picture of clip 2", "clip 3", "end")


def test_a_render_killed_again_and_again_ends_as_if_it_never_was(settings_file, tmp_path, undisturbed):
    """Each run is killed at another moment, or when it has got further than that, and the next one goes on."""
    file, out, chance = settings_file(), tmp_path / "out", random.Random(4)
    files = None
    for moment in MOMENTS:
        with start(file, out, resume=files is not None) as render:
            try:
                wait_for(moment, render, files, chance)
            finally:
                render.kill()
        jobs = [path.parent for path in out.glob("*/*_work/manifest.json")]
        if files is None and jobs:
            files = JobFiles(jobs[0].parent, jobs[0].name.removesuffix("_work"))
            assert load_manifest(files.manifest).state == "running"
    with start(file, out, resume=True) as last:
        output, errors = last.communicate(timeout=300)
    assert files is not None
    if last.returncode == 2 and "no unfinished job" in errors:  # the last kill came after the end
        output = str(files.result(".mp4"))
    else:
        assert last.returncode == 0, errors
    assert Path(output.strip()) == files.result(".mp4")
    assert hashes(files) == undisturbed
    assert count_frames(files.result(".mp4")) == len(undisturbed)
    assert not list(out.rglob("*.part"))


def start(file: Path, out: Path, *, resume: bool) -> subprocess.Popen[str]:
    command = [sys.executable, str(ENTRY), "render", str(file), "--out", str(out), *(["--resume"] if resume else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def wait_for(moment: str, render: subprocess.Popen[str], files: JobFiles | None, chance: random.Random) -> None:
    """Return at a moment of a running render, or when the render has ended."""
    marks = {
        "while the model loads": ["loading"], "step 1 in clip 1": ["clip 1 of 3  step"],
        "decode of clip 2": ["clip 2 of 3  decoding"], "first picture of clip 2": ["clip 2 of 3  writing"],
        "clip 3": ["clip 3 of 3  step", "clip 3 of 3  decoding"], "end": ["clip 3 of 3  writing"],
    }[moment]  # fmt: skip
    for line in render.stderr:
        if any(mark in line for mark in marks):
            break
    if moment == "first picture of clip 2" and files is not None:
        deadline = time.monotonic() + 20
        while not files.picture(9).exists() and render.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
    elif moment == "end" and files is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            render.wait(chance.random() * 0.3)
