"""Where our routes are, and the token that opens them: what a page must be given, known without the routes themselves.

The tab is built at a WebUI's launch, before there is an app: it must not pay for the queue and all that renders.
"""

from __future__ import annotations

import secrets

BASE = "/deforum-wan/api"
TOKEN_HEADER, TOKEN_QUERY = "x-deforum-wan-token", "token"

_token = secrets.token_urlsafe(24)


def page_token() -> str:
    """What the tab's page sends along: only who was shown the page has it.  Another one in each process."""
    return _token


def page_address() -> dict[str, str]:
    """What the page code needs: where the API is, and the token that shows it was given this page."""
    return {"api": BASE, "token": page_token()}
