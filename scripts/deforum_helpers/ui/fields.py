"""The fields of the settings as a form or a program needs them."""

from __future__ import annotations

from typing import Any

from ..settings import FIELDS


def field_facts() -> list[dict[str, Any]]:
    """Kind, range, choices, default and hint of each, under the names that the page code knows."""
    return [
        {
            "name": field.name, "kind": field.kind, "group": field.group, "default": field.default,
            "hint": field.hint, "allowed": field.allowed, "choices": list(field.choices), "minimum": field.minimum,
            "maximum": field.maximum, "multiple": field.multiple, "deforum": list(field.deforum),
        }
        for field in FIELDS.values()
        if field.name != "extra"
    ]  # fmt: skip
