"""Where the environment is, what state it is in, how a process in it is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deforum_helpers import wan_isolated_env as isolated
from deforum_helpers.errors import SetupError

posix_only = pytest.mark.skipif(os.name == "nt", reason="stands on symbolic links and shell scripts")
RUNNING = "{}.{}.{}".format(*sys.version_info[:3])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the requirements files of an extension."""
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / "requirements.txt").write_text("torch==2.13.0\nnumpy==2.4.6\n")
    (folder / "requirements-test.txt").write_text("pytest==9.2.0\n")
    (folder / "constraints.txt").write_text("six==1.17.0\n")
    return folder


@pytest.fixture
def built(tmp_path: Path, project: Path) -> Path:
    """An environment that counts as ready: a python that starts, and a stamp."""
    root = tmp_path / "environment"
    python = isolated.venv_python(root / "venv")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    stamp(root, project)
    return root


def stamp(root: Path, project: Path, layers: tuple[isolated.Layer, ...] = ("render",)) -> None:
    prints = {layer: isolated.fingerprint(layer, RUNNING, project) for layer in layers}
    isolated.write_stamp(root, prints, RUNNING, "2.13.0", "the default")


def test_the_folder_is_the_extensions_own_unless_named(tmp_path: Path) -> None:
    assert isolated.environment_root(env={}) == isolated.EXTENSION_ROOT / "environment"
    assert isolated.environment_root(env={"DEFORUM_WAN_ENV": "  "}) == isolated.EXTENSION_ROOT / "environment"
    assert isolated.environment_root(env={"DEFORUM_WAN_ENV": str(tmp_path)}) == tmp_path
    assert isolated.environment_root(tmp_path / "b", env={"DEFORUM_WAN_ENV": str(tmp_path)}) == tmp_path / "b"
    assert isolated.environment_root(env={"DEFORUM_WAN_ENV": "~/wan"}) == Path.home() / "wan"


def test_only_what_decides_the_packages_enters_the_fingerprint(project: Path) -> None:
    before = isolated.fingerprint("render", "3.11.7", project)
    (project / "requirements.txt").write_bytes(b"# a remark\r\ntorch==2.13.0  # why\r\n\r\nnumpy==2.4.6\r\n")
    assert isolated.fingerprint("render", "3.11.9", project) == before
    (project / "requirements-test.txt").write_text("pytest==9.3.0\n")
    assert isolated.fingerprint("render", "3.11.7", project) == before, "users don't rebuild for the test tools"
    assert isolated.fingerprint("render", "3.12.1", project) != before
    (project / "constraints.txt").write_text("six==1.18.0\n")
    assert isolated.fingerprint("render", "3.11.7", project) != before


@posix_only
def test_every_state_has_its_reason(tmp_path: Path, project: Path, built: Path) -> None:
    def state(layer: isolated.Layer = "render", **more: str) -> str:
        found = isolated.check(built, layer, folder=project, **more)
        assert found.ready == (found.status == "ready")
        return found.one_line()

    assert isolated.check(tmp_path / "none", folder=project).one_line() == "missing: it was never set up"
    assert state().startswith(f"ready (Python {RUNNING}, torch 2.13.0)")
    assert state("test") == "partial: its test packages are not installed"
    assert "TORCH_COMMAND=pip install torch is asked for" in state(torch_wish="TORCH_COMMAND=pip install torch")

    (project / "requirements.txt").write_text("torch==2.14.0\n")
    assert state() == "stale: the required packages changed since it was built"
    stamp(built, project, ("render", "test"))
    assert state("test").startswith("ready")

    written = (built / isolated.STAMP_NAME).read_text()
    (built / isolated.STAMP_NAME).write_text(written.replace('"format": 1', '"format": 0'))
    assert state() == "stale: another version of this extension built it"
    for broken in ("", "{", "[]", '{"format": 1}'):
        (built / isolated.STAMP_NAME).write_text(broken)
        assert state() == "partial: its set-up was broken off"
    (built / isolated.STAMP_NAME).write_text(written)
    isolated.venv_python(built / "venv").unlink()
    assert "is gone" in state()


@posix_only
def test_a_replaced_interpreter_is_asked_for_its_version(built: Path, project: Path) -> None:
    python = isolated.venv_python(built / "venv")

    def replace(version: str) -> isolated.EnvironmentState:
        python.unlink()
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        return isolated.check(built, folder=project)

    minor = ".".join(RUNNING.split(".")[:2])
    assert replace(f"{minor}.99").ready, "a patch release leaves the packages working"
    assert replace("3.99.0").reason == f"its Python was {RUNNING} and is now 3.99.0"
    assert replace("; exit 1").reason == f"its Python was {RUNNING} and is now unable to start"


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"environment is missing: it was never set up; run: .*install\.py") as caught:
        isolated.find_isolated_python(tmp_path / "none")
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    with pytest.raises(SetupError):
        isolated.worker_command(root=tmp_path / "none")


def test_the_stamp_is_whole_or_absent(built: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (built / isolated.STAMP_NAME).unlink()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        stamp(built, project)
    assert not (built / isolated.STAMP_NAME).exists()


def test_the_worker_inherits_nothing_that_leads_it_astray() -> None:
    host = {
        "PATH": "/bin", "PYTHONPATH": "/host", "PYTHONHOME": "/h", "PYTHONSTARTUP": "x.py", "VIRTUAL_ENV": "/v",
        "PYTHONSAFEPATH": "1", "PYTHONPLATLIBDIR": "x", "PYTHONUSERBASE": "/u", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "x", "CUDA_VISIBLE_DEVICES": "1", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    env = isolated.worker_environment(host)
    gone = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTHONSAFEPATH", "PYTHONPLATLIBDIR"}
    assert not {*gone, "PYTHONUSERBASE"} & set(env)
    assert env["PYTHONNOUSERSITE"] == env["PYTHONUTF8"] == env["HF_HUB_OFFLINE"] == "1"
    for kept in ("PATH", "PYTHONDONTWRITEBYTECODE", "PYTORCH_CUDA_ALLOC_CONF", "CUDA_VISIBLE_DEVICES"):
        assert env[kept] == host[kept]
    assert host["PYTHONPATH"] == "/host"


@posix_only
def test_a_worker_starts_with_this_package_whatever_the_host_has(
    built: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = tmp_path / "host" / "deforum_helpers"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise ImportError('the host\\'s package')")
    monkeypatch.setenv("PYTHONPATH", str(decoy.parent))
    monkeypatch.setattr(isolated, "check", lambda root: isolated.EnvironmentState(
        "ready", "", built, isolated.venv_python(built / "venv"), {}
    ))  # fmt: skip
    command = isolated.worker_command(module="deforum_helpers.errors", root=built)
    assert command[0] == str(isolated.venv_python(built / "venv"))
    done = subprocess.run(
        command, cwd=isolated.SCRIPTS, env=isolated.worker_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_stamp_says_what_was_built(built: Path) -> None:
    content = json.loads((built / isolated.STAMP_NAME).read_text())
    assert (content["torch"], content["torch_choice"], content["python"]) == ("2.13.0", "the default", RUNNING)
