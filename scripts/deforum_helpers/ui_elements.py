"""The tab: what a WebUI calls to get it, and the same page standalone.

register() is called each time the WebUI loads its scripts, "Reload UI" included.  The page is one piece of HTML; the
code in javascript/ makes the tab of it, over the routes in web/.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from . import gradio_compat
from .settings import FIELDS
from .ui.fields import field_facts
from .ui.layout import UNSEEN, layout_facts
from .ui.page import failure_html, page_html, words_for
from .web.address import BASE, TOKEN_HEADER, page_address, page_token

__all__ = ["build_page", "on_ui_tabs", "register"]

log = logging.getLogger(__name__)

TITLE, TAB_ID = "Deforum Wan", "deforum_wan"


def register() -> None:
    """Give a WebUI the tab, the routes and the settings' section.  Whatever fails, there is a tab that says what."""
    callbacks = importlib.import_module("modules.script_callbacks")
    for name, function in (
        ("on_ui_tabs", on_ui_tabs), ("on_app_started", on_app_started), ("on_ui_settings", on_ui_settings)
    ):  # fmt: skip
        if callable(add := getattr(callbacks, name, None)):
            add(function)


def on_ui_tabs() -> list[tuple[Any, str, str]]:
    """For script_callbacks: (page, title, id)."""
    return [(build_page(), TITLE, TAB_ID)]


def build_page() -> Any:
    """The page as a Blocks; if it can't be made, one that names the cause."""
    try:
        html = page_html(page_config())
    except Exception as error:  # a tab that is missing tells nobody anything
        log.exception("Deforum Wan: the tab could not be built")
        html = failure_html(error)
    return gradio_compat.page_of(html, "deforum_wan_tab")


def page_config() -> dict[str, Any]:
    """What the page code begins with: where the routes are, the fields, and where each one stands."""
    facts = [field for field in field_facts() if field["name"] not in UNSEEN]
    return {**page_address(), "fields": facts, "defaults": _defaults(), **layout_facts()}


def _defaults() -> dict[str, Any]:
    return {name: field.default for name, field in FIELDS.items()}


def on_app_started(demo: Any, app: Any) -> None:
    """Add the routes.  A fault there must not keep the WebUI's other extensions from hearing of the app."""
    try:
        from . import api  # the queue and all that renders: not paid for while the tab is built

        api.on_app_started(demo, app)
    except Exception as error:
        log.exception("Deforum Wan: its routes could not be added, so the tab can't do anything")
        _answer_with(app, f"Deforum Wan could not be started: {words_for(error)}")


def _answer_with(app: Any, words: str) -> None:
    """Have the routes that are missing say why they are: the page shows it.  Strangers are told the status only."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    async def answer(request: Request) -> JSONResponse:
        told = words if request.headers.get(TOKEN_HEADER, "") == page_token() else ""
        return JSONResponse({"error": {"field": "", "message": told}}, 503)

    routes = app.router.routes
    ours = sum(str(getattr(route, "path", "")).startswith(BASE) for route in routes)  # they stand first
    app.router.add_route(f"{BASE}/{{path:path}}", answer, methods=["GET", "POST", "DELETE"], include_in_schema=False)
    routes.insert(ours, routes.pop())


def on_ui_settings() -> None:
    """A section of the WebUI's own settings page."""
    shared = importlib.import_module("modules.shared")
    option, options = getattr(shared, "OptionInfo", None), getattr(shared, "opts", None)
    if option is None or not hasattr(options, "add_option"):
        return
    words = "Folder of the results (empty: deforum-wan in the WebUI's outputs)"
    options.add_option("deforum_wan_outputs", option("", words, section=(TAB_ID, TITLE)))
