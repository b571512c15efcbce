"""A WebUI as far as an extension sees it: the script's callbacks, its Blocks in the host's, its page code in the page.

Run with the Python of a host's environment:  fake_webui.py PORT DATA [--break-the-tab]
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(names)
    sys.modules[name] = made
    return made


class State:
    def __init__(self) -> None:
        self.job, self.job_no, self.job_count, self.sampling_step, self.sampling_steps = "", 0, 0, 0, 0
        self.interrupted = self.skipped = self.stopping_generation = False
        self.textinfo: Any = None

    def begin(self, job: str = "") -> None:
        self.job = job

    def end(self) -> None:
        self.job = ""

    def assign_current_image(self, picture: Any) -> None:
        self.picture = picture


class Options(SimpleNamespace):
    def add_option(self, name: str, info: Any) -> None:
        setattr(self, name, info.default)


def install_modules(data: Path) -> dict[str, list[Any]]:
    """The host's `modules` package.  Returns the callbacks that scripts register."""
    callbacks: dict[str, list[Any]] = {"on_ui_tabs": [], "on_app_started": [], "on_ui_settings": []}
    info = type("OptionInfo", (), {"__init__": lambda self, default, *_, **__: setattr(self, "default", default)})
    module("modules", __path__=[])
    module("modules.shared", state=State(), opts=Options(), cmd_opts=SimpleNamespace(), OptionInfo=info, demo=None)
    module("modules.call_queue", queue_lock=threading.Lock())
    module("modules.script_callbacks", **{name: known.append for name, known in callbacks.items()})
    module("modules.paths_internal", data_path=str(data), models_path=str(data / "models"),
           default_output_dir=str(data / "outputs"))  # fmt: skip
    return callbacks


def load_script() -> float:
    """As the hosts do it: by path, not kept in sys.modules.  Returns the seconds that it took."""
    path = ROOT / "scripts" / "deforum_wan.py"
    spec = importlib.util.spec_from_file_location("deforum_wan.py", path)
    assert spec and spec.loader
    began = time.perf_counter()
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return time.perf_counter() - began


def put_page_code_in(gradio: Any) -> None:
    """The hosts put an extension's scripts and styles into gradio's page."""
    sources = sorted((ROOT / "javascript").glob("*.js"))
    tags = "".join(
        f'<script type="text/javascript" src="/of-extensions/javascript/{path.name}"></script>' for path in sources
    )
    style = '<link rel="stylesheet" href="/of-extensions/style.css">'
    original = gradio.routes.templates.TemplateResponse

    def answer(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        made.body = made.body.replace(b"</head>", f"{tags}{style}</head>".encode())
        made.init_headers()
        return made

    gradio.routes.templates.TemplateResponse = answer


def main() -> None:
    port, data = int(sys.argv[1]), Path(sys.argv[2])
    callbacks = install_modules(data)
    import gradio
    from fastapi.staticfiles import StaticFiles

    put_page_code_in(gradio)
    took = load_script()
    if "--break-the-tab" in sys.argv:
        import deforum_wan_helpers.ui.layout as layout  # type: ignore[import-not-found]

        layout.layout_facts.__code__ = (lambda: 1 / 0).__code__
    for function in callbacks["on_ui_settings"]:
        function()
    tabs = [tab for function in callbacks["on_ui_tabs"] for tab in function()]
    with gradio.Blocks(analytics_enabled=False, title="a WebUI") as demo, gradio.Tabs(elem_id="tabs"):
        for page, title, name in tabs:
            with gradio.TabItem(title, id=name, elem_id=f"tab_{name}"):
                page.render()
        with gradio.TabItem("txt2img", id="txt2img", elem_id="tab_txt2img"):
            gradio.Textbox(label="Prompt", elem_id="txt2img_prompt")
    demo.queue(64)
    app, _, _ = demo.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, show_api=False, share=False
    )
    app.mount("/of-extensions/javascript", StaticFiles(directory=ROOT / "javascript"))
    app.mount("/of-extensions", StaticFiles(directory=ROOT, check_dir=False))
    app.router.routes.insert(0, app.router.routes.pop())
    app.router.routes.insert(0, app.router.routes.pop())
    for function in callbacks["on_app_started"]:
        function(demo, app)
    print(f"up: gradio {gradio.__version__}, script in {took:.3f} s, torch {'torch' in sys.modules}", flush=True)
    sys.stdin.read()  # until whoever started us goes


if __name__ == "__main__":
    main()
