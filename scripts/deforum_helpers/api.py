"""The API in an app: our own routes, and Deforum's.  The parts are in web/.

A WebUI calls on_app_started with each new app, "Reload UI" included, and with no page at all under --nowebui.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from .errors import DeforumWanError
from .web import run_now
from .web.address import BASE
from .web.app_routes import app_routes
from .web.deforum_api import OTHER_PREFIX, PREFIX, deforum_routes
from .web.host import flag
from .web.routes import add_routes
from .web.service import Service, the_service

__all__ = ["BASE", "on_app_started", "register"]

log = logging.getLogger(__name__)

_TAG = "Deforum API"


def on_app_started(demo: Any, app: FastAPI) -> None:
    """For script_callbacks.on_app_started: routes, the queue's runner, and what the launch flags ask for."""
    register(app, deforum=bool(flag("deforum_api", False)))
    try:
        service = the_service()
    except DeforumWanError as error:  # the routes say so too, and try again
        log.error("Deforum Wan: %s", error.one_line())
        return
    if files := run_now.files_to_run():
        run_now.start(service, files, leave=bool(flag("deforum_terminate_after_run_now", False)))


def register(app: FastAPI, *, deforum: bool, service: Callable[[], Service] = the_service) -> str:
    """Add our routes to an app, once.  deforum: Deforum's as well.  Returns where those are, "" for nowhere."""
    add_routes(app, app_routes(), "Deforum Wan", service)
    if not deforum:
        return ""
    prefix = PREFIX
    if run_now.original_is_here() or _is_taken(app):
        prefix = OTHER_PREFIX
        log.warning("Deforum Wan: the original Deforum has %s, so our API is under %s", PREFIX, prefix)
    add_routes(app, deforum_routes(prefix), _TAG, service)
    return prefix


def _is_taken(app: FastAPI) -> bool:
    """Whether somebody else answers to Deforum's paths; ours bear our tag."""
    others = (route for route in app.routes if _TAG not in (getattr(route, "tags", None) or []))
    return any(str(getattr(route, "path", "")).startswith(f"{PREFIX}/") for route in others)
