"""The little that the tab needs of gradio, in the same words for gradio 3.41, 4.40 and 6.

The page itself is code of its own over our routes: an event queue that serves one call at a time, generators that
outlive their page and keywords that come and go are then no concern of the tab's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr


def page_of(html: str, elem_id: str) -> gr.Blocks:
    """A Blocks that shows one piece of HTML, for a tab or for a page of its own."""
    with gr.Blocks(**known_to(gr.Blocks, analytics_enabled=False, title="Deforum Wan")) as page:
        shown = gr.HTML(html, elem_id=elem_id, **known_to(gr.HTML, show_label=False, padding=False, container=False))
    # A WebUI would pin the value in its ui-config.json, and show that one for ever.
    shown.do_not_save_to_config = True
    return page


def known_to(what: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those of the options that this gradio's version of a component has."""
    names = inspect.signature(what).parameters
    return {name: value for name, value in options.items() if name in names}
