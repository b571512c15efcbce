"""The floors: who may import whom and what, how long a file may be, and that nothing happens at import.

    face      the command lines, the tab, the API
    host      the isolated environment, the worker's client, a render
    logic     schedules, timeline, queue, files, video
    contract  errors, settings, protocol, variants, weights files      everyone may import these
    worker    lives in the isolated environment and knows the contract only

Imports go downwards or along a floor.  Only the worker has torch; only the face has a WebUI's packages.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
PACKAGE = SCRIPTS / "deforum_helpers"
LONGEST_FILE = 450

# Module or folder -> floor.  A new file must find its place here.
FLOORS = {
    "contract": (
        "__init__", "deforum_files", "errors", "model_files", "protocol", "settings", "settings_fields", "variants",
    ),
    "logic": (
        "atomic_files", "builtin_presets", "checkpoints", "expressions", "ffmpeg", "frames", "in_between", "job_files",
        "job_queue", "manifest", "optical_flow", "presets", "progress", "prompts", "queue_runner", "queue_store",
        "retiming", "schedules", "seeds", "stream", "subtitles", "timeline", "video_io",
    ),
    "host": (
        "clips", "environment_build", "environment_faults", "environment_lock", "environment_packages",
        "environment_venv", "output", "preflight", "render_wan", "wan_integration", "wan_isolated_env",
        "worker_client", "worker_log",
    ),
    "face": (
        "api", "cli", "cli_plan", "cli_progress", "cli_render", "gradio_compat", "install_command", "ui_elements",
        "web",
    ),
    "worker": ("wan", "wan_flow_matching", "wan_worker"),
}  # fmt: skip
BELOW = {
    "contract": {"contract"},
    "logic": {"logic", "contract"},
    "host": {"host", "logic", "contract"},
    "face": {"face", "host", "logic", "contract"},
    "worker": {"worker", "contract"},
}
# Packages beside the standard library.  numpy and Pillow are in every host.
_HOST_PACKAGES = {"numpy", "PIL", "imageio_ffmpeg"}
PACKAGES = {
    "contract": set(),
    "logic": _HOST_PACKAGES,
    "host": _HOST_PACKAGES,
    "face": {*_HOST_PACKAGES, "gradio", "fastapi", "starlette", "pydantic", "modules", "uvicorn"},
    "worker": {
        "numpy", "PIL", "torch", "safetensors", "transformers", "tokenizers", "sentencepiece", "ftfy", "regex",
        "einops", "gguf",
    },
}  # fmt: skip
# The parts of the worker know neither the pipeline nor the process around them.
WORKER_TOPS = {"wan_flow_matching", "wan_worker"}

MODULES = sorted(PACKAGE.rglob("*.py"))
OWN_FILES = [
    path
    for pattern in ("*.py", "scripts/**/*.py", "tests/**/*.py", "demo/**/*.py", "tools/**/*.py", "bench/**/*.py")
    for path in sorted(ROOT.glob(pattern))
]


def top_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(name: str) -> str:
    found = [floor for floor, names in FLOORS.items() if name in names]
    assert found, f"deforum_helpers/{name} stands on no floor: give it its place in FLOORS"
    return found[0]


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Every import in a file, those inside functions too: (line, dotted name, whether it is one of this package)."""
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                ours = alias.name.split(".")[0] == "deforum_helpers"
                yield node.lineno, alias.name.removeprefix("deforum_helpers."), ours
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            for alias in node.names:
                yield node.lineno, ".".join((*base, node.module or alias.name)), True
        elif isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module.split(".")[0] == "deforum_helpers"
            yield node.lineno, node.module.removeprefix("deforum_helpers."), ours


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_downwards(path: Path) -> None:
    floor = floor_of(top_name(path))
    wrong = []
    for line, name, ours in imports(path):
        first = name.split(".")[0]
        if ours and floor_of(first) not in BELOW[floor]:
            wrong.append(f"line {line}: {floor} imports {name} of {floor_of(first)}")
        elif ours and top_name(path) == "wan" and first in WORKER_TOPS:
            wrong.append(f"line {line}: a part imports {name}")
        elif not ours and first not in sys.stdlib_module_names and first not in PACKAGES[floor]:
            wrong.append(f"line {line}: {floor} may not import {name}")
    assert wrong == []


@pytest.mark.parametrize("path", OWN_FILES, ids=named)
def test_no_file_is_too_long(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE, "part it where its ideas part"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_only_defines_things(path: Path) -> None:
    """No call for its own sake, and no change of sys.path or the environment, at the top of a module."""
    acts = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            acts.append(f"line {node.lineno}: {ast.unparse(node)}")
        targets = [ast.unparse(target) for target in getattr(node, "targets", [])]
        if any(target.startswith(("os.environ", "sys.path", "torch.")) for target in targets):
            acts.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert acts == []


# Imports every host-side module while an audit hook listens for what an import must not do.
_PROBE = """
import importlib, json, os, sys
scripts, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, scripts)
before, path, acts = dict(os.environ), list(sys.path), []

def listen(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        acts.append(f"writes {args[0]}")
    elif event in ("os.mkdir", "os.remove", "os.rename", "subprocess.Popen", "os.system", "socket.connect"):
        acts.append(f"{event} {args[:2]}")

sys.addaudithook(listen)
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("gradio", "fastapi", "modules", "pydantic"):
            raise
if dict(os.environ) != before: acts.append("changes os.environ")
if sys.path != path: acts.append("changes sys.path")
loaded = lambda *names: sorted(set(names) & set(sys.modules))
print(json.dumps({
    "acts": acts, "heavy": loaded("torch", "transformers", "safetensors", "diffusers"),
    "webui": loaded("gradio", "fastapi", "pydantic"),
}))
"""


def import_in_fresh_interpreter(names: list[str]) -> dict[str, list[str]]:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(SCRIPTS), json.dumps(names)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def module_names(*floors: str) -> list[str]:
    return [
        ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if floor_of(top_name(path)) in floors
    ]


def test_the_host_side_imports_without_torch_and_without_doing_anything() -> None:
    found = import_in_fresh_interpreter(module_names("contract", "logic", "host"))
    assert found == {"acts": [], "heavy": [], "webui": []}


def test_the_face_imports_without_torch_and_without_doing_anything() -> None:
    found = import_in_fresh_interpreter(module_names("face"))
    assert (found["acts"], found["heavy"]) == ([], [])


def test_the_worker_imports_without_doing_anything() -> None:
    pytest.importorskip("torch")
    assert import_in_fresh_interpreter(module_names("worker"))["acts"] == []


@pytest.mark.parametrize("module", ["wan_flow_matching", "wan_isolated_env", "wan_integration", "render_wan"])
def test_the_promised_names_are_there(module: str) -> None:
    assert (PACKAGE / f"{module}.py").is_file()


def test_nothing_names_a_place_on_the_machine_it_was_written_on() -> None:
    """Absolute paths of somebody's machine are wrong on every other one."""
    foreign = re.compile(r"(?<![\w.~-])/(?:work|root|home/[a-z]+)/")
    found = []
    for path in _text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if foreign.search(line):
                found.append(f"{named(path)}:{number}: {line.strip()[:100]}")
    assert found == []


def _text_files() -> list[Path]:
    suffixes = {".py", ".md", ".txt", ".toml", ".ini", ".json", ".js", ".css", ".sh", ".yml", ".cfg", ""}
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive
        return [path for path in OWN_FILES if path.is_file()]
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.suffix in suffixes and path.is_file()]
