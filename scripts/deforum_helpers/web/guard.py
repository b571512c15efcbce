"""Who may ask: the passwords of the WebUI around us are ours too, and no foreign page acts in a user's name.

Without --api-auth and --gradio-auth everybody who reaches the port may ask, as with the WebUI itself.  With one of
them a request needs a password of --api-auth or --gradio-auth (HTTP Basic), or the cookie of a gradio login, or the
token that the tab's page carries.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from . import host
from .address import TOKEN_HEADER, TOKEN_QUERY, page_token
from .faults import Refused

_SAFE = ("GET", "HEAD", "OPTIONS")
_PAGE_MODES = ("cors", "same-origin", "no-cors")


def check_request(request: Request) -> None:
    """Raises Refused: 401 without a password where one is set, 403 for a change that a foreign page asks for."""
    if request.method not in _SAFE and not _is_from_here(request):
        raise Refused(
            "a page of another site may not change anything here", 403, got=request.headers.get("origin", ""),
            next_step="behind a proxy, have it pass the Host header on, or set --cors-allow-origins",
        )  # fmt: skip
    if not _has_password(request):
        # A page's own fetch gets no dialog of the browser.
        asks = request.headers.get("sec-fetch-mode", "") not in _PAGE_MODES
        headers = {"WWW-Authenticate": 'Basic realm="Deforum Wan"'} if asks else {}
        raise Refused("a user name and a password are needed", 401, headers=headers,
                      next_step="log in, or reload the page")  # fmt: skip


def is_local(request: Request) -> bool:
    """Whether the caller sits at this machine."""
    if any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip")):
        return False
    return request.client is not None and is_loopback(request.client.host)


def is_loopback(name: str) -> bool:
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# Foreign pages


def _is_from_here(request: Request) -> bool:
    """A browser names the page that asks; programs name none."""
    if request.headers.get("sec-fetch-site", "") in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    if origin is None:
        return "sec-fetch-site" not in request.headers
    hosts = {request.headers.get(name, "").split(",")[0].strip().lower() for name in ("host", "x-forwarded-host")}
    return _authority(origin) in {_without_port(name, origin) for name in hosts if name} or _is_allowed(origin)


def _authority(origin: str) -> str:
    """host:port of an origin, without a port that goes without saying."""
    try:
        return _without_port(urlsplit(origin).netloc.lower(), origin)
    except ValueError:
        return ""


def _without_port(name: str, origin: str) -> str:
    return name.removesuffix(":443" if origin.startswith("https:") else ":80")


def _is_allowed(origin: str) -> bool:
    """Whether the WebUI was told to let this site in."""
    listed = [site.strip() for site in str(host.flag("cors_allow_origins", "") or "").split(",") if site.strip()]
    pattern = str(host.flag("cors_allow_origins_regex", "") or "")
    return origin in listed or "*" in listed or bool(pattern and re.fullmatch(pattern, origin))


# Passwords


def _has_password(request: Request) -> bool:
    known, pages = _api_users(), _pages(request)
    if not known and not pages:
        return True
    token = request.headers.get(TOKEN_HEADER, "") or request.query_params.get(TOKEN_QUERY, "")
    if token and _equal(token, page_token()):
        return True
    if name_and_password := _basic(request):
        name, password = name_and_password
        return _matches(known, name, password) or any(_gradio_takes(page.auth, name, password) for page in pages)
    return any(_has_login(request, page) for page in pages)


def _api_users() -> dict[str, str]:
    """--api-auth "user:password,user2:password2" -> user -> password."""
    pairs = (entry.partition(":") for entry in str(host.flag("api_auth", "") or "").split(",") if entry.strip())
    return {name.strip(): password for name, _, password in pairs}


def _pages(request: Request) -> list[Any]:
    """The apps of gradio that ask for a login: the one asked, and those mounted in it."""
    app = request.scope.get("app")
    apps = [app, *(getattr(route, "app", None) for route in getattr(app, "routes", ()))]
    return [app for app in apps if getattr(app, "auth", None) is not None]


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


def _matches(known: Mapping[str, str], name: str, password: str) -> bool:
    found = [_equal(password, known[user]) for user in known if _equal(name, user)]
    return any(found)


def _gradio_takes(auth: Any, name: str, password: str) -> bool:
    """auth: {name: password}, [(name, password)] or a function, as gradio keeps it."""
    if callable(auth):
        return bool(auth(name, password))
    if isinstance(auth, Mapping):
        return _matches(auth, name, password)
    return _matches(dict(auth), name, password) if isinstance(auth, list | tuple) else False


def _has_login(request: Request, app: Any) -> bool:
    tokens = getattr(app, "tokens", None) or {}
    cookies = (value for name, value in request.cookies.items() if name.startswith("access-token"))
    return any(cookie in tokens for cookie in cookies)


def _equal(one: str, other: str) -> bool:
    return secrets.compare_digest(str(one).encode(), str(other).encode())
