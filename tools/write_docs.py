#!/usr/bin/env python3
"""Writes the parts of the documentation that the code itself knows.

python tools/write_docs.py            print the file tree
python tools/write_docs.py --write    put it into README.md between its marks, write docs/settings.md and docs/speed.md
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- file tree: python tools/write_docs.py --write -->", "<!-- end of file tree -->"
VARIANTS_BEGIN = "<!-- variants: python tools/write_docs.py --write -->"
VARIANTS_END = "<!-- end of variants -->"

# Files and folders whose line can't be read off them.
SAID = {
    "LICENSE": "GNU Affero General Public License, version 3",
    "pyproject.toml": "project metadata, lint rules, test settings",
    "metadata.ini": "the extension's name, for the WebUI",
    "requirements.txt": "the isolated environment's pinned packages",
    "requirements-test.txt": "what the tests need besides",
    "constraints.txt": "pins of everything those bring along",
    "style.css": "the tab's looks, in every host",
    ".ci": "what continuous integration runs",
    "models/demo": "the bundled demo checkpoint, official layout, a few MB",
    "examples": "runnable settings files, each loaded by a test",
    "docs": "settings, models, API, pictures",
    "bench/continuity": "how well clips flow into each other: measure.py, and compare.py for all methods",
    "bench/results": "measured figures, with machine and versions",
    "tests/unit": "seconds, no torch",
    "tests/parity": "against the official code's recorded numbers, and diffusers",
    "tests/hosts": "the tab and the API in the gradio versions of the WebUIs",
    "tests/e2e": "the real worker process, kills, a real browser",
}
FOLDED = (
    "models/demo",
    "examples",
    "docs",
    "bench/results",
    "tests/unit",
    "tests/parity",
    "tests/hosts",
    "tests/e2e",
    ".ci",
)
SKIPPED = {"__pycache__", ".git", "environment", "outputs", ".pytest_cache", ".ruff_cache", ".hypothesis"}


def line_of(path: Path) -> str:
    """One line of purpose: SAID, a module's docstring, or a package's."""
    relative = path.relative_to(ROOT).as_posix()
    if relative in SAID:
        return SAID[relative]
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix == ".py" and source.exists():
        doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        return doc.splitlines()[0].rstrip(".") if doc else ""
    if source.suffix in (".js", ".mjs") and source.exists():
        return source.read_text(encoding="utf-8").splitlines()[0].lstrip("/* ").rstrip("*/ .")
    return ""


def rows(folder: Path, depth: int = 0) -> list[tuple[str, str]]:
    """(indented name, purpose) of everything below a folder that is worth a line."""
    out = []
    entries = sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name))
    for path in entries:
        relative = path.relative_to(ROOT).as_posix()
        if path.name in SKIPPED or path.name in ("__init__.py", "README.md", ".gitignore"):
            continue
        if path.is_dir():
            out.append(("  " * depth + path.name + "/", line_of(path)))
            if relative not in FOLDED:
                out += rows(path, depth + 1)
        elif path.suffix in (".py", ".js", ".css") or relative in SAID:
            out.append(("  " * depth + path.name, line_of(path)))
    return out


def tree() -> str:
    listed = rows(ROOT)
    width = max(len(name) for name, _ in listed) + 2
    return "\n".join(f"{name:{width}}{purpose}".rstrip() for name, purpose in listed)


def with_tree(readme: str) -> str:
    """The README with a fresh tree between its marks."""
    before, rest = readme.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n```\n{tree()}\n```\n{END}{after}"


def with_variants(page: str) -> str:
    """docs/models.md with a fresh table of the models between its marks."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from deforum_helpers.variants import DEMO, VARIANTS

    lines = ["| | steps | shift | guidance | size | fps, longest clip | starts from |", "| --- " * 7 + "|"]
    for row in VARIANTS.values():
        d = row.defaults
        guidance = f"{d.guidance_scale:g}" + (f", {d.low_noise_guidance_scale:g}" if row.experts else "")
        starts = {"text": row.text_input, "a picture": row.image_input, "first and last frame": row.last_image_input}
        cells = (
            row.title, f"{d.num_inference_steps}", f"{d.shift:g}", guidance, f"{d.width}x{d.height}",
            f"{row.native_fps:g}, {row.window_frames} frames", ", ".join(name for name, can in starts.items() if can),
        )  # fmt: skip
        if row.name != DEMO:
            lines.append("| " + " | ".join(cells) + " |")
    before, rest = page.split(VARIANTS_BEGIN, 1)
    _, after = rest.split(VARIANTS_END, 1)
    table = "\n".join(lines)
    return f"{before}{VARIANTS_BEGIN}\n\n{table}\n\n{VARIANTS_END}{after}"


def settings_page() -> str:
    """docs/settings.md: every field of RenderSettings by group."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from deforum_helpers.settings import FIELDS

    lines = [
        "# Settings",
        "",
        "Every field of a settings file, of `--set`, of the API and of the tab.  A file is one flat JSON object;",
        "Deforum's own files load, and the names they use are accepted everywhere.  Written by tools/write_docs.py.",
    ]
    group = ""
    for name, field in FIELDS.items():
        if field.group != group:
            group = field.group
            lines += [
                "",
                f"## {group}",
                "",
                "| field | in Deforum | default | allowed | |",
                "| --- | --- | --- | --- | --- |",
            ]
        default = "" if field.default in ("", {}) else f"`{field.default}`"
        theirs = ", ".join(f"`{other}`" for other in field.deforum)
        cells = (f"`{name}`", theirs, default, field.allowed, field.hint)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def speed_page() -> str:
    """docs/speed.md: what was measured, as the benchmarks left it."""
    sys.path.insert(0, str(ROOT / "bench"))
    import speed_page

    return speed_page.page()


def main() -> None:
    if "--write" in sys.argv[1:]:
        readme = ROOT / "README.md"
        readme.write_text(with_tree(readme.read_text(encoding="utf-8")), encoding="utf-8")
        (ROOT / "docs" / "settings.md").write_text(settings_page(), encoding="utf-8")
        models = ROOT / "docs" / "models.md"
        models.write_text(with_variants(models.read_text(encoding="utf-8")), encoding="utf-8")
        (ROOT / "docs" / "speed.md").write_text(speed_page(), encoding="utf-8")
    else:
        print(tree())


if __name__ == "__main__":
    main()
