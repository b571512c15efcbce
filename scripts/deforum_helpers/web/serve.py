"""The tab and the API without a WebUI, in a browser on this machine."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from .. import api
from ..errors import InputError, SetupError
from ..wan_isolated_env import EXTENSION_ROOT, install_command
from .guard import is_loopback
from .service import Service, the_service

log = logging.getLogger(__name__)

STATIC = "/deforum-wan/static"
# Standalone there is no host to look like: the whole window's width, and the letters that the machine has anyway.
_OWN_LOOKS = (
    ".gradio-container.gradio-container {font-family: ui-sans-serif, system-ui, sans-serif}"
    " .gradio-container {--font: ui-sans-serif, system-ui, sans-serif}"
    " .gradio-container .fillable.app {max-width: none}"
)
_JAVASCRIPT, _STYLE = EXTENSION_ROOT / "javascript", EXTENSION_ROOT / "style.css"
_PAGE = f"{__package__.rpartition('.')[0]}.ui_elements"


def serve_command(args: argparse.Namespace) -> int:
    """The command `serve`: host, port, listen, allow_host, auth, all but port as serve() takes them."""
    users = [pair for text in getattr(args, "auth", None) or [] if (pair := _user(text))]
    listen = bool(getattr(args, "listen", False))
    host = "0.0.0.0" if listen else getattr(args, "host", "127.0.0.1")
    return serve(args.port, host, names=getattr(args, "allow_host", None) or (), users=users)


def serve(
    port: int = 7860, host: str = "127.0.0.1", *, names: Iterable[str] = (), users: Iterable[tuple[str, str]] = ()
) -> int:
    """Serve until Ctrl-C.  Nothing is shared beyond `host`; the default is this machine alone.

    names: further names that this machine is called by.  users: (name, password); none = everybody who reaches the
    port.  Returns the exit status.  Raises SetupError, InputError for a port that is taken.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise SetupError(f"this Python has no {error.name}", next_step=f"run: {install_command()}") from error
    taken = _bound(host, port)
    service = the_service()
    app = make_app(names=names, users=dict(users))
    print(f"Deforum Wan: http://{_shown(host)}:{taken.getsockname()[1]}", flush=True)
    try:
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)).run(sockets=[taken])
    finally:
        service.close()
        taken.close()
    return 0


def make_app(
    *, names: Iterable[str] = (), users: dict[str, str] | None = None, service: Callable[[], Service] = the_service
) -> Any:
    """The app: API, page code, and the tab where there is one.  users: name -> password, empty = nobody is asked."""
    app = FastAPI(title="Deforum Wan", docs_url="/docs", redoc_url=None)
    app.auth = users or None  # type: ignore[attr-defined]  # where guard.py looks, and gradio too
    app.tokens = {}  # type: ignore[attr-defined]
    api.register(app, deforum=True, service=service)
    if _JAVASCRIPT.is_dir():
        app.mount(f"{STATIC}/javascript", StaticFiles(directory=_JAVASCRIPT))
    app.add_api_route(f"{STATIC}/style.css", _style, include_in_schema=False)
    app = _with_page(app, users or {})
    return OnlyKnownNames(app, names)


def _with_page(app: FastAPI, users: dict[str, str]) -> FastAPI:
    """Mount the tab at "/": ui_elements.build_page() makes it."""
    if importlib.util.find_spec(_PAGE) is None:
        return app
    try:
        import gradio
    except ImportError as error:
        raise SetupError(f"this Python has no {error.name}", next_step=f"run: {install_command()}") from error
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    page = importlib.import_module(_PAGE).build_page()
    return gradio.mount_gradio_app(
        app, page, path="/", auth=list(users.items()) or None, head=page_head(), footer_links=[], ssr_mode=False
    )


def page_head() -> str:
    """The tags that load the page code; in a WebUI the host does that."""
    scripts = sorted(_JAVASCRIPT.glob("*.js")) if _JAVASCRIPT.is_dir() else []
    tags = [f'<link rel="stylesheet" href="{STATIC}/style.css">'] if _STYLE.is_file() else []
    tags += [f'<script defer src="{STATIC}/javascript/{escape(path.name)}"></script>' for path in scripts]
    tags.append(f"<style>{_OWN_LOOKS}</style>")
    return "\n".join(tags)


async def _style(request: Request) -> PlainTextResponse:
    text = _STYLE.read_text(encoding="utf-8") if _STYLE.is_file() else ""
    return PlainTextResponse(text, media_type="text/css")


class OnlyKnownNames:
    """Answers only requests that call this machine by a name that is its own, or by an address.

    Otherwise a page could have its own name point at this machine, and would then be no foreign page any more.
    """

    def __init__(self, app: Any, names: Iterable[str] = ()) -> None:
        self.app = app
        self._names = {name.lower() for name in (*names, socket.gethostname())}

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]
    ) -> None:
        if scope["type"] in ("http", "websocket") and not self.is_known(_host_header(scope)):
            words = "Deforum Wan: this machine isn't known by that name; see serve --allow-host\n"
            if scope["type"] == "http":
                await PlainTextResponse(words, 403)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def is_known(self, name: str) -> bool:
        name = _name_of(name)
        if is_loopback(name) or name in self._names or name.partition(".local")[0] in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host_header(scope: MutableMapping[str, Any]) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")


def _name_of(host: str) -> str:
    """A Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _user(text: str) -> tuple[str, str] | None:
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise InputError("is no user", where="--auth", got=name, allowed="NAME:PASSWORD")
    return name, password


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is ours already, so that a taken port is said before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ours = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((host, port))
    except (OSError, OverflowError) as error:
        ours.close()
        raise InputError("this port can't be had", where="--port", got=f"{host}:{port}: {error}",
                         next_step="choose another one; 0 takes any that is free") from error  # fmt: skip
    return ours


def _shown(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
