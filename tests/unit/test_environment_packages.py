"""Which torch, which words for pip, which fault; and the pins themselves."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path

import pytest
from deforum_helpers.environment import packages as packages
from deforum_helpers.environment.faults import fault_from_oserror, fault_from_output
from deforum_helpers.environment.venv import run_command
from deforum_helpers.errors import SetupError
from deforum_helpers.wan_isolated_env import EXTENSION_ROOT, clean_environment

PIN = "torch==2.13.0"
PLAIN = ["pip", "install", PIN]


def index(name: str) -> list[str]:
    return [*PLAIN, "--extra-index-url", f"https://download.pytorch.org/whl/{name}"]


@pytest.mark.parametrize(
    ("system", "driver", "env", "plan"),
    [
        ("Linux", None, {}, PLAIN),
        ("Linux", 580, {}, PLAIN),
        ("Linux", 550, {}, index("cu126")),
        ("Windows", None, {}, PLAIN),
        ("Windows", 591, {}, index("cu130")),
        ("Windows", 566, {}, index("cu126")),
        ("Darwin", None, {}, PLAIN),
        ("Linux", 580, {"TORCH_INDEX_URL": "http://mirror/cpu"}, [*PLAIN, "--extra-index-url", "http://mirror/cpu"]),
        ("Windows", 591, {"TORCH_INDEX_URL": " "}, index("cu130")),
        ("Windows", 591, {"TORCH_COMMAND": "pip install torch-directml"}, ["pip", "install", "torch-directml"]),
        ("Linux", None, {"TORCH_COMMAND": "pip install 'torch < 3'", "TORCH_INDEX_URL": "x"},
         ["pip", "install", "torch < 3"]),
        ("Windows", None, {"TORCH_COMMAND": r'pip install "C:\my files\torch.whl"'},
         ["pip", "install", r"C:\my files\torch.whl"]),
    ],
)  # fmt: skip
def test_torch_is_chosen_by_system_gpu_and_wish(
    system: str, driver: int | None, env: dict[str, str], plan: list[str]
) -> None:
    assert packages.torch_install_plan(system, driver, env, PIN) == plan


def test_a_wish_for_torch_is_told_apart_from_none() -> None:
    assert packages.torch_wish({"TORCH_COMMAND": " ", "OTHER": "x"}) == ""
    assert packages.torch_wish({"TORCH_INDEX_URL": "u"}) == "TORCH_INDEX_URL=u"
    assert packages.torch_wish({"TORCH_COMMAND": "c", "TORCH_INDEX_URL": "u"}) == "TORCH_COMMAND=c"


def test_pip_keeps_mirrors_and_loses_what_misplaces_packages() -> None:
    env = packages.pip_environment({"PIP_TARGET": "/t", "PIP_USER": "1", "PIP_INDEX_URL": "m", "HTTPS_PROXY": "p"})
    assert not {"PIP_TARGET", "PIP_USER"} & set(env)
    assert (env["PIP_INDEX_URL"], env["HTTPS_PROXY"]) == ("m", "p")
    assert packages.install_words({"INDEX_URL": "http://m"}, "x")[-2:] == ["--index-url", "http://m"]
    assert "--index-url" not in packages.install_words({}, "x")


def test_torch_is_parted_from_the_other_requirements() -> None:
    pin, rest = packages.split_torch("# all\ntorch==2.13.0\ntorchsde==1\nnumpy==2\n")
    assert (pin, rest) == ("torch==2.13.0", "# all\ntorchsde==1\nnumpy==2\n")
    with pytest.raises(SetupError, match="one line for torch"):
        packages.split_torch("numpy==2\n")


@pytest.mark.parametrize(
    ("version", "old"), [("2.13.0+cpu", False), ("2.6.0", False), ("2.5.1+cu121", True), ("1.13", True), ("", True)]
)
def test_torch_before_the_oldest_that_works_is_refused(version: str, old: bool) -> None:
    assert packages.too_old_torch(version) == old


def test_pips_words_become_a_few_lines() -> None:
    told: list[str] = []
    progress = packages.PipProgress(told.append, seconds=0)
    for line in (
        "Looking in indexes: x", "Collecting torch==2.13.0", "  Downloading torch-2.13.0-cp311-x.whl (900 MB)",
        "Progress 0 of 900000000", "Progress 450000000 of 900000000", "Requirement already satisfied: numpy in x",
        "Installing collected packages: a, b, c", "  Attempting uninstall: a", "Successfully installed a-1", "",
        "ERROR: broken",
    ):  # fmt: skip
        progress(line)
    assert told == [
        "  torch: 0 of 900 MB (0 %)", "  torch: 450 of 900 MB (50 %)", "  unpacking: a, b, c", "  ERROR: broken"
    ]  # fmt: skip
    quiet = packages.PipProgress(told.append)
    quiet("  Downloading small-1.0-py3-none-any.whl (9 kB)")
    quiet("Progress 5 of 9000")
    assert len(told) == 4, "a small file is through before a line about it is due"


def make_package(site_packages: Path, name: str, content: bytes = b"x = 1\n") -> Path:
    info = site_packages / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site_packages / f"{name}.py").write_bytes(content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows = [f"{name}.py,sha256={digest},{len(content)}", f"__pycache__/{name}.pyc,,", f"{info.name}/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    return info


def test_half_installed_packages_lose_their_records(tmp_path: Path) -> None:
    for name in ("whole", "truncated", "fileless", "recordless", "altered"):
        make_package(tmp_path, name)
    (tmp_path / "truncated.py").write_bytes(b"x")
    (tmp_path / "fileless.py").unlink()
    (tmp_path / "recordless-1.0.dist-info" / "RECORD").unlink()
    (tmp_path / "altered.py").write_bytes(b"x = 2\n")
    (tmp_path / "~hole").mkdir()
    assert packages.forget_broken_packages(tmp_path) == ["fileless", "recordless", "truncated"]
    assert packages.forget_broken_packages(tmp_path) == []
    assert packages.forget_broken_packages(tmp_path, thorough=True) == ["altered"]
    assert [info.name for info in tmp_path.glob("*.dist-info")] == ["whole-1.0.dist-info"]
    assert not (tmp_path / "~hole").exists()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 2] ... enable Windows Long Path support",
         "DEFORUM_WAN_ENV to a short folder"),
        ("[WinError 5] Access is denied: 'torch_cpu.dll'", "close the WebUI"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/x'", "can't be written"),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "check this machine's clock"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "check the network"),
        ("ERROR: Cannot install a and b because these package versions have conflicting dependencies.",
         "got 'ERROR: Cannot install a and b"),
        ("gradio 6.31.0 has requirement pydantic>=2, but you have pydantic 1.10.", "packages contradict each other"),
        ("ERROR: No matching distribution found for torch==2.13.0", "64-bit Python 3.10 to 3.13"),
        ("zipfile.BadZipFile: File is not a zip file", "pip cache purge"),
        ("ERROR: Failed building wheel for x", "can't be compiled"),
        ("ImportError: DLL load failed while importing _C", "Visual C++ Redistributable"),
        ("ImportError: libgomp.so.1: cannot open shared object file", "missing or too old"),
        ("something that nobody foresaw", "see "),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_a_next_step_and_the_log(said: str, words: str, tmp_path: Path) -> None:
    error = fault_from_output("installing torch", ["Collecting x", said], 1, tmp_path / "build.log")
    text = str(error)
    assert words in text
    assert "build.log" in text
    assert "\n" not in text
    assert error.exit_code == 3


def test_the_cause_is_told_and_not_its_consequence(tmp_path: Path) -> None:
    output = ["WARNING: Retrying after NewConnectionError", "ERROR: No matching distribution found for six"]
    assert "can't be reached" in str(fault_from_output("installing torch", output, 1, tmp_path))
    output = ["WARNING: Retrying (Retry(total=0, connect=None))", "ERROR: a and b have conflicting dependencies"]
    assert "can't be reached" in str(fault_from_output("installing torch", output, 1, tmp_path))
    assert "memory ran out" in str(fault_from_output("installing torch", ["Collecting x"], -9, tmp_path))
    assert "torch (got 7)" not in str(fault_from_oserror("set-up", OSError(28, "No space left on device"), tmp_path))


def wheel(folder: Path, name: str, requires: str = "") -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        more = f"Requires-Dist: {requires}\n" if requires else ""
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\n{tags}")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--index-url", "http://127.0.0.1:9/simple", "--retries", "1", "six"], "the package index can't be reached"),
        (["--no-index", "--find-links", ".", "left", "right"], "packages contradict each other"),
        (["--no-index", "--find-links", ".", "nowhere"], "no file of a package"),
    ],
)
def test_a_real_pips_words_are_understood(words: list[str], fault: str, tmp_path: Path) -> None:
    wheel(tmp_path, "left", "middle==1.0")
    wheel(tmp_path, "right", "middle==2.0")
    wheel(tmp_path, "middle")
    output: list[str] = []
    env = {**packages.pip_environment(clean_environment()), "PIP_CONFIG_FILE": "/dev/null"}
    env = {name: value for name, value in env.items() if name not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")}
    command = [sys.executable, "-m", "pip", "install", "--target", "out", *words]
    code = run_command(command, env, output.append, folder=tmp_path)
    assert code != 0
    assert fault in str(fault_from_output("installing", output, code, tmp_path / "build.log"))


# The pins.


def pins(*names: str) -> list[tuple[str, str, str]]:
    """(package, version, marker) of every line; a line of another form fails."""
    found = []
    for name in names:
        for line in (EXTENSION_ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                parts = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ?; (.+))?", line)
                assert parts, f"{name}: not pinned: {line}"
                found.append((parts[1].lower().replace("_", "-"), parts[2], parts[3] or ""))
    return found


def holds(marker: str, python: str) -> bool:
    from packaging.markers import Marker

    env = {
        "python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux",
        "platform_machine": "x86_64",
    }  # fmt: skip
    return not marker or Marker(marker).evaluate(env)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_package_has_one_pin_on_each_python(python: str) -> None:
    for names in (("requirements.txt", "requirements-test.txt"), ("constraints.txt",)):
        chosen = [package for package, _, marker in pins(*names) if holds(marker, python)]
        assert len(chosen) == len(set(chosen))
    versions: dict[str, str] = {}
    for package, version, marker in pins("requirements.txt", "requirements-test.txt", "constraints.txt"):
        if holds(marker, python):
            assert versions.setdefault(package, version) == version, f"two pins of {package}"
    assert {"torch", "transformers", "safetensors", "gradio", "numpy", "pytest"} <= set(versions)
