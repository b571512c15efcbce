"""A table of routes becomes an app's: requests are guarded, read and checked, answered in threads of our own.

Handlers are plain functions of a Call that return what JSON can hold, a Reply, or a starlette response.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import DeforumWanError
from ..job_queue import JobQueue
from .bodies import LARGEST, Fields, Query, read_object
from .faults import Refused, problem, status_of
from .guard import check_request, is_local
from .schema import described
from .service import Service, the_service

log = logging.getLogger(__name__)

Method = Literal["GET", "POST", "DELETE"]
_THREADS = 8  # our own: whatever the host's page has under way, ours stays answered, and the other way round


@dataclass(frozen=True)
class Call:
    """One request.  path: what stood in the route's {names}; query, body: see bodies.Fields."""

    service: Service
    path: Mapping[str, str]
    query: Query
    body: Fields
    request: Request

    @property
    def queue(self) -> JobQueue:
        return self.service.queue

    @property
    def any_path(self) -> bool:
        """Whether the caller may name any file of this machine: who sits at it could do so anyway."""
        return is_local(self.request)


@dataclass(frozen=True)
class Reply:
    """An answer with another status than 200, or headers."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """do: the handler.  summary: one line for the documentation.

    body: field -> what it is, in words; None = the request has none.  query: the same.  largest: of a body, in bytes.
    strict: whether a field that isn't in `body` is refused.
    """

    method: Method
    path: str
    do: Callable[[Call], Any]
    summary: str
    body: Mapping[str, str] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    largest: int = LARGEST
    strict: bool = True


def add_routes(
    app: FastAPI, routes: Sequence[Route], tag: str, service: Callable[[], Service] = the_service
) -> list[str]:
    """Add routes to an app, those it hasn't yet.  Returns the paths of all.

    They go before what is there already, because a page of gradio's may answer to every path.
    """
    there = {(getattr(known, "path", ""), method) for known in app.routes for method in _methods(known)}
    before = list(app.router.routes)
    for route in routes:
        if (route.path, route.method) not in there:
            _add(app, route, tag, service)
    added = [route for route in app.router.routes if route not in before]
    app.router.routes[:] = [*added, *before]
    app.openapi_schema = None  # it may have been made already
    return sorted({route.path for route in routes})


def _methods(route: Any) -> set[str]:
    return set(getattr(route, "methods", None) or ())


def _add(app: FastAPI, route: Route, tag: str, service: Callable[[], Service]) -> None:
    async def endpoint(request: Request) -> Response:
        return await _answer(route, request, service)

    endpoint.__name__ = _operation(route)
    methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
    for method in methods:
        app.add_api_route(
            route.path, endpoint, methods=[method], summary=route.summary, tags=[tag], response_model=None,
            openapi_extra=described(route.path, route.body, route.query), include_in_schema=method != "HEAD",
            operation_id=_operation(route),
        )  # fmt: skip


def _operation(route: Route) -> str:
    words = re.sub(r"\W+", "_", route.path).strip("_")
    return f"{words}_{route.method.lower()}"


async def _answer(route: Route, request: Request, service: Callable[[], Service]) -> Response:
    try:
        check_request(request)
        given = await read_object(request, route.largest) if route.body is not None else {}
        work = functools.partial(_do, route, request, given, service)
        return await anyio.to_thread.run_sync(work, limiter=_limiter(request.app))
    except DeforumWanError as error:
        return error_response(error)
    except ClientDisconnect:  # nobody is left to hear an answer
        return Response(status_code=400)
    except Exception as error:
        log.exception("%s %s failed", request.method, request.url.path)
        return error_response(error)


def _do(route: Route, request: Request, given: dict[str, Any], service: Callable[[], Service]) -> Response:
    """In a thread: the handler, and its answer as bytes."""
    body = Fields(given)
    if route.strict:
        body.only(route.body or ())
    call = Call(service(), request.path_params, Query(dict(request.query_params)), body, request)
    found = route.do(call)
    if isinstance(found, Response):
        return found
    reply = found if isinstance(found, Reply) else Reply(found)
    return json_response(reply.content, reply.status, reply.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    kept = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(data, status, kept, media_type="application/json")


def error_response(error: BaseException) -> Response:
    """{"error": {"field": .., "message": .., ...}}, see faults.problem."""
    found = problem(error)
    headers = error.headers if isinstance(error, Refused) else None
    # "detail" in the form that FastAPI's own errors have, for programs that look for it.
    place = ["body", found["field"]] if found["field"] else ["body"]
    detail = [{"loc": place, "msg": found["message"], "type": found["kind"]}]
    return json_response({"error": found, "detail": detail}, status_of(error), headers)


def _limiter(app: Any) -> anyio.CapacityLimiter:
    """The threads of this app's event loop."""
    limiter = getattr(app.state, "deforum_wan_limiter", None)
    if limiter is None:
        limiter = app.state.deforum_wan_limiter = anyio.CapacityLimiter(_THREADS)
    return limiter
