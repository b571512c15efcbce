"""A WebUI's server as far as the API sees it: gradio's app, the hosts' middleware, a fake in the worker's place.

    python api_server.py '{"folder": "..", "page": true, "flags": {"api_auth": "me:secret"}}'

Prints {"port": ..} once it answers, and ends when its input is closed.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "scripts"), str(HERE.parent / "unit")]


def main() -> None:
    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    os.environ |= {
        "DEFORUM_WAN_STATE": str(folder / "state"), "DEFORUM_WAN_DATA": str(folder / "data"),
        "DEFORUM_WAN_OUT": str(folder / "out"), "GRADIO_ANALYTICS_ENABLED": "False",
    }  # fmt: skip
    import fake_hosts
    from fake_worker import FakeRenderer

    if asked.get("host"):
        patch = SimpleNamespace(setitem=lambda mapping, key, value: mapping.__setitem__(key, value))
        fake_hosts.install(patch, folder, asked["host"], **asked.get("flags", {}))
        sys.modules["modules.shared"].opts.gradio_allowed_path = []

    from deforum_helpers import api
    from deforum_helpers.web import address, service

    if not asked.get("broken_data"):
        service._service = service.Service(folder / "data", worker=FakeRenderer())
    if asked.get("tell_token"):
        print(f"token {address.page_token()}", flush=True)
    if asked.get("page"):
        app, port = page(asked)
    else:
        app, port = bare_app(), 0
    if asked.get("original"):
        app.add_api_route("/deforum_api/jobs", lambda: {"original": True})
    with_host_middleware(app)
    app.openapi()  # somebody has looked at the schema before we come
    api.on_app_started(object() if asked.get("page") else None, app)
    api.on_app_started(None, app)  # once more must change nothing
    print(json.dumps({"port": port or serve(app)}), flush=True)  # gradio has printed lines of its own before
    sys.stdin.read()
    os._exit(0)


def page(asked: dict):
    """gradio's own app and the port it is served at; what is added comes later, as in a WebUI."""
    import gradio as gr

    with gr.Blocks() as demo:
        gr.Textbox(label="prompt")
    demo.queue()
    auth = [tuple(asked["gradio_auth"].split(":"))] if asked.get("gradio_auth") else None
    app, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, auth=auth, server_name="127.0.0.1")
    return app, int(url.rstrip("/").rpartition(":")[2])


def bare_app():
    """What a WebUI has under --nowebui."""
    from fastapi import FastAPI

    return FastAPI()


def with_host_middleware(app) -> None:
    """The hosts pack answers, and their API looks at every request."""
    from starlette.middleware.gzip import GZipMiddleware

    app.middleware_stack = None
    app.add_middleware(GZipMiddleware, minimum_size=1000)

    @app.middleware("http")
    async def timed(request, call_next):
        began = time.monotonic()
        response = await call_next(request)
        response.headers["X-Process-Time"] = str(time.monotonic() - began)
        return response


def serve(app) -> int:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    return server.servers[0].sockets[0].getsockname()[1]


if __name__ == "__main__":
    main()
