"""Processes that work on one queue are killed at random points: no job lost, none run twice, no file damaged.

As a test, a few hundred kills.  By hand, thousands, also on a real disk:

    python tests/e2e/test_queue_kills.py --kills 5000 --folder /some/where --seed 7

Several processes add, claim, render (a few milliseconds of nothing), finish, move, cancel and delete on one database.
Half of them are killed from outside after a random time, half kill themselves after a random number of steps of
SQLite's own machine, which lands inside transactions.  Each writes to a ledger what it is about to do and what was
acknowledged; afterwards the ledger and the database must agree.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from deforum_helpers.errors import InputError, RenderCancelled
from deforum_helpers.job_queue import Ending, Job, JobQueue, NewJob, Search
from deforum_helpers.queue_runner import Report, StopSignal, start_runner
from deforum_helpers.settings import RenderSettings

fcntl = pytest.importorskip("fcntl")  # nor has Windows fork

MEMORY = Path("/dev/shm")
SETTINGS = RenderSettings(prompts={"0": "hills"}, seed=1)
PROCESSES = 3
BUSY_AT_MOST = 25  # waiting jobs; beyond that nothing is added
KEPT_AT_LEAST = 200  # finished ones; beyond that some are deleted


class Ledger:
    """Lines of what happens, in the order of happening, whoever is killed: one write each, to the file's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]


# One process that will be killed


def work_until_killed(folder: Path, seed: int) -> None:
    dice, ledger = random.Random(seed), Ledger(folder / "ledger")
    queue = JobQueue(folder / "jobs.db")
    try:
        queue.version()
        if dice.random() < 0.5:
            kill_inside_sqlite(queue, dice)
        while True:
            queue.recover()
            dice.choice((add, run, run, run, arrange, tidy))(queue, dice, ledger)
    except BaseException as error:
        ledger("ERROR", os.getpid(), type(error).__name__, *str(error).split())
        raise


def kill_inside_sqlite(queue: JobQueue, dice: random.Random) -> None:
    left = dice.randrange(1, 6000)

    def step() -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    queue._db._connection.set_progress_handler(step, 1)


def add(queue: JobQueue, dice: random.Random, ledger: Ledger) -> None:
    if queue.counts()["pending"] > BUSY_AT_MOST:
        return
    names = [f"{os.getpid()}.{dice.randrange(10**9)}" for _ in range(dice.choice((1, 1, 3)))]
    ledger("adding", *names)
    jobs = queue.add_many([NewJob(SETTINGS, name) for name in names], first=dice.random() < 0.2)
    for job in jobs:
        ledger("added", job.id, job.name)


def run(queue: JobQueue, dice: random.Random, ledger: Ledger) -> None:
    job = queue.claim()
    if job is None:
        return
    with (queue.path.parent / f"run {job.id}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of by the system when we are killed
        except BlockingIOError:
            ledger("TWICE", job.id)
            return
        ledger("claimed", job.id, job.claim, job.attempts)
        queue.record_files(job, {"timestring": f"t{job.id}"})
        time.sleep(dice.random() * 0.003)
        asked = queue.beat(job, '{"fraction": 0.5}')
        if asked is None:
            ledger("LOST", job.id, job.claim)
        state = "cancelled" if asked == "now" else dice.choice(("done", "done", "done", "failed"))
        ledger("finishing", job.id, job.claim, state)
        queue.finish(job, Ending(state))
        ledger("finished", job.id, job.claim, state)


def arrange(queue: JobQueue, dice: random.Random, ledger: Ledger) -> None:
    """Others work on the same rows: what was waiting a moment ago may not be any more."""
    jobs = queue.waiting()
    if not jobs:
        return
    one, two = dice.choice(jobs).id, dice.choice(jobs).id
    try:
        match dice.randrange(4):
            case 0 if one != two:
                queue.move(one, before=two)
            case 1:
                queue.run_next(one)
            case 2:
                queue.rename(one, queue.job(one).name)
            case 3:
                queue.cancel(one)
    except InputError:
        ledger("refused", one)


def tidy(queue: JobQueue, dice: random.Random, ledger: Ledger) -> None:
    try:
        if dice.random() < 0.5:
            failed = [job.id for job in queue.search(Search(states=("failed", "cancelled"), limit=20)).jobs]
            for job_id in failed:
                ledger("requeueing", job_id)
            queue.requeue(*failed)
        else:
            done = queue.search(Search(states=("done",), order="oldest", limit=20)).jobs
            for job in done if queue.counts()["done"] > KEPT_AT_LEAST else ():
                ledger("deleting", job.id, job.name)
                queue.delete(job.id)
    except InputError:
        ledger("refused", 0)


# The one that kills them


def storm(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Keep PROCESSES children at work and kill them, one by one.  Returns figures."""
    dice, children, left = random.Random(seed), [], kills
    with closing(JobQueue(folder / "jobs.db")) as queue:
        queue.set_options(at_once=64, auto_resume=True, most_attempts=1000)
    while left or children:
        while left and len(children) < PROCESSES:
            children.append(fork(folder, dice.randrange(2**32)))
            left -= 1
        time.sleep(dice.choice((0.0, dice.expovariate(1 / 0.02), dice.expovariate(1 / 0.06))))
        victim = children.pop(dice.randrange(len(children)))
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"a process ended by itself: {status}"
        if left % 250 == 0:
            check_file(folder / "jobs.db")
    drain(folder)
    return check(folder)


def fork(folder: Path, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work_until_killed(folder, seed)
        finally:
            os._exit(1)
    return pid


def drain(folder: Path) -> None:
    """After the storm one process in peace finishes everything there is."""
    ledger, dice = Ledger(folder / "ledger"), random.Random(0)
    with closing(JobQueue(folder / "jobs.db")) as queue:
        queue.recover()
        while queue.counts()["pending"]:
            run(queue, dice, ledger)


def check_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [file.name for file in path.parent.iterdir() if "damaged" in file.name or "salvag" in file.name] == []


def check(folder: Path) -> Counter[str]:
    """The ledger against the database."""
    check_file(folder / "jobs.db")
    lines = Ledger(folder / "ledger").lines()
    with closing(JobQueue(folder / "jobs.db")) as queue:
        jobs = {job.id: job for job in queue.search(Search(limit=1_000_000)).jobs}
        assert queue.notices() == []
    wrong = [line for line in lines if line[0] in ("TWICE", "LOST", "ERROR")]
    assert wrong == [], wrong[:5]
    gone = {int(line[1]) for line in lines if line[0] == "deleting"}
    added = {int(line[1]): line[2] for line in lines if line[0] == "added"}
    lost = {job_id: name for job_id, name in added.items() if job_id not in gone and job_id not in jobs}
    assert lost == {}, f"acknowledged and gone: {lost}"
    assert all(jobs[job_id].name == name for job_id, name in added.items() if job_id in jobs)
    assert {job.state for job in jobs.values()} <= {"done", "failed", "cancelled"}, "something was left behind"
    check_groups(lines, {job.name for job in jobs.values()}, {line[2] for line in lines if line[0] == "deleting"})
    check_runs(lines, jobs)
    figures = Counter(line[0] for line in lines)
    figures["rows at the end"] = len(jobs)
    figures["runs broken off"] = figures["claimed"] - figures["finished"]
    return figures


def check_groups(lines: list[list[str]], present: set[str], deleted: set[str]) -> None:
    """Jobs added together are all there, acknowledged or not, or none is."""
    for line in lines:
        if line[0] == "adding":
            here = {name in present or name in deleted for name in line[1:]}
            assert len(here) == 1, f"a part of a transaction: {line}"


def check_runs(lines: list[list[str]], jobs: dict[int, Job]) -> None:
    done: set[str] = set()
    claims: dict[str, set[str]] = {}
    requeued = {line[1] for line in lines if line[0] == "requeueing"}
    for number, line in enumerate(lines):
        match line:
            case ["claimed", job_id, claim, _]:
                assert job_id not in done, f"line {number}: job {job_id} was done and ran again"
                assert claim not in claims.setdefault(job_id, set()), f"line {number}: one claim for two"
                claims[job_id].add(claim)
            case ["finished", job_id, _, "done"]:
                assert job_id not in done, f"line {number}: job {job_id} was finished twice"
                done.add(job_id)
    for job in jobs.values():
        assert job.state == "done" or str(job.id) not in done, f"job {job.id} was done and is {job.state}"
        if str(job.id) not in requeued:
            assert job.attempts >= len(claims.get(str(job.id), ())), "an attempt was forgotten"


def figures_of(kills: int, folder: Path | None, seed: int) -> Counter[str]:
    root = folder or (MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir()))
    work = Path(tempfile.mkdtemp(prefix="queue-kills-", dir=root))
    try:
        figures = storm(work, kills, seed)
    except BaseException:
        print(f"what it left: {work}", file=sys.stderr)
        raise
    shutil.rmtree(work)
    return figures


# As tests


def test_killed_at_random_points_nothing_is_lost_and_nothing_runs_twice():
    command = [sys.executable, __file__, "--kills", "150", "--seed", str(random.randrange(10**6))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def test_after_a_power_cut_everything_acknowledged_is_there(folder):
    """synchronous=FULL: what was acknowledged is in the synced part of the log; the rest may be torn anywhere."""
    dice, sizes = random.Random(5), []
    path = folder / "jobs.db"
    with closing(JobQueue(path)) as queue:
        assert queue._db.write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == 2
        queue.version()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        start = path.read_bytes()
        log = path.with_name("jobs.db-wal")
        for number in range(40):
            queue.add(SETTINGS, name=f"job {number}")
            if number % 3 == 0:
                queue.finish(queue.claim(), Ending("done"))
            sizes.append(log.stat().st_size)
        assert path.read_bytes() == start, "nothing may have been copied back yet for this to be a power cut"
        whole = log.read_bytes()
    for trial in range(60):
        kept = dice.randrange(len(sizes) - 1)
        cut = dice.randrange(sizes[kept], sizes[kept + 1] + 1)
        copy = folder / f"{trial}" / "jobs.db"
        copy.parent.mkdir()
        copy.write_bytes(start)
        torn = dice.choice((b"", bytes(5000), dice.randbytes(5000)))
        copy.with_name("jobs.db-wal").write_bytes(whole[:cut] + torn)
        with closing(JobQueue(copy)) as queue:
            names = [job.name for job in queue.search(Search(order="oldest", limit=100)).jobs]
            assert set(names) >= {f"job {number}" for number in range(kept + 1)}
            assert len(names) <= kept + 2 and queue.notices() == []
        check_file(copy)
        shutil.rmtree(copy.parent)


CLIPS = 6


def be_a_webui(folder: Path) -> None:
    """A process with a runner, as a WebUI has it.  Its render makes clips of 20 ms and skips those that exist."""

    def render(job: Job, report: Report, stop: StopSignal) -> dict[str, str]:
        place = folder / (job.timestring or f"t{job.id}")
        place.mkdir(exist_ok=job.resume)
        report.files(folder=place, timestring=place.name)
        for clip in range(CLIPS):
            report({"clip": clip})
            if (place / f"clip {clip}").exists():
                continue
            if stop.wait(0.02):
                raise RenderCancelled("stopped")
            Ledger(folder / "clips")("clip", job.id, clip, os.getpid())
            (place / f"clip {clip}").touch()
        return {"video": str(place / "video.mp4")}

    queue = JobQueue(folder / "jobs.db")
    start_runner(queue, render, poll_seconds=0.1)
    while True:
        counts = queue.counts()
        if not counts["pending"] and not counts["running"]:
            return
        time.sleep(0.02)


def test_a_webui_that_is_killed_goes_on_from_its_finished_clips(folder):
    dice, clips, kills = random.Random(3), Ledger(folder / "clips"), 4
    with closing(JobQueue(folder / "jobs.db")) as queue:
        queue.set_options(auto_resume=True, most_attempts=100)
        ids = [job.id for job in queue.add_many([NewJob(SETTINGS, f"job {n}") for n in range(6)])]
        for kill in range(kills + 1):
            process = subprocess.Popen([sys.executable, __file__, "--webui", str(folder)])
            deadly = len(clips.lines()) + dice.randrange(1, 8)
            while kill < kills and len(clips.lines()) < deadly:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.005)
            if kill < kills:
                process.kill()
            process.wait(timeout=120)
        assert [queue.job(job_id).state for job_id in ids] == ["done"] * len(ids)
    made = Counter((line[1], line[2]) for line in clips.lines())
    assert set(made) == {(str(job_id), str(clip)) for job_id in ids for clip in range(CLIPS)}
    assert sum(made.values()) - len(made) <= kills, "at most the clip in work is made again"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the database lies; default: in memory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--webui", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.webui:
        be_a_webui(given.webui)
        return 0
    begun = time.monotonic()
    figures = figures_of(given.kills, given.folder, given.seed)
    print(f"{given.kills} kills in {time.monotonic() - begun:.0f} s, seed {given.seed}: nothing lost, nothing twice")
    print(", ".join(f"{name} {count}" for name, count in sorted(figures.items())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
