"""What a WebUI's launch meets of us: little to load for the tab, and peace with the original Deforum beside us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "scripts" / "deforum_wan.py"
# What stays unloaded until there is an app to answer requests.
NOT_FOR_THE_TAB = ("api", "job_queue", "queue_runner", "render_wan", "timeline", "presets", "web.service", "web.routes")
# A WebUI that loads two extensions' scripts, each with the root of its extension in front of sys.path meanwhile.
_LAUNCH = """
import importlib, importlib.util, json, sys, types
from pathlib import Path
entry, first, original = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
callbacks = {"on_ui_tabs": [], "on_app_started": [], "on_ui_settings": []}
script_callbacks = types.ModuleType("modules.script_callbacks")
for name, known in callbacks.items(): setattr(script_callbacks, name, known.append)
modules = types.ModuleType("modules"); modules.script_callbacks = script_callbacks
sys.modules.update({"modules": modules, "modules.script_callbacks": script_callbacks})

def load(path):
    sys.path.insert(0, str(path.parent.parent))
    spec = importlib.util.spec_from_file_location(path.name, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    sys.path.remove(str(path.parent.parent))

scripts = [entry, original / "scripts" / "deforum.py"]
for path in scripts if first == "ours" else reversed(scripts): load(path)
import fastapi
app = fastapi.FastAPI()
tabs = [tab for function in callbacks["on_ui_tabs"] for tab in function()]
for_the_tab = sorted(name for name in sys.modules if name.startswith("deforum_wan_helpers"))
for function in callbacks["on_app_started"]: function(None, app)
theirs = sys.modules["deforum_helpers"]
print(json.dumps({
    "tabs": [tab[1:] for tab in tabs], "for_the_tab": for_the_tab, "theirs": theirs.__file__, "path": sys.path,
    "settings": sys.modules["deforum_helpers.settings"].WHOSE,
    "modules": sorted(name for name in sys.modules if name.split(".")[0] == "deforum_helpers"),
    "answers": {route.path: route.endpoint.__module__ for route in app.routes if "/deforum_" in route.path},
}))
"""
_THEIRS = """
import sys
from pathlib import Path
from modules import script_callbacks
sys.path.extend([str(Path(__file__).parent)])
import deforum_helpers.settings
script_callbacks.on_ui_tabs(lambda: [(None, "Deforum", "deforum_interface")])
def routes(demo, app):
    app.add_api_route("/deforum_api/jobs", lambda: {})
script_callbacks.on_app_started(routes)
"""


def launch(tmp_path: Path, first: str) -> dict[str, Any]:
    """Load our script and that of a decoy in the original's place; what came of it."""
    pytest.importorskip("gradio")
    original = tmp_path / "sd-webui-deforum"
    helpers = original / "scripts" / "deforum_helpers"
    helpers.mkdir(parents=True)
    (helpers / "__init__.py").touch()
    (helpers / "settings.py").write_text("WHOSE = 'the original'\n")
    (original / "scripts" / "deforum.py").write_text(_THEIRS)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    places = {f"DEFORUM_WAN_{name}": str(tmp_path / name.lower()) for name in ("DATA", "STATE", "OUT")}
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCH, str(ENTRY), first, str(original)],
        env={**kept, **places, "GRADIO_ANALYTICS_ENABLED": "False"}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_original_deforum_beside_us_keeps_its_own(tmp_path, first) -> None:
    found = launch(tmp_path, first)
    original = tmp_path / "sd-webui-deforum" / "scripts"
    assert sorted(found["tabs"]) == [["Deforum", "deforum_interface"], ["Deforum Wan", "deforum_wan"]]
    assert found["settings"] == "the original"
    assert found["theirs"] == str(original / "deforum_helpers" / "__init__.py")
    assert found["modules"] == ["deforum_helpers", "deforum_helpers.settings"]  # none of ours under its name
    assert str(ROOT / "scripts") not in found["path"]
    assert found["path"][-1] == str(original)  # what it added is still there
    assert found["answers"] == {"/deforum_api/jobs": "deforum.py"}


def test_the_tab_is_built_without_what_renders_and_queues(tmp_path) -> None:
    loaded = launch(tmp_path, "ours")["for_the_tab"]
    assert "deforum_wan_helpers.ui_elements" in loaded
    assert [name for name in NOT_FOR_THE_TAB if f"deforum_wan_helpers.{name}" in loaded] == []
