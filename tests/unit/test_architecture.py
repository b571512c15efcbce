"""The floors are kept, no file is too long, nothing happens at import.  What the floors are: tests/floors.py."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors import (
    BELOW,
    MODULES,
    PACKAGE,
    PACKAGES,
    ROOT,
    floor_of,
    import_in_fresh_interpreter,
    module_names,
    top_name,
)

LONGEST_FILE = 450
# The parts of the worker know neither the pipeline nor the process around them.
WORKER_TOPS = {"wan_flow_matching", "wan_worker"}

OWN_FILES = [
    path
    for pattern in ("*.py", "scripts/**/*.py", "tests/**/*.py", "demo/**/*.py", "tools/**/*.py", "bench/**/*.py")
    for path in sorted(ROOT.glob(pattern))
]


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
    assert floor, "it stands on no floor: give it its place in tests/floors.py"
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


def test_the_host_side_imports_without_torch_and_without_doing_anything() -> None:
    found = import_in_fresh_interpreter(module_names("contract", "logic", "host"))
    assert found == {"acts": [], "heavy": [], "webui": []}


def test_the_face_imports_without_torch_and_without_doing_anything() -> None:
    found = import_in_fresh_interpreter(module_names("face"), beforehand=("fastapi", "gradio"))
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
