"""The command line: what goes to stdout, what to stderr, the exit status; without a real worker."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from deforum_helpers import cli, cli_render
from deforum_helpers.cli_progress import ProgressPrinter, describe
from deforum_helpers.errors import WorkerDied
from deforum_helpers.progress import Progress
from fake_worker import FakeRenderer

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
SETTINGS = {"W": 32, "H": 16, "max_frames": 20, "fps": 16, "seed": 3, "batch_name": "batch", "model": str(DEMO),
            "prompts": {"0": "a red ball", "10": "a boat --neg fog"}, "ffmpeg_preset": "ultrafast"}  # fmt: skip


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """settings(**changes) -> a file; the command line renders with a fake and keeps no state of the user's."""
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(cli_render, "shared_worker", FakeRenderer)

    def write(name="settings.txt", **changes):
        path = tmp_path / name
        path.write_text(json.dumps({**SETTINGS, **changes}))
        return str(path)

    return write


def run(capsys, *words):
    """(exit status, stdout, stderr)"""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as left:
        status = left.code
    out, err = capsys.readouterr()
    return status, out, err


def test_render_prints_the_video_and_nothing_else(settings, capsys, tmp_path):
    status, out, err = run(capsys, "render", settings(), "--out", tmp_path / "out")
    assert status == 0
    assert out.count("\n") == 1
    assert Path(out.strip()).is_relative_to(tmp_path / "out" / "batch")
    assert Path(out.strip()).suffix == ".mp4"
    assert "clip 2 of 2" in err
    assert "20 frames in" in err


def test_quiet_is_quiet(settings, capsys, tmp_path):
    status, out, err = run(capsys, "render", settings(), "--out", tmp_path / "out", "--quiet")
    assert (status, out.count("\n"), err) == (0, 1, "")


def test_changes_reach_the_render(settings, capsys, tmp_path):
    status, out, _ = run(capsys, "render", settings(), "--out", tmp_path, "--set", "max_frames=7", "--set", "W=48")
    assert status == 0
    assert len(list(Path(out.strip()).parent.glob("*.png"))) == 7


def test_several_files_are_a_batch_and_a_failure_spares_the_rest(settings, capsys, tmp_path, monkeypatch):
    died = FakeRenderer({0: WorkerDied("it died"), 1: WorkerDied("it died")})
    monkeypatch.setattr(cli_render, "shared_worker", lambda: died)
    status, out, err = run(capsys, "render", settings("a.txt"), settings("b.txt"), "--out", tmp_path / "out")
    assert status == 4
    assert out.count(".mp4\n") == 1
    assert "a.txt: it died; the same command with --resume goes on from here" in err


def test_a_batch_is_checked_whole_before_any_of_it_is_rendered(settings, capsys, tmp_path):
    status, out, err = run(capsys, "render", settings("a.txt"), settings("b.txt", W=33), "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.startswith("error: width: must be a multiple of 16")
    assert not (tmp_path / "out").exists()


def test_a_failed_render_says_how_to_go_on_and_resume_does(settings, capsys, tmp_path, monkeypatch):
    died = FakeRenderer({1: WorkerDied("it died"), 2: WorkerDied("it died")})
    monkeypatch.setattr(cli_render, "shared_worker", lambda: died)
    file = settings()
    status, out, err = run(capsys, "render", file, "--out", tmp_path / "out", "--quiet")
    assert (status, out) == (4, "")
    assert err == "error: it died; the same command with --resume goes on from here\n"
    fresh = FakeRenderer()
    monkeypatch.setattr(cli_render, "shared_worker", lambda: fresh)
    status, out, _ = run(capsys, "render", file, "--out", tmp_path / "out", "--resume")
    assert status == 0
    assert len(fresh.requests) == 1
    status, _, err = run(capsys, "render", file, "--out", tmp_path / "out", "--resume")
    assert status == 2
    assert "no unfinished job" in err
    timestring = Path(out.strip()).stem
    status, again, _ = run(capsys, "render", file, "--out", tmp_path / "out", "--resume-job", timestring)
    assert (status, again) == (0, out)


def test_a_stop_keeps_what_is_finished_and_exits_130(settings, capsys, tmp_path, monkeypatch):
    class Stopping(FakeRenderer):
        def run(self, request, on_event=None, cancel=None):
            if self.requests:
                os.kill(os.getpid(), 2)
            return super().run(request, on_event, cancel)

    monkeypatch.setattr(cli_render, "shared_worker", Stopping)
    status, out, err = run(capsys, "render", settings(), "--out", tmp_path / "out")
    assert status == 130
    assert Path(out.strip()).is_file()
    assert "10 of 20 frames" in err
    assert "--resume goes on" in err


BAD = {
    "no such file": (["render", "{dir}/none.txt"], 2, "can't be read"),
    "malformed JSON": (["render", "{broken}"], 2, "line 1"),
    "unknown setting": (["render", "{good}", "--set", "max_frame=3"], 2, "did you mean max_frames"),
    "no value": (["render", "{good}", "--set", "max_frames"], 2, "KEY=VALUE"),
    "fps 0": (["render", "{good}", "--set", "fps=0"], 2, "fps"),
    "fps NaN": (["render", "{good}", "--set", "fps=nan"], 2, "fps"),
    "max_frames 0": (["plan", "{good}", "--set", "max_frames=0"], 2, "max_frames"),
    "huge max_frames": (["plan", "{good}", "--set", "max_frames=99999999999"], 2, "max_frames"),
    "odd width": (["render", "{good}", "--set", "W=33"], 2, "multiple of 16"),
    "unknown solver": (["render", "{good}", "--set", "solver=magic"], 2, "euler"),
    "malformed schedule": (["plan", "{good}", "--set", "guidance_scale=0: (1"], 2, "guidance_scale"),
    "divides by zero": (["plan", "{good}", "--set", "guidance_scale=0: (1/(t-3))"], 2, "guidance_scale"),
    "takes for ever": (["plan", "{good}", "--set", "guidance_scale=0: (9**9**9**9)"], 2, "guidance_scale"),
    "no prompts": (["plan", "{good}", "--set", "prompts={}"], 2, "prompt set is empty"),
    "no sound": (["render", "{good}", "--set", "soundtrack={good}"], 2, "no audio"),
    "batch_name": (["render", "{good}", "--set", "batch_name=../x"], 2, "batch_name"),
    "output folder": (["render", "{good}", "--out", "{good}/out"], 2, "output folder"),
    "no such model": (["render", "{good}", "--model", "{dir}/nothing"], 3, "model"),
    "truncated weights": (["render", "{good}", "--model", "{truncated}"], 3, "diffusion_pytorch_model"),
    "missing weights": (["render", "{good}", "--model", "{partial}"], 3, "VAE"),
    "pickle with code": (["render", "{good}", "--model", "{pickle}"], 3, "pickle"),
    "no command": ([], 2, "COMMAND"),
    "unknown option": (["render", "{good}", "--nonsense"], 2, "--nonsense"),
    "no folder": (["check-model", "{dir}/nothing"], 3, "doesn't exist"),
    "two and a job": (["render", "{good}", "{good}", "--resume-job", "1"], 2, "one settings file"),
    "no unfinished job": (["render", "{good}", "--resume"], 2, "no unfinished job"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_its_exit_status_and_leaves_nothing(settings, capsys, tmp_path, name):
    words, expected, said = BAD[name]
    places = _bad_places(settings, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    words = [word.format(**places) if word != "prompts={}" else word for word in words]
    if words[:1] == ["render"] and "--out" not in words:
        words += ["--out", str(tmp_path / "out")]
    status, out, err = run(capsys, *words)
    assert (status, out) == (expected, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path != tmp_path / "out"] == []


def _bad_places(settings, tmp_path) -> dict[str, str]:
    (tmp_path / "broken.txt").write_text('{"W": 32,, }')
    folders = {name: tmp_path / name for name in ("truncated", "partial", "pickle")}
    for folder in folders.values():
        folder.mkdir()
    weights = (DEMO / "diffusion_pytorch_model.safetensors").read_bytes()
    (folders["partial"] / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    (folders["truncated"] / "diffusion_pytorch_model.safetensors").write_bytes(weights[: len(weights) // 2])
    with zipfile.ZipFile(folders["pickle"] / "diffusion_pytorch_model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"cposix\nsystem\n(S'touch hacked'\ntR.")
    places = {name: str(folder) for name, folder in folders.items()}
    return {"dir": str(tmp_path), "good": settings(), "broken": str(tmp_path / "broken.txt"), **places}


def test_plan_as_a_table(settings, capsys):
    status, out, _ = run(capsys, "plan", settings())
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["clip", "frames"]
    assert lines[2].startswith("   1  10-19")
    assert "20 frames, 1.25 s at 16 fps, 32x16, 2 clips in 1 shot" in lines[-1]


def test_plan_as_json_has_what_a_program_needs(settings, capsys):
    status, out, _ = run(capsys, "plan", settings(), "--json")
    plan = json.loads(out)
    assert status == 0
    assert (plan["fps"], plan["max_frames"]) == (16, 20)
    assert [(clip["start_frame"], clip["end_frame"]) for clip in plan["clips"]] == [(0, 10), (10, 20)]
    wanted = {"index", "start_frame", "end_frame", "num_frames", "prompt", "negative_prompt", "guidance_scale", "seed"}
    assert wanted <= set(plan["clips"][1])
    assert plan["clips"][1]["negative_prompt"] == "fog"
    assert all(clip["num_frames"] % 4 == 1 for clip in plan["clips"])
    assert {len(values) for values in plan["schedules"].values()} == {20}
    assert {"guidance_scale", "strength", "shift", "seed"} <= set(plan["schedules"])


def test_plan_looks_at_the_pictures(settings, capsys):
    status, _, errors = run(capsys, "plan", settings(), "--set", "init_image=none.png")
    assert status == 2 and "init_image: there is no such picture; got 'none.png'; check the path" in errors


def test_plan_for_a_model_that_is_not_here(settings, capsys):
    status, out, _ = run(capsys, "plan", settings(), "--json", "--model", "wan2.1-t2v-14B")
    assert status == 0
    assert json.loads(out)["variant"] == "wan2.1-t2v-14B"


def test_notes_of_a_plan_go_to_stderr(settings, capsys):
    status, out, err = run(capsys, "plan", settings(prompts={"0": "a", "99": "late"}), "--json")
    assert status == 0
    json.loads(out)
    assert "note: prompts" in err


def test_check_model(capsys):
    status, out, err = run(capsys, "check-model", DEMO)
    assert (status, err) == (0, "")
    assert "complete" in out
    status, out, _ = run(capsys, "check-model", DEMO, "--json", "--hashes")
    assert status == 0
    report = json.loads(out)
    assert (report["variant"], report["complete"]) == ("demo", True)
    assert all(len(entry["sha256"]) == 64 for entry in report["hashes"])


def test_check_model_of_a_broken_one_reports_and_exits_3(settings, capsys, tmp_path):
    _bad_places(settings, tmp_path)
    status, out, err = run(capsys, "check-model", tmp_path / "truncated")
    assert status == 3
    assert "NOT complete" in out or "no known model" in out
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_paths_of_a_settings_file_are_looked_for_beside_it(settings, capsys, tmp_path, monkeypatch):
    import numpy as np
    from deforum_helpers.video.frames import write_png

    write_png(tmp_path / "start.png", np.zeros((16, 32, 3), np.uint8))
    worker = FakeRenderer()
    monkeypatch.setattr(cli_render, "shared_worker", lambda: worker)
    status, _, err = run(capsys, "render", settings(init_image="start.png", use_init=True), "--out", tmp_path / "out")
    assert status == 0, err
    assert worker.requests[0].init_image == str(tmp_path / "start.png")


def test_an_unexpected_fault_is_one_line_and_whole_with_debug(settings, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_render, "check_render", lambda *a, **k: 1 / 0)
    status, _, err = run(capsys, "render", settings(), "--out", tmp_path)
    assert status == 4
    assert err.count("\n") == 1
    assert "ZeroDivisionError" in err
    _, _, err = run(capsys, "render", settings(), "--out", tmp_path, "--debug")
    assert "Traceback" in err


def script(*words, python=(), **environment):
    return subprocess.run(
        [sys.executable, *python, str(ROOT / "scripts" / "deforum_wan.py"), *map(str, words)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}, encoding="utf-8",
    )  # fmt: skip


def test_the_script_plans_without_torch(settings):
    done = script("plan", settings(prompts={"0": "ein grüner Hügel, 山"}), PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "grüner Hügel, 山" in done.stdout
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as left: sys.exit(left.code or 10 * ('torch' in sys.modules))"
    )
    words = [sys.executable, "-c", code, str(ROOT / "scripts" / "deforum_wan.py"), "plan", settings()]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_python_without_numpy_needs_the_isolated_one(settings, tmp_path):
    done = script("plan", settings(), python=["-S"], DEFORUM_WAN_ENV=str(tmp_path / "environment"))
    assert done.returncode == 3
    assert done.stderr.startswith("error: the isolated environment is missing")
    assert "install.py" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_render_without_the_environment_says_how_to_get_it(settings, tmp_path):
    done = script("render", settings(), "--out", tmp_path / "out", DEFORUM_WAN_ENV=str(tmp_path / "environment"),
                  DEFORUM_WAN_WORKER_PYTHON="")  # fmt: skip
    assert done.returncode == 3
    assert "install.py" in done.stderr
    assert not list((tmp_path / "out").rglob("*"))


def test_the_entry_takes_our_package_where_another_one_has_its_name(settings, tmp_path):
    decoy = tmp_path / "decoy" / "deforum_helpers"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise ImportError('the other Deforum')")
    done = script("plan", settings(), PYTHONPATH=str(decoy.parent))
    assert done.returncode == 0, done.stderr


PROGRESS = Progress("sampling", 0.43, 3, 7, 12, 30, 1.9, 250.0)


def test_progress_in_words():
    assert describe(PROGRESS) == " 43%  clip 3 of 7  step 12 of 30  1.90 s/step  4 min 10 s left"


def test_a_terminal_gets_one_line_that_is_redrawn():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    printer = ProgressPrinter(terminal)
    printer(PROGRESS)
    printer(PROGRESS)
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().startswith("\r[==========--------------]  43%")
    printer.say("a note")
    assert terminal.getvalue().endswith("\ra note\n")


def test_a_file_gets_a_line_per_phase():
    file = io.StringIO()
    printer = ProgressPrinter(file)
    for step in range(5):
        printer(Progress("sampling", 0.1, 1, 2, step, 5))
    printer(Progress("decoding", 0.2, 1, 2, 5, 5))
    assert len(file.getvalue().splitlines()) == 2
