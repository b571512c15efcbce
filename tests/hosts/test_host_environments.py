"""The extension's side in a WebUI's process: it imports with what the hosts have, and brings nothing along."""

from __future__ import annotations

from pathlib import Path

from floors import import_in_fresh_interpreter, module_names


def test_the_host_side_imports_on_a_hosts_packages(host_gradio_python: Path) -> None:
    found = import_in_fresh_interpreter(module_names("contract", "logic", "host"), host_gradio_python)
    assert found == {"acts": [], "heavy": [], "webui": []}
