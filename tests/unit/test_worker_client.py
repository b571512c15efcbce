"""The process boundary: handshake, events, cancel, every way to die."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deforum_helpers.errors import OutOfDeviceMemory, RenderCancelled, SetupError, WorkerDied
from deforum_helpers.protocol import ClipRequest, Decoding, Step
from deforum_helpers.worker_client import Worker, describe_exit
from deforum_helpers.worker_log import WorkerLog

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture
def make_worker(tmp_path):
    made = []

    def make(*flags, **options):
        worker = Worker(
            [sys.executable, str(FAKE), *flags], os.environ, log=WorkerLog(tmp_path / "worker.log"), **options
        )
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def request_clip(tmp_path):
    return ClipRequest(
        id="r1", model="fake", prompt="a boat", negative_prompt="", width=16, height=16, latent_frames=5, new_latents=5,
        prefix_latents=0, num_inference_steps=3, solver="euler", shift=3.0, guidance=(4.0,) * 5, seed=1, strength=1.0,
        latents_file=str(tmp_path / "latents.safetensors"), frames_file=str(tmp_path / "frames.npy"),
    )


def test_a_request_yields_its_events_and_its_end_and_the_process_stays_warm(make_worker, request_clip):
    worker, events = make_worker(), []
    done = worker.run(request_clip, events.append)
    assert done.frames == 17
    assert [type(event) for event in events] == [Step] * 3 + [Decoding, type(done)]
    pid = worker.pid
    assert pid and worker.run(replace(request_clip, id="r2")).id == "r2"
    assert worker.pid == pid


def test_prints_before_the_handshake_do_no_harm(make_worker, request_clip):
    assert make_worker("--chatty").run(request_clip).frames == 17


def test_a_worker_of_another_version_is_a_setup_error(make_worker):
    with pytest.raises(SetupError, match="another protocol; got 99; allowed: 1"):
        make_worker("--old").start()


def test_a_worker_that_cannot_start_is_a_setup_error_that_quotes_it(make_worker):
    with pytest.raises(SetupError, match=r"exit code 1; ModuleNotFoundError: No module named 'torch'"):
        make_worker("--broken").start()


def test_a_mute_worker_is_given_up(make_worker):
    with pytest.raises(SetupError, match="did not answer within 1 s"):
        make_worker("--mute", hello_seconds=0.6).start()


def test_a_missing_interpreter_is_a_setup_error(tmp_path):
    with pytest.raises(SetupError, match=r"cannot be started.*install\.py"):
        Worker([str(tmp_path / "python")], os.environ, log=WorkerLog(tmp_path / "log")).start()


@pytest.mark.parametrize(
    ("prompt", "words"), [("die", "SIGKILL.*probably out of memory"), ("die of a segfault", "signal SIGSEGV")]
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_death_is_noticed_at_once_and_named_and_the_next_run_starts_afresh(make_worker, request_clip, prompt, words):
    worker = make_worker()
    worker.start()
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=f"{words}.*last said: Fatal: the end") as caught:
        worker.run(replace(request_clip, prompt=prompt))
    assert time.monotonic() - began < 4
    assert "\n" not in str(caught.value)
    assert worker.run(request_clip).frames == 17


def test_a_failure_that_the_worker_reports_keeps_it_alive(make_worker, request_clip):
    worker = make_worker()
    with pytest.raises(OutOfDeviceMemory):
        worker.run(replace(request_clip, prompt="out of memory"))
    pid = worker.pid
    assert worker.run(request_clip).frames == 17
    assert worker.pid == pid


def test_cancel_is_honoured_by_the_worker_which_stays_warm(make_worker, request_clip):
    worker, cancel = make_worker(), threading.Event()
    with pytest.raises(RenderCancelled):
        worker.run(replace(request_clip, prompt="slow", num_inference_steps=500), lambda event: cancel.set(), cancel)
    pid = worker.pid
    assert worker.run(replace(request_clip, id="r2")).id == "r2"
    assert worker.pid == pid


def test_a_worker_that_ignores_a_cancel_is_killed(make_worker, request_clip):
    worker, cancel = make_worker(cancel_seconds=0.3), threading.Event()
    worker.start()
    cancel.set()
    with pytest.raises(RenderCancelled, match="was ended"):
        worker.run(replace(request_clip, prompt="hang"), cancel=cancel)
    assert not worker.alive


def test_babble_on_the_pipe_ends_the_worker(make_worker, request_clip):
    with pytest.raises(WorkerDied, match=r"broke the protocol.*hello there"):
        make_worker().run(replace(request_clip, prompt="babble"))


def test_an_exception_of_the_listener_passes_and_leaves_no_stale_events(make_worker, request_clip):
    worker = make_worker()

    def listener(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.run(request_clip, listener)
    assert worker.run(replace(request_clip, id="r2")).id == "r2"


def test_an_idle_worker_gives_its_memory_back(make_worker, request_clip):
    worker = make_worker(idle_seconds=0.2)
    worker.run(request_clip)
    deadline = time.monotonic() + 5
    while worker.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.alive
    assert worker.run(request_clip).frames == 17


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_the_worker_ends_with_its_host(tmp_path):
    script = (
        "import sys, os, signal; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from deforum_helpers.worker_client import Worker; from deforum_helpers.worker_log import WorkerLog\n"
        "w = Worker([sys.executable, sys.argv[3]], os.environ, log=WorkerLog(Path(sys.argv[4])))\n"
        "print(w.start().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    scripts = FAKE.parents[2] / "scripts"
    command = [sys.executable, "-c", script, str(scripts), str(FAKE.parent), str(FAKE), str(tmp_path / "log")]
    pid = int(subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout)
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc").is_dir()
    return state != "Z"


def test_exit_codes_in_words():
    assert describe_exit(-signal.SIGKILL) == "killed (SIGKILL), probably out of memory"
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-1073741819) == "exit code -1073741819, access violation"


def test_the_log_is_bounded_and_keeps_the_last_words(tmp_path):
    log = WorkerLog(tmp_path / "worker.log")
    for _ in range(30):
        log.add("x" * 100_000)
    log.add("the end\n\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_500_000
    assert log.last_line() == "the end"
