"""Building: what is run in which order, what breaks off and goes on, who waits for whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from deforum_helpers.environment import build as environment_build
from deforum_helpers.environment import venv as environment_venv
from deforum_helpers.environment.build import build
from deforum_helpers.environment.lock import build_lock
from deforum_helpers.environment.venv import choose_interpreter, run_command
from deforum_helpers.errors import SetupError
from deforum_helpers.wan_isolated_env import SCRIPTS, check, read_stamp, venv_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fakes stand on symbolic links and shell scripts")
ENV = {"PATH": os.environ.get("PATH", "")}


class FakeMachine:
    """Stands in for every process of a build: makes virtual environments, answers questions, fails where told."""

    def __init__(self, fail_at: str = "", says: str = "ERROR: broken", raises: BaseException | None = None) -> None:
        self.fail_at, self.says, self.raises, self.commands = fail_at, says, raises, list[str]()

    def __call__(self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
        text = " ".join(command)
        self.commands.append(text)
        assert "PYTHONPATH" not in env
        if self.fail_at and self.fail_at in text:
            on_line(self.says)
            if self.raises is not None:
                raise self.raises
            return 1
        if Path(command[-1]).name == "venv":
            self._make_venv(Path(command[-1]))
        elif "m.version('torch')" in text:
            on_line("2.13.0")
        elif "import json, torch" in text:
            on_line('{"torch": "2.13.0", "gpu": ""}')
        return 0

    def _make_venv(self, venv: Path) -> None:
        venv_python(venv).parent.mkdir(parents=True)
        venv_python(venv).symlink_to(sys.executable)

    def ran(self, words: str) -> int:
        return sum(words in command for command in self.commands)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / "requirements.txt").write_text("torch==2.13.0\nnumpy==2.4.6\n")
    (folder / "requirements-test.txt").write_text("pytest==9.2.0\n")
    (folder / "constraints.txt").write_text("six==1.17.0\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "environment"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_build, "nvidia_driver", lambda: None)


def silent(line: str) -> None:
    assert "\n" not in line


def test_a_build_goes_step_by_step_and_then_not_again(root: Path, project: Path) -> None:
    machine, lines = FakeMachine(), list[str]()
    python = build(root, report=lines.append, env=ENV, run=machine, folder=project)
    assert python == venv_python(root / "venv")
    assert check(root, folder=project).ready
    order = ["-m venv", "install --progress-bar off pip==", "install torch==2.13.0", " -r ", "import json", "pip check"]
    places = [next(i for i, command in enumerate(machine.commands) if words in command) for words in order]
    assert places == sorted(places)
    assert lines[0] == "[1/5] virtual environment"
    assert "torch==" not in (root / "requirements.txt").read_text()
    assert machine.ran(f"torch==2.13.0 -r {root / 'requirements.txt'} -c {project / 'constraints.txt'}") == 1

    again, started = FakeMachine(), time.perf_counter()
    build(root, report=lines.append, env=ENV, run=again, folder=project)
    print(f"no-op: {time.perf_counter() - started:.4f} s")
    assert again.commands == []


def test_nothing_is_installed_into_the_running_interpreter(root: Path, project: Path) -> None:
    machine = FakeMachine()
    build(root, ("render", "test"), report=silent, env=ENV, run=machine, folder=project)
    mine = [command for command in machine.commands if not command.startswith(str(root))]
    assert mine == [f"{sys.executable} -m venv {root / 'venv'}"]


def test_the_test_tools_are_a_layer_above(root: Path, project: Path) -> None:
    build(root, report=silent, env=ENV, run=FakeMachine(), folder=project)
    machine = FakeMachine()
    build(root, ("render", "test"), report=silent, env=ENV, run=machine, folder=project)
    assert machine.ran("requirements-test.txt") == 1
    assert machine.ran("install torch") == machine.ran("-m venv") == 0
    assert check(root, "render", folder=project).ready
    assert check(root, "test", folder=project).ready


@pytest.mark.parametrize("raises", [None, KeyboardInterrupt()])
@pytest.mark.parametrize(
    "broken_at", ["-m venv", "pip==", "install torch", "m.version", "requirements.txt", "import json", "pip check"]
)
def test_a_broken_off_build_is_gone_on_with(
    broken_at: str, raises: BaseException | None, root: Path, project: Path
) -> None:
    def attempt(machine: FakeMachine) -> None:
        build(root, report=silent, env=ENV, run=machine, folder=project)

    always = "venv" if broken_at == "-m venv" else broken_at  # no other way to make one may succeed either
    with pytest.raises(SetupError if raises is None else KeyboardInterrupt):
        attempt(FakeMachine(fail_at=always, raises=raises))
    assert not check(root, folder=project).ready
    machine = FakeMachine()
    attempt(machine)
    assert check(root, folder=project).ready
    assert machine.ran("-m venv") == (1 if broken_at == "-m venv" else 0), "what was there was made anew"


def test_a_failure_names_cause_next_step_and_log(root: Path, project: Path) -> None:
    machine = FakeMachine(fail_at="install torch", says="OSError: [Errno 28] No space left on device")
    with pytest.raises(SetupError, match=r"the disk is full \(installing torch\).*make room.*build\.log"):
        build(root, report=silent, env=ENV, run=machine, folder=project)
    assert "No space left" in (root / "build.log").read_text()


def test_what_the_report_raises_stops_the_build(root: Path, project: Path) -> None:
    def stop(line: str) -> None:
        if "torch" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(root, report=stop, env=ENV, run=FakeMachine(), folder=project)
    assert check(root, folder=project).status == "partial"


def test_changed_requirements_install_anew_in_place(root: Path, project: Path) -> None:
    build(root, report=silent, env=ENV, run=FakeMachine(), folder=project)
    (project / "requirements.txt").write_text("torch==2.14.0\nnumpy==2.4.6\n")
    machine = FakeMachine()
    build(root, report=silent, env=ENV, run=machine, folder=project)
    assert machine.ran("install torch==2.14.0") == 1
    assert machine.ran("-m venv") == 0


def test_torch_command_is_taken_whole_and_recorded(root: Path, project: Path) -> None:
    env = {**ENV, "TORCH_COMMAND": "pip install torch==2.12.0 torch-directml"}
    machine = FakeMachine()
    build(root, report=silent, env=env, run=machine, folder=project)
    assert f"{venv_python(root / 'venv')} -m pip install torch==2.12.0 torch-directml" in machine.commands
    assert machine.ran("pip check") == 0
    assert read_stamp(root)["torch_choice"] == "TORCH_COMMAND=pip install torch==2.12.0 torch-directml"
    again = FakeMachine()
    build(root, report=silent, env=ENV, run=again, folder=project)
    assert again.commands == [], "without a wish the choice on record stands"
    build(root, report=silent, env={**ENV, "TORCH_INDEX_URL": "http://m"}, run=again, folder=project)
    assert again.ran("--extra-index-url http://m") == 1


def test_too_old_a_torch_is_refused_at_once(root: Path, project: Path) -> None:
    class OldTorch(FakeMachine):
        def __call__(self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
            if "m.version('torch')" in " ".join(command):
                on_line("2.1.2+cu121")
                return 0
            return super().__call__(command, env, on_line)

    env = {**ENV, "TORCH_COMMAND": "pip install torch==2.1.2"}
    with pytest.raises(SetupError, match=r"too old; got '2\.1\.2\+cu121'; allowed: 2\.6 or newer; unset TORCH_COMMAND"):
        build(root, report=silent, env=env, run=OldTorch(), folder=project)


def test_a_repair_mends_and_else_builds_from_scratch(root: Path, project: Path) -> None:
    build(root, report=silent, env=ENV, run=FakeMachine(), folder=project)
    machine = FakeMachine()
    build(root, report=silent, repair=True, env=ENV, run=machine, folder=project)
    assert machine.ran("-m venv") == 0
    assert machine.ran("install torch") == 1

    class BadOnce(FakeMachine):
        def __call__(self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
            if "import json, torch" in " ".join(command) and not self.ran("-m venv"):
                on_line("ImportError: torch is half there")
                return 1
            return super().__call__(command, env, on_line)

    machine = BadOnce()
    build(root, report=silent, repair=True, env=ENV, run=machine, folder=project)
    assert machine.ran("-m venv") == 1
    assert check(root, folder=project).ready


@pytest.mark.parametrize("kind", ["folder of others", "file"])
def test_a_place_that_is_not_ours_is_left_alone(kind: str, root: Path, project: Path) -> None:
    if kind == "file":
        root.write_text("mine")
    else:
        root.mkdir()
        (root / "thesis.txt").write_text("mine")
    with pytest.raises(SetupError, match="DEFORUM_WAN_ENV"):
        build(root, report=silent, env=ENV, run=FakeMachine(), folder=project)
    assert (root if kind == "file" else root / "thesis.txt").read_text() == "mine"


def test_too_little_room_is_told_before_anything_is_fetched(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 9 * 10**9, 10**9))
    machine = FakeMachine()
    with pytest.raises(SetupError, match=r"too little room; got '1\.0 GB free"):
        build(root, report=silent, env=ENV, run=machine, folder=project)
    assert machine.ran("install") == 0


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path, project: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"can't be made or written; got .*DEFORUM_WAN_ENV"):
        build(tmp_path / "file" / "environment", report=silent, env=ENV, run=FakeMachine(), folder=project)


# The virtual environment.


@pytest.mark.parametrize(
    ("fails", "way"),
    [
        (("-m venv ",), "/bin/uv venv --seed --python"),
        (("-m venv ", "uv venv"), "-m virtualenv"),
        (("-m venv ", "uv venv", "-m virtualenv"), "runpy.run_module('virtualenv'"),
    ],
)
def test_without_the_venv_module_another_tool_makes_it(
    fails: tuple[str, ...], way: str, root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lacking(FakeMachine):
        def __call__(self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
            if any(words in " ".join(command) for words in fails):
                self.commands.append(" ".join(command))
                on_line("No module named ensurepip")
                return 1
            return super().__call__(command, env, on_line)

    monkeypatch.setattr(environment_venv.shutil, "which", lambda name: f"/bin/{name}")
    machine, lines = Lacking(), list[str]()
    build(root, report=lines.append, env=ENV, run=machine, folder=project)
    assert machine.ran(way) == 1
    assert "  not by venv: No module named ensurepip" in lines
    assert not (root / "tools").exists()


def test_no_way_to_make_one_names_what_to_install(root: Path, project: Path) -> None:
    machine = FakeMachine(fail_at="venv", says="No module named ensurepip")
    with pytest.raises(SetupError, match=r"neither uv nor virtualenv.*got 'No module named ensurepip'; .*python3-venv"):
        build(root, report=silent, env=ENV, run=machine, folder=project)
    assert not (root / "venv").exists()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("prints", "words"),
    [
        ("echo 3.9.18", r"got 'Python 3\.9\.18'; allowed: Python 3\.10 to 3\.13; set DEFORUM_WAN_PYTHON"),
        ("echo 3.14.0", r"got 'Python 3\.14\.0'"),
        ("exit 1", r"DEFORUM_WAN_PYTHON can't be started"),
    ],
)
def test_a_wrong_python_is_told_with_the_right_ones(prints: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=words):
        choose_interpreter({"DEFORUM_WAN_PYTHON": script(tmp_path / "python", prints)})


def test_a_named_python_is_built_upon(tmp_path: Path, root: Path, project: Path) -> None:
    named = tmp_path / "named"
    named.symlink_to(sys.executable)
    machine = FakeMachine()
    build(root, report=silent, env={**ENV, "DEFORUM_WAN_PYTHON": str(named)}, run=machine, folder=project)
    assert machine.commands[0].startswith(f"{named} -m venv")


# Processes and the lock.


def test_a_command_is_ended_with_its_reader(tmp_path: Path) -> None:
    seen: list[str] = []

    def stop(line: str) -> None:
        seen.append(line)
        raise RuntimeError("enough")

    started = time.monotonic()
    with pytest.raises(RuntimeError):
        run_command(["/bin/sh", "-c", "echo one; exec sleep 60"], dict(os.environ), stop)
    assert time.monotonic() - started < 10
    assert seen == ["one"]
    assert run_command([str(tmp_path / "nothing")], {}, seen.append) == 127


HOLD = """
import sys, time
sys.path.insert(0, {scripts!r})
from pathlib import Path
from deforum_helpers.environment.lock import build_lock
with build_lock(Path({lock!r}), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_builder_waits_or_is_refused_and_a_dead_ones_lock_is_gone(tmp_path: Path) -> None:
    lock, lines = tmp_path / "build.lock", list[str]()
    code = HOLD.format(scripts=str(SCRIPTS), lock=str(lock))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(SetupError, match=rf"another set-up is at work.*process {holder.pid} since"),
            build_lock(lock, silent, wait=False),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        with build_lock(lock, lines.append, poll_seconds=0.05):
            assert str(os.getpid()) in lock.read_text()


def test_the_builder_that_waited_finds_the_work_done(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine()
    real_lock = environment_build.build_lock

    def lock_after_another(*args: object, **more: object) -> object:
        monkeypatch.setattr(environment_build, "build_lock", real_lock)
        build(root, report=silent, env=ENV, run=FakeMachine(), folder=project)
        return real_lock(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(environment_build, "build_lock", lock_after_another)
    build(root, report=silent, env=ENV, run=machine, folder=project)
    assert machine.commands == []
