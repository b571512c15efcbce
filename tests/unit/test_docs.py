"""The README says what is there: its file tree, its commands and its Python example are checked."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tool():
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_tree_is_true() -> None:
    assert _tool().with_tree(README) == README, "run: python tools/write_docs.py --write"


def test_every_line_of_the_tree_has_a_purpose() -> None:
    without = [name for name, purpose in _tool().rows(ROOT) if not purpose and not name.strip().endswith("/")]
    assert not without


NAMED = re.compile(r"(?<![\w/])(?:docs|examples|bench|tests|demo|models/demo|tools)/[\w./-]+\w")


@pytest.mark.parametrize("path", sorted(set(NAMED.findall(README))))
def test_paths_named_in_the_readme_exist(path: str) -> None:
    assert (ROOT / path).exists(), path


def test_the_settings_page_is_true() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == _tool().settings_page(), "run: python tools/write_docs.py --write"


def test_the_speed_page_is_true() -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert page == _tool().speed_page(), "run: python tools/write_docs.py --write"


def test_the_table_of_models_is_true() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == _tool().with_variants(page), "run: python tools/write_docs.py --write"


def test_nothing_large_is_tracked() -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = [name for name in listed.decode().split("\0") if name and (ROOT / name).exists()]
    assert not [name for name in names if (ROOT / name).stat().st_size > 8_000_000]
