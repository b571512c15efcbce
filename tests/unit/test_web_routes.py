"""Routes in an app: added once, in front, on the one service; what goes wrong in a handler; the launch flags."""

import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
from deforum_helpers import api
from deforum_helpers.errors import SettingsError
from deforum_helpers.settings_fields import json_object
from deforum_helpers.web import run_now
from deforum_helpers.web.bodies import Fields, Query, parse_object
from deforum_helpers.web.faults import problem
from deforum_helpers.web.routes import Reply, Route, add_routes
from fake_hosts import install
from fastapi import FastAPI
from service_kit import ask


def count(app, path):
    return sum(getattr(route, "path", "") == path for route in app.routes)


@pytest.fixture
def service():
    return SimpleNamespace(state=lambda since, log: {"since": since})


def test_a_new_app_finds_the_same_service_and_an_old_one_nothing_new(service):
    first, second = FastAPI(), FastAPI()
    for app in (first, second, second):
        api.register(app, deforum=True, service=lambda: service)
    assert count(first, "/deforum-wan/api/state") == count(second, "/deforum-wan/api/state")
    for app in (first, second):
        assert ask(app, "GET", "/deforum-wan/api/state?since=x") == (200, {"since": "x"})


def test_a_page_that_answers_to_every_path_doesnt_hide_ours(service):
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: "the page", methods=["GET", "POST"])
    api.register(app, deforum=True, service=lambda: service)
    assert ask(app, "GET", "/deforum-wan/api/state")[1] == {"since": ""}
    assert ask(app, "GET", "/elsewhere") == (200, "the page")


def test_routes_that_come_late_are_in_the_schema(service):
    app = FastAPI()
    app.openapi()
    api.register(app, deforum=False, service=lambda: service)
    assert "/deforum-wan/api/state" in app.openapi()["paths"]


def test_beside_the_original_deforum(service, monkeypatch):
    monkeypatch.setitem(sys.modules, "deforum_api_models", ModuleType("deforum_api_models"))
    app = FastAPI()
    assert api.register(app, deforum=True, service=lambda: service) == "/deforum_wan_api"
    assert count(app, "/deforum_api/jobs") == 0


def test_the_original_may_have_come_first_without_a_trace_but_its_routes(service):
    app = FastAPI()
    app.add_api_route("/deforum_api/batches", lambda: "theirs")
    assert api.register(app, deforum=True, service=lambda: service) == "/deforum_wan_api"
    assert ask(app, "GET", "/deforum_api/batches")[1] == "theirs"
    assert api.register(app, deforum=True, service=lambda: service) == "/deforum_wan_api"


def one_route(do, method="POST", **more):
    app = FastAPI()
    route = Route(method, "/x/{name}", do, "", **({"body": {"known": ""}} if method == "POST" else {}), **more)
    add_routes(app, [route], "tag", lambda: SimpleNamespace())
    return app


def test_a_handlers_answers():
    assert ask(one_route(lambda call: {"a": call.path["name"]}), "POST", "/x/me", {}) == (200, {"a": "me"})
    assert ask(one_route(lambda call: Reply([1], 202)), "POST", "/x/me", {}) == (202, [1])
    assert ask(one_route(lambda call: call.query.whole("n"), "GET"), "GET", "/x/me?n=7") == (200, 7)


def test_a_fault_of_ours_is_an_answer_too(caplog):
    status, told = ask(one_route(lambda call: 1 / 0), "POST", "/x/me", {})
    assert (status, told["error"]["kind"]) == (500, "unexpected")
    assert "a fault of this program: ZeroDivisionError" in told["error"]["message"]
    assert "POST /x/me failed" in caplog.text
    assert ask(one_route(lambda call: float("nan")), "POST", "/x/me", {})[0] == 500


def test_who_leaves_in_the_middle_is_no_fault(caplog):
    assert ask(one_route(lambda call: None), "POST", "/x/me", {}, cut=True) == (400, None)
    assert caplog.text == ""


def test_misspelt_fields_are_refused_but_where_the_original_takes_anything():
    seen = []
    assert ask(one_route(seen.append), "POST", "/x/me", {"knwon": 1})[1]["error"]["field"] == "knwon"
    assert seen == []
    assert ask(one_route(lambda call: 1, strict=False), "POST", "/x/me", {"knwon": 1}) == (200, 1)


def test_half_a_character_in_an_answer_hurts_nobody():
    assert ask(one_route(lambda call: "\ud800"), "POST", "/x/me", {}) == (200, "?")


@pytest.mark.parametrize(
    ("take", "value"),
    [
        (lambda f: f.text("x"), 1), (lambda f: f.text("x", longest=2), "abc"), (lambda f: f.text("x"), "\udc00"),
        (lambda f: f.whole("x"), True), (lambda f: f.whole("x"), 1.5), (lambda f: f.whole("x", least=0), -1),
        (lambda f: f.flag("x"), 1), (lambda f: f.flag("x"), "true"), (lambda f: f.object("x"), []),
        (lambda f: f.objects("x"), [{}, 1]), (lambda f: f.wholes("x"), [1, True]), (lambda f: f.wholes("x"), "1"),
        (lambda f: f.wholes("x"), [2**63]),
        (lambda f: f.wholes("x", most=1), [1, 2]), (lambda f: f.choice("x", ("a",)), "b"),
        (lambda f: f.text("x"), None),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind(take, value):
    with pytest.raises(SettingsError) as caught:
        take(Fields({"x": value}))
    assert caught.value.where == "x"


@pytest.mark.parametrize("text", ["x", "1.5", "9" * 30, "true"])
def test_numbers_of_an_address(text):
    with pytest.raises(SettingsError):
        Query({"x": text}).whole("x")
    assert Query({}).whole("x", 7) == 7
    assert Query({"x": " 12 "}).whole("x") == 12


@pytest.mark.parametrize("text", ["x", "1,", "1,,2", "9" * 30, "1,2,3"])
def test_lists_of_numbers_of_an_address(text):
    with pytest.raises(SettingsError) as caught:
        Query({"x": text}).wholes("x", most=2)
    assert caught.value.where == "x"
    assert Query({}).wholes("x", None) is None
    assert Query({"x": "3, 12"}).wholes("x") == [3, 12]


def test_a_field_is_named_without_the_place_in_its_text():
    with pytest.raises(SettingsError) as caught:
        json_object("{", "text")
    assert problem(caught.value)["field"] == "text" and "line 1, column 2" in problem(caught.value)["message"]


def test_lists_in_lists_have_an_end():
    assert parse_object(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")
    for levels in (100, 5000):
        with pytest.raises(SettingsError) as caught:
            parse_object(b'{"a": ' + b"[" * levels + b"]" * levels + b"}")
        assert caught.value.where == "body"


# Launch flags


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(run_now, "_begun", threading.Event())


def test_settings_files_of_the_command_line(monkeypatch, tmp_path):
    assert run_now.files_to_run() == []
    install(monkeypatch, tmp_path, "a1111", deforum_run_now="a.txt, b c.txt,")
    assert run_now.files_to_run() == ["a.txt", "b c.txt"]


def test_beside_the_original_the_plain_flag_is_its_own(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "a1111", deforum_run_now="a.txt")
    monkeypatch.setitem(sys.modules, "deforum_extend_paths", ModuleType("deforum_extend_paths"))
    monkeypatch.setattr(sys, "argv", ["launch.py", "--deforum-run-now", "a.txt"])
    assert run_now.files_to_run() == []
    monkeypatch.setattr(sys, "argv", ["launch.py", "--deforum-run-now-wan=a.txt"])
    assert run_now.files_to_run() == ["a.txt"]


def test_a_file_that_cant_be_read_ends_the_process_with_a_status(started, tmp_path, caplog):
    ended = []
    run_now.start(SimpleNamespace(), [str(tmp_path / "none.txt")], leave=True, end=ended.append)
    assert ended == [2]
    assert "none.txt" in caplog.text


def test_reload_ui_renders_nothing_twice(started, tmp_path):
    ended = []
    for _ in range(2):
        run_now.start(SimpleNamespace(), [str(tmp_path / "none.txt")], leave=True, end=ended.append)
    assert ended == [2]
