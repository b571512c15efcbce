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
from .ui.layout import UNSEEN, layout_facts
from .ui.page import failure_html, page_html

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
    from . import api
    from .web.views import field_facts

    facts = [field for field in field_facts() if field["name"] not in UNSEEN]
    return {**api.page_config(), "fields": facts, "defaults": _defaults(), **layout_facts()}


def _defaults() -> dict[str, Any]:
    return {name: field.default for name, field in FIELDS.items()}


def on_app_started(demo: Any, app: Any) -> None:
    """Add the routes.  A fault there must not keep the WebUI's other extensions from hearing of the app."""
    try:
        from . import api

        api.on_app_started(demo, app)
    except Exception:
        log.exception("Deforum Wan: its routes could not be added, so the tab can't do anything")


def on_ui_settings() -> None:
    """A section of the WebUI's own settings page."""
    shared = importlib.import_module("modules.shared")
    option, options = getattr(shared, "OptionInfo", None), getattr(shared, "opts", None)
    if option is None or not hasattr(options, "add_option"):
        return
    words = "Folder of the results (empty: deforum-wan in the WebUI's outputs)"
    options.add_option("deforum_wan_outputs", option("", words, section=(TAB_ID, TITLE)))
