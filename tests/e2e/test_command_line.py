"""The command line with the real worker, from a plain shell."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from deforum_helpers.video.ffmpeg import count_frames

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "scripts" / "deforum_wan.py"


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ENTRY), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def test_render_from_a_shell_ends_with_the_path_of_the_video(settings_file, tmp_path):
    render = start("render", settings_file(), "--out", tmp_path / "out")
    out, err = render.communicate(timeout=300)
    assert render.returncode == 0, err
    assert count_frames(out.splitlines()[-1]) == 24
    assert "clip 3 of 3" in err


@pytest.mark.skipif(os.name == "nt", reason="signals as a POSIX terminal sends them")
def test_ctrl_c_stops_after_the_step_and_resume_goes_on(settings_file, tmp_path):
    file, out = settings_file(steps=40), tmp_path / "out"
    render = start("render", file, "--out", out)
    for line in render.stderr:
        if "clip 2 of 3  step" in line:
            render.send_signal(signal.SIGINT)
            break
    output, err = render.communicate(timeout=120)
    assert render.returncode == 130, err
    assert count_frames(output.strip()) == 9
    resumed = start("render", file, "--out", out, "--resume")
    output, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert "1 of 3 clips are done already" in err
    assert count_frames(output.strip()) == 24


@pytest.mark.skipif(os.name == "nt", reason="signals as a POSIX terminal sends them")
def test_a_second_ctrl_c_leaves_at_once(settings_file, tmp_path):
    render = start("render", settings_file(steps=1000), "--out", tmp_path / "out")
    for line in render.stderr:
        if "loading" in line:
            render.send_signal(signal.SIGINT)
        if "stopping" in line:
            render.send_signal(signal.SIGINT)
            break
    _, err = render.communicate(timeout=30)
    assert render.returncode == 130
    assert "error: interrupted; --resume goes on" in err
    assert "stopped" not in err  # that would be the orderly way
    assert "Traceback" not in err


def test_what_the_worker_refuses_is_one_line(settings_file, tmp_path):
    render = start("render", settings_file(device="cuda:99"), "--out", tmp_path / "out", "--quiet")
    out, err = render.communicate(timeout=120)
    assert render.returncode in (2, 3, 4)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize("file", ["diffusion_pytorch_model.safetensors", "vae.safetensors"])
def test_weights_that_are_no_numbers_are_named_before_the_first_step(file, settings_file, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "demo", model)
    content = bytearray((model / file).read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    content[-2:] = b"\x00\x7e"  # NaN in float16, in the last tensor
    (model / file).write_bytes(content)
    render = start("render", settings_file(), "--model", model, "--out", tmp_path / "out", "--quiet")
    out, err = render.communicate(timeout=120)
    assert (render.returncode, out, err.count("\n")) == (3, "", 1), err
    assert err.startswith(f"error: {model / file}: tensor '{name}' holds NaN or infinity; download the file again")
    assert not [*tmp_path.glob("out/**/*.latents.safetensors")]
