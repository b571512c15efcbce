"""The HTML that stands in the tab until the page code in javascript/ takes over."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from ..errors import DeforumWanError

ROOT_ID = "deforum_wan_page"


def page_html(config: dict[str, Any]) -> str:
    """The root that the page code looks for, with all that it needs to begin."""
    data = escape(json.dumps(config, ensure_ascii=True, separators=(",", ":")))
    return (
        f'<div id="{ROOT_ID}" class="dw-root" data-config="{data}">'
        '<p class="dw-waiting">Deforum Wan is being loaded. If this stays, the browser has not got the extension\'s '
        "page code: reload the page, and look whether the extension's folder has its javascript files.</p></div>"
    )


def words_for(error: BaseException) -> str:
    """An error in one line; a fault of the program with its kind in front."""
    if isinstance(error, DeforumWanError):
        return error.one_line()
    return " ".join(f"{type(error).__name__}: {error}".split())


def failure_html(error: BaseException) -> str:
    """What the tab shows if it can't be built: what is wrong, and what to do."""
    rest = "" if isinstance(error, DeforumWanError) else " The console has the whole of it; please report it with that."
    return (
        f'<div id="{ROOT_ID}" class="dw-root" data-ready="1"><div class="dw-banner dw-bad">'
        "<b>Deforum Wan could not build its tab.</b> "
        f"<span>{escape(words_for(error))}</span>{rest} Queued jobs are kept.</div></div>"
    )
