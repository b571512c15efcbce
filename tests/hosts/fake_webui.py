"""A WebUI as far as an extension sees it: the script's callbacks, its Blocks in the host's, its page code in the page,
its lock, its state, Interrupt and "Reload UI" in the order in which the hosts do them, and real gradio under it all.

    fake_webui.py PORT DATA [--extension DIR] [--auth NAME:PASSWORD] [--flag NAME=VALUE ...]

Run with the Python of a host's environment.  Its own routes for the tests, under /fake-host:  GET /state,
POST /interrupt, POST /reload.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import socket
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "unit"))
import fake_hosts

CALLBACKS = ("on_ui_tabs", "on_app_started", "on_ui_settings")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("data", type=Path)
    parser.add_argument("--extension", type=Path, default=HERE.parents[1])
    parser.add_argument("--auth", default="")
    parser.add_argument("--flag", action="append", default=[])
    return parser.parse_args()


def wait_for(port: int, seconds: float = 60.0) -> None:
    """Until a port is free.  gradio 4.40 stops waiting for its own server's end after five seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return
            except OSError:
                time.sleep(0.2)


class Host:
    """One process of a WebUI.  made: how often its page was made; taking: seconds that our script and our tab took."""

    def __init__(self, asked: argparse.Namespace, gradio: ModuleType) -> None:
        self.asked, self.gradio, self.made, self.taking = asked, gradio, 0, (0.0, 0.0)
        name = "a1111" if gradio.__version__.startswith("3.") else "forge"
        patch = SimpleNamespace(setitem=lambda mapping, key, value: mapping.__setitem__(key, value))
        flags = dict(flag.split("=", 1) for flag in asked.flag)
        self.fake = fake_hosts.install(patch, asked.data, name, **flags)
        info = type("OptionInfo", (), {"__init__": lambda self, default, *_, **__: setattr(self, "default", default)})
        options = self.fake.shared.opts
        options.add_option = lambda name, info: setattr(options, name, info.default)
        self.fake.shared.OptionInfo = info
        self.callbacks: dict[str, list[Any]] = {}
        self.wish_to_reload = threading.Event()

    def load_script(self) -> float:
        """As the hosts do it: by path, not kept in sys.modules.  Returns the seconds that it took."""
        self.callbacks = {name: [] for name in CALLBACKS}
        module = ModuleType("modules.script_callbacks")
        vars(module).update({name: known.append for name, known in self.callbacks.items()})
        sys.modules["modules.script_callbacks"] = sys.modules["modules"].script_callbacks = module
        path = self.asked.extension / "scripts" / "deforum_wan.py"
        spec = importlib.util.spec_from_file_location("deforum_wan.py", path)
        assert spec and spec.loader
        began = time.perf_counter()
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return time.perf_counter() - began

    def open(self) -> None:
        """Make the page and serve it, as at the start and again after each "Reload UI"."""
        gradio, took = self.gradio, self.load_script()
        for function in self.callbacks["on_ui_settings"]:
            function()
        with gradio.Blocks(analytics_enabled=False, title="a WebUI") as first:  # theme and all that: the hosts' own
            gradio.Textbox(label="Prompt", elem_id="txt2img_prompt")
        began = time.perf_counter()
        tabs = [tab for function in self.callbacks["on_ui_tabs"] for tab in function()]
        self.taking = took, time.perf_counter() - began
        with gradio.Blocks(analytics_enabled=False, title="a WebUI") as demo, gradio.Tabs(elem_id="tabs"):
            for page, title, name in [*tabs, (first, "txt2img", "txt2img")]:
                with gradio.TabItem(title, id=name, elem_id=f"tab_{name}"):
                    page.render()
        self.fake.shared.demo = demo
        demo.queue(64)
        user = tuple(self.asked.auth.split(":", 1)) if self.asked.auth else None
        app, _, _ = demo.launch(
            server_name="127.0.0.1", server_port=self.asked.port, prevent_thread_lock=True, quiet=True,
            show_api=False, share=False, auth=user,
        )  # fmt: skip
        for function in self.callbacks["on_app_started"]:
            function(demo, app)
        self.made += 1
        print(
            f"up: gradio {self.gradio.__version__}, script in {self.taking[0]:.3f} s, tab in {self.taking[1]:.3f} s,"
            f" torch {'torch' in sys.modules}", flush=True,
        )  # fmt: skip
        self.add_routes(app)

    def add_routes(self, app: Any) -> None:
        from fastapi.staticfiles import StaticFiles

        before = len(app.router.routes)
        app.mount("/of-extensions/javascript", StaticFiles(directory=self.asked.extension / "javascript"))
        app.mount("/of-extensions", StaticFiles(directory=self.asked.extension, check_dir=False))
        app.add_api_route("/fake-host/state", self.state, methods=["GET"])
        app.add_api_route("/fake-host/interrupt", self.interrupt, methods=["POST"])
        app.add_api_route("/fake-host/reload", self.reload, methods=["POST"])
        routes = app.router.routes
        routes[:] = [*routes[before:], *routes[:before]]  # gradio's page may answer to every path

    def state(self) -> dict[str, Any]:
        state = self.fake.state
        shown = ("job", "job_no", "job_count", "sampling_step", "sampling_steps", "textinfo", "interrupted")
        return {
            **{name: getattr(state, name) for name in shown}, "locked": self.fake.lock.locked(), "made": self.made,
            "calls": [list(call) for call in state.calls], "pictures": len(state.pictures),
            "told": [entry if isinstance(entry, str) else list(entry) for entry in self.fake.told],
            "threads": sorted(thread.name for thread in threading.enumerate() if "deforum" in thread.name),
        }  # fmt: skip

    def interrupt(self) -> None:
        self.fake.state.interrupted = True

    def reload(self) -> None:
        self.fake.state.interrupted = True  # the hosts say so on their way
        self.wish_to_reload.set()

    def run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())  # the hosts see to one in each thread; gradio 4.40 needs it
        self.open()
        while True:
            self.wish_to_reload.wait()
            self.wish_to_reload.clear()
            self.fake.shared.demo.close()
            wait_for(self.asked.port)  # making a host's real page takes longer than that
            self.open()


def put_page_code_in(gradio: Any, extension: Path) -> None:
    """The hosts put an extension's scripts and styles into gradio's page."""
    sources = sorted((extension / "javascript").glob("*.js"))
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
    asked = read_arguments()
    import gradio

    put_page_code_in(gradio, asked.extension)
    host = Host(asked, gradio)
    threading.Thread(target=host.run, daemon=True).start()
    sys.stdin.read()  # until whoever started us goes


if __name__ == "__main__":
    main()
