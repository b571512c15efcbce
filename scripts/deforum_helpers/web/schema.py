"""Our routes as OpenAPI describes them: parameters, bodies, and the one form that all errors have.

Written by hand, because models of pydantic 1 and 2 differ, and hosts bring either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PARAMETER = re.compile(r"\{(\w+)\}")

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_WHOLE = {"type": "integer"}
_WHOLES = {"type": "array", "items": _WHOLE}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": _OBJECT}

# What a field of a body is, wherever it stands.
KINDS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("name", "batch", "description", "data", "field", "folder", "model", "reason", "text"), _TEXT),
    **dict.fromkeys(("after_clip", "first", "marked", "overwrite", "resume", "with_content"), _FLAG),
    **dict.fromkeys(("auto_resume", "pause_on_out_of_memory", "release_when_empty"), _FLAG),
    **dict.fromkeys(("after", "before", "clip", "places", "seed", "width"), _WHOLE),
    **dict.fromkeys(("at_once", "keep_jobs", "most_attempts"), _WHOLE),
    **dict.fromkeys(("axes", "settings", "options_overrides"), _OBJECT),
    "deforum_settings": {"oneOf": [_OBJECT, _OBJECTS]},
    "ids": _WHOLES,
    "jobs": _OBJECTS,
    "keep_days": {"type": "number"},
}
# What text behind "?" is read as; the others are taken as they are.
QUERY_KINDS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("bookmarked", "download", "refresh"), _FLAG),
    **dict.fromkeys(("from", "limit", "log", "offset"), _WHOLE),
}
_ERROR = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("kind", "field", "keyframe", "message", "what", "got", "allowed", "next_step"), _TEXT),
        **dict.fromkeys(("column", "job"), _WHOLE),
        "job_name": _TEXT,
    },
}
_FASTAPI_ERROR = {
    "type": "object",
    "properties": {"loc": {"type": "array", "items": _TEXT}, "msg": _TEXT, "type": _TEXT},
}
_ERRORS = {
    "description": "What is wrong, with which field, and what to do",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"error": _ERROR, "detail": {"type": "array", "items": _FASTAPI_ERROR}},
            }
        }
    },
}


def described(path: str, body: Mapping[str, str] | None, query: Mapping[str, str]) -> dict[str, Any]:
    """What OpenAPI says of a route.  body, query: field -> what it is, in words; body None = there is none."""
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in _PARAMETER.findall(path)]
    parameters += [
        {"name": name, "in": "query", "required": False, "description": words, "schema": QUERY_KINDS.get(name, _TEXT)}
        for name, words in query.items()
    ]
    found: dict[str, Any] = {"responses": {"default": _ERRORS}}
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        properties = {name: {**KINDS.get(name, {}), "description": words} for name, words in body.items()}
        schema = {"type": "object", "properties": properties}
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found
