"""docs/api.md and the tables in the code name the same routes, and each route's fields."""

import re
from pathlib import Path

import pytest
from deforum_helpers.web import app_routes as module
from deforum_helpers.web.app_routes import BASE, app_routes
from deforum_helpers.web.deforum_api import deforum_routes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `((?:GET|POST|DELETE) /\S+)` \|.*$", PAGE, re.M)}


def name_of(route):
    return f"{route.method} {route.path.removeprefix(BASE)}"


def test_every_route_is_documented_and_nothing_else():
    assert set(ROWS) == {name_of(route) for route in (*app_routes(), *deforum_routes())}


@pytest.mark.parametrize("route", app_routes(), ids=name_of)
def test_every_field_of_a_request_is_documented(route):
    for field in (*(route.body or ()), *route.query):
        assert f"`{field}`" in ROWS[name_of(route)], field


def test_the_modules_own_table_is_whole():
    listed = module.__doc__
    for route in app_routes():
        tail = route.path.removeprefix(BASE).replace("{kind}/{name}", "frame/{number}")
        assert tail in listed or f"/{tail.rpartition('/')[2]}" in listed, tail


def test_no_two_routes_have_one_name():
    names = [name_of(route) for route in (*app_routes(), *deforum_routes())]
    assert len(names) == len(set(names))
