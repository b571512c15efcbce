"""The schema tells the truth: every field's kind is the one that is asked for, and no body makes a fault of ours."""

import json
import re

import pytest
from deforum_helpers import api
from deforum_helpers.deforum_files import names_of_fields
from deforum_helpers.settings import FIELDS
from deforum_helpers.web.app_routes import BASE, app_routes
from deforum_helpers.web.deforum_api import PREFIX, deforum_routes
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_kit import SETTINGS, ask, services

STARTS_PROGRAMS = (f"{BASE}/environment", f"{BASE}/worker")
POSTS = [route for route in (*app_routes(), *deforum_routes()) if route.method == "POST"]
SAFE = [route for route in POSTS if not route.path.startswith(STARTS_PROGRAMS)]
# What a request needs before its other fields are looked at.
NEEDED = {
    "name": "mine.png", "settings": SETTINGS, "axes": {"seed": [1]}, "text": "{}", "folder": "nowhere", "ids": [1],
    "field": "init_image", "data": "", "clip": 1, "deforum_settings": SETTINGS,
}  # fmt: skip
WRONG = {"string": 5, "boolean": "yes", "integer": "1", "number": "1", "array": {"0": 1}, "object": [1]}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The API on a queue that never runs, with a waiting job, number 1, and a preset "mine.png"."""
    with pytest.MonkeyPatch.context() as patch, services(tmp_path_factory.mktemp("schema"), patch) as make:
        one = make(run=False)
        one.queue.pause()
        one.add([SETTINGS])
        one.presets.save("mine.png", {"width": 64})
        app = FastAPI()
        api.register(app, deforum=True, service=lambda: one)
        yield app


def filled(path):
    return path.replace("{job}", "1").replace("{name}", "mine.png").replace("{id}", "1")


def operations(app):
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_schema_is_whole(app):
    json.dumps(app.openapi(), allow_nan=False)
    found = list(operations(app))
    assert len(found) == len(app_routes()) + len(deforum_routes())
    assert len({operation["operationId"] for _, _, operation in found}) == len(found)
    for path, method, operation in found:
        assert operation["summary"] and operation["responses"]["default"]["content"]
        named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), path
        assert ("requestBody" in operation) == (method == "post"), path
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"]["type"] in ("string", "integer", "boolean"), (path, parameter)


@pytest.mark.parametrize(
    ("route", "field"), [(route, field) for route in POSTS for field in route.body],
    ids=lambda value: value if isinstance(value, str) else value.path.removeprefix(BASE),
)  # fmt: skip
def test_a_value_of_another_kind_than_the_schema_s_is_refused_by_name(app, route, field):
    content = app.openapi()["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    kind = content["properties"][field]
    assert kind.keys() > {"description"}, "no kind is known of it: see web/schema.py"
    body = {name: NEEDED[name] for name in route.body if name in NEEDED and {name, field} != {"settings", "jobs"}}
    status, answer = ask(app, "POST", filled(route.path), {**body, field: WRONG[kind.get("type", "object")]})
    assert (status, answer["error"]["field"]) == (422, field), answer


ODD = (
    None, True, -1, 0, 2**70, 1e308, 0.5, [], {}, [[1]], {"0": {}}, "", " ", "\0", "\ud800", "~no-such-user/x", "../x",
    "a" * 5000, "0: (", "0: (1), 0: (2)", "0: (t**t**t)", "{", '{"0": 1}', "[", "nan", "9" * 40, "1/0", "http://x/y.png",
)  # fmt: skip


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "extra"])
def test_odd_values_are_their_fields_fault_and_never_ours(app, field):
    for value in ODD:
        status, shown = ask(app, "POST", f"{BASE}/plan", {"settings": {**SETTINGS, field: value}})
        assert status == 200 and (shown["ok"] or shown["errors"]), (value, shown)
        assert shown["ok"] or field in {error["field"] for error in shown["errors"]}, (value, shown["errors"])


LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from([one for one in ODD if not isinstance(one, list | dict)])
)  # fmt: skip
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
SETTINGS_LIKE = st.dictionaries(st.sampled_from([*FIELDS, *names_of_fields(FIELDS)]), VALUES, max_size=6).map(
    lambda found: {**SETTINGS, **found}
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_body_makes_a_fault_of_ours(app, data):
    route = data.draw(st.sampled_from(SAFE))
    fields = {name: st.just(NEEDED[name]) if name in NEEDED else VALUES for name in route.body}
    good, odd = data.draw(st.fixed_dictionaries({}, optional=fields)), {}
    if route.body:
        odd = data.draw(st.dictionaries(st.sampled_from(list(route.body)), VALUES | SETTINGS_LIKE, max_size=2))
    path = route.path.replace("{job}", data.draw(st.sampled_from(["1", "2", "0", "-1", "9" * 30, "x", "%00"])))
    status, answer = ask(app, "POST", filled(path), {**good, **odd})
    assert status < 500, answer
    if status >= 400 and not path.startswith(PREFIX):
        assert answer["error"]["message"] and "\n" not in answer["error"]["message"]
