"""install.py from outside: run by a person, by a WebUI, by an old Python; and the files that a WebUI picks up."""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deforum_helpers import install_command
from deforum_helpers import wan_isolated_env as isolated

ROOT = isolated.EXTENSION_ROOT
RUNNING = "{}.{}.{}".format(*sys.version_info[:3])


def install(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DEFORUM_WAN_PYTHON")}
    return subprocess.run(
        [sys.executable, str(ROOT / "install.py"), *arguments], env={**env, **more}, capture_output=True, text=True
    )


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """The folder of a WebUI, as far as it tells itself apart."""
    folder = tmp_path / "webui"
    (folder / "modules").mkdir(parents=True)
    (folder / "launch.py").touch()
    return folder


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """An environment that counts as ready for this repository's requirements."""
    root = tmp_path / "environment"
    python = isolated.venv_python(root / "venv")
    python.parent.mkdir(parents=True)
    try:
        python.symlink_to(sys.executable)
    except OSError:
        pytest.skip("no right to make symbolic links")
    isolated.write_stamp(root, {"render": isolated.fingerprint("render", RUNNING)}, RUNNING, "2.13.0", "the default")
    return root


def test_ready_is_a_matter_of_a_moment(ready: Path) -> None:
    started = time.perf_counter()
    done = install(DEFORUM_WAN_ENV=str(ready))
    seconds = time.perf_counter() - started
    print(f"install.py when ready: {seconds:.2f} s")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"Deforum Wan: ready \(Python .*, torch 2\.13\.0\) in .* \[0\.\d\d s\]\n", done.stdout)
    assert seconds < 1


@pytest.mark.parametrize("state", ["missing", "ready", "unreadable"])
def test_a_webui_gets_one_line_at_once_and_never_a_failure(
    state: str, webui: Path, ready: Path, tmp_path: Path
) -> None:
    folder = {"missing": tmp_path / "none", "ready": ready, "unreadable": ready}[state]
    if state == "unreadable":
        (ready / isolated.STAMP_NAME).write_bytes(b"\xff\xfe{")
    started = time.perf_counter()
    done = install(PYTHONPATH=f"{webui}{os.pathsep}", DEFORUM_WAN_ENV=str(folder), TORCH_COMMAND="pip install torch==2")
    seconds = time.perf_counter() - started
    print(f"install.py at a launch, {state}: {seconds:.2f} s")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    words = {"missing": "is missing", "ready": "is ready", "unreadable": "is partial"}[state]
    assert words in done.stdout, "a WebUI's own TORCH_COMMAND must not make ours stale"
    assert ("install.py" in done.stdout) == (state != "ready")
    assert seconds < 1, "0.3 s is what a launch may lose; three times that is for a busy machine"
    assert folder.exists() == (state != "missing")


def test_a_person_in_a_webuis_folder_is_no_webui(webui: Path) -> None:
    def called(arguments: list[str], path: str) -> bool:
        return install_command.called_by_webui(arguments, {"PYTHONPATH": path})

    assert called([], str(webui))
    assert called([], f"/elsewhere{os.pathsep}{webui}")
    assert not called(["--status"], str(webui))
    assert not called([], "")
    assert not called([], str(webui.parent))


def test_status_says_what_there_is(tmp_path: Path, ready: Path) -> None:
    done = install("--status", DEFORUM_WAN_ENV=str(tmp_path / "none"))
    assert done.returncode == 3
    assert "render: missing: it was never set up" in done.stdout
    done = install("--status", DEFORUM_WAN_ENV=str(ready))
    assert done.returncode == 0
    assert "test: partial: its test packages are not installed" in done.stdout


def test_errors_are_one_line_with_their_exit_status(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    done = install(DEFORUM_WAN_ENV=str(tmp_path))
    assert done.returncode == 3
    assert re.fullmatch(r"Deforum Wan: the environment's folder holds other files; got .*\n", done.stderr)
    assert install("--nonsense").returncode == 2


def test_the_installer_is_readable_for_old_pythons() -> None:
    ast.parse((ROOT / "install.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_demo_and_tests_run_in_the_isolated_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], env: dict[str, str], cwd: Path) -> int:
        calls.append((command, env))
        return 5 if "pytest" in command else 0

    monkeypatch.setattr(install_command.subprocess, "call", call)
    monkeypatch.setattr(install_command, "EXAMPLE", tmp_path / "demo.txt")
    monkeypatch.setenv("PYTHONPATH", "/host")
    (tmp_path / "demo.txt").touch()
    assert install_command.run_demo(Path("/env/python")) == 0
    assert install_command.run_tests(Path("/env/python"), ["--", "-k", "x"]) == 5
    assert calls[0][0][:3] == ["/env/python", str(ROOT / "scripts" / "deforum_wan.py"), "render"]
    assert calls[-1][0] == ["/env/python", "-m", "pytest", "-k", "x"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(install_command.os, "cpu_count", lambda: 4)
    install_command.run_tests(Path("/env/python"))
    assert calls[-1][0][2:5] == ["pytest", "-n", "2"] and calls[-1][1]["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(install_command.os, "cpu_count", lambda: 1)
    install_command.run_tests(Path("/env/python"))
    assert calls[-1][0][2:] == ["pytest"]
    assert all("PYTHONPATH" not in env for _, env in calls)


def test_ci_runs_the_documented_command_and_nothing_else_of_ours() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "install.py" in line] == ['"$python" install.py --test']
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"


# What a WebUI picks up.


def load_preload() -> object:
    spec = importlib.util.spec_from_file_location("preload.py", ROOT / "preload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def preload_of_the_original(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deforum-api", action="store_true", default=None)
    parser.add_argument("--deforum-run-now", type=str, default=None)
    parser.add_argument("--deforum-terminate-after-run-now", action="store_true", default=None)


@pytest.mark.parametrize("order", ["alone", "before the original", "after the original"])
def test_flags_work_beside_the_original_deforum(order: str) -> None:
    parser = argparse.ArgumentParser()
    ours = load_preload().preload  # type: ignore[attr-defined]
    for preload in {
        "alone": [ours], "before the original": [ours, preload_of_the_original],
        "after the original": [preload_of_the_original, ours],
    }[order]:  # fmt: skip
        preload(parser)
    words = "--deforum-api --deforum-run-now a.txt,b.txt --deforum-terminate-after-run-now --deforum-wan-models /m"
    found = parser.parse_args(words.split())
    assert (found.deforum_api, found.deforum_run_now, found.deforum_wan_models) == (True, "a.txt,b.txt", "/m")
    assert found.deforum_terminate_after_run_now is True
    nothing = parser.parse_args([])
    assert not any((nothing.deforum_api, nothing.deforum_run_now, nothing.deforum_wan_env))
    assert "maybewritten--deforum-run-now)" in "".join(parser.format_help().split())


def test_a_second_copy_of_this_extension_does_not_stop_the_host() -> None:
    parser = argparse.ArgumentParser()
    ours = load_preload().preload  # type: ignore[attr-defined]
    ours(parser)
    ours(parser)
    assert parser.parse_args(["--deforum-wan-env", "/e"]).deforum_wan_env == "/e"


def test_the_metadata_names_the_extension() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "metadata.ini", encoding="utf-8")
    assert parser["Extension"]["Name"] == "deforum-wan"


def test_the_license_is_the_whole_agpl() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:8] == ["GNU", "AFFERO", "GENERAL", "PUBLIC", "LICENSE", "Version", "3,", "19"]
    assert "13. Remote Network Interaction" in text
    assert text.rstrip().endswith("<https://www.gnu.org/licenses/>.")
    assert len(text.splitlines()) == 661
