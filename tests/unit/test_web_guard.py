"""Who may ask: foreign pages, passwords, callers at this machine."""

import base64

import pytest
from deforum_helpers.web import address
from deforum_helpers.web.faults import Refused
from deforum_helpers.web.guard import check_request, is_local, is_loopback
from fake_hosts import install
from starlette.requests import Request


class App:
    routes = ()


def request(method="GET", *, app=None, client="127.0.0.1", query=b"", **headers):
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": "/", "headers": raw, "query_string": query,
                    "client": (client, 1), "app": app or App()})  # fmt: skip


def allowed(asked):
    try:
        check_request(asked)
    except Refused as error:
        return error.status
    return 200


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "a:1", "origin": "http://a:1"}, 200),
        ({"host": "A.example", "origin": "https://a.example"}, 200),
        ({"host": "a.example:443", "origin": "https://a.example"}, 200),
        ({"host": "a.example", "origin": "http://a.example:80"}, 200),
        ({"host": "inner:7860", "origin": "https://out", "x_forwarded_host": "out, inner"}, 200),
        ({"host": "inner", "origin": "https://out", "sec_fetch_site": "same-origin"}, 200),
        ({"host": "a:1", "sec_fetch_site": "none"}, 200),
        ({"host": "a:1", "origin": "http://a:2"}, 403),
        ({"host": "a:1", "origin": "http://a:1.evil"}, 403),
        ({"host": "a", "origin": "http://evil"}, 403),
        ({"host": "a", "origin": "null"}, 403),
        ({"host": "a", "origin": ""}, 403),
        ({"host": "", "origin": "null"}, 403),
        ({"host": "a", "sec_fetch_site": "cross-site"}, 403),
        ({"host": "a", "sec_fetch_site": "same-site"}, 403),
        ({"host": "a:1", "origin": "http://a:1@evil"}, 403),
    ],
)
def test_changes_come_from_our_own_pages_or_from_programs(headers, status):
    assert allowed(request("POST", **headers)) == status
    assert allowed(request("DELETE", **headers)) == status
    assert allowed(request("GET", **headers)) == 200


def test_sites_that_the_webui_lets_in(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "a1111", cors_allow_origins="http://one,http://two", cors_allow_origins_regex=None)
    assert allowed(request("POST", host="a", origin="http://two")) == 200
    assert allowed(request("POST", host="a", origin="http://three")) == 403
    install(monkeypatch, tmp_path, "a1111", cors_allow_origins=None, cors_allow_origins_regex=r"http://t\w+")
    assert allowed(request("POST", host="a", origin="http://three")) == 200
    assert allowed(request("POST", host="a", origin="http://three.evil")) == 403


def test_passwords_of_the_host(monkeypatch, tmp_path):
    assert allowed(request()) == 200
    install(monkeypatch, tmp_path, "forge", api_auth="me:a:b,üser:ß")
    for header, status in ((basic("me:a:b"), 200), (basic("üser:ß"), 200), (basic("me:a"), 401), (basic("me"), 401),
                           (basic("nobody:a:b"), 401), ("Basic !", 401), ("", 401), (basic(":"), 401)):  # fmt: skip
        assert allowed(request(authorization=header)) == status, header
    assert allowed(request()) == 401


def test_a_login_of_the_page(monkeypatch):
    app = App()
    app.auth, app.tokens = {"me": "secret"}, {"ticket": "me"}
    assert allowed(request(app=app)) == 401
    assert allowed(request(app=app, cookie="access-token-7860=ticket")) == 200
    assert allowed(request(app=app, cookie="access-token=other")) == 401
    assert allowed(request(app=app, cookie="session=ticket")) == 401
    assert allowed(request(app=app, authorization=basic("me:secret"))) == 200
    app.auth = lambda name, password: (name, password) == ("you", "other")
    assert allowed(request(app=app, authorization=basic("you:other"))) == 200
    assert allowed(request(app=app, authorization=basic("me:secret"))) == 401


def test_the_login_of_a_page_that_is_mounted(monkeypatch):
    outer, route, page = App(), App(), App()
    page.auth, page.tokens = [("me", "secret")], {"ticket": "me"}
    route.app, outer.routes = page, (route,)
    assert allowed(request(app=outer)) == 401
    assert allowed(request(app=outer, cookie="access-token-1=ticket")) == 200
    outer.auth, outer.tokens = {"me": "secret"}, {}
    assert allowed(request(app=outer, cookie="access-token-1=ticket")) == 200
    assert allowed(request(app=outer, authorization=basic("me:secret"))) == 200


def test_the_pages_token(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "forge", api_auth="me:secret")
    token = address.page_token()
    assert len(token) > 20
    assert allowed(request(x_deforum_wan_token=token)) == 200
    assert allowed(request(query=b"token=" + token.encode())) == 200
    assert allowed(request(x_deforum_wan_token=token[:-1])) == 401
    assert allowed(request("POST", x_deforum_wan_token=token, host="a", origin="http://evil")) == 403


def test_a_page_that_fetches_gets_no_dialog(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "forge", api_auth="me:secret")
    for headers, asks in (({}, True), ({"sec_fetch_mode": "navigate"}, True), ({"sec_fetch_mode": "cors"}, False)):
        with pytest.raises(Refused) as caught:
            check_request(request(**headers))
        assert ("WWW-Authenticate" in caught.value.headers) == asks


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("a.localhost", True), ("LOCALHOST.", True), ("192.168.0.2", False), ("localhost.evil", False),
        ("127.0.0.1.evil", False), ("", False),
    ],
)  # fmt: skip
def test_this_machine(name, is_it):
    assert is_loopback(name) == is_it


def test_who_sits_at_this_machine():
    assert is_local(request())
    assert not is_local(request(client="10.0.0.5"))
    assert not is_local(request(x_forwarded_for="10.0.0.5"))
    assert not is_local(request(forwarded="for=10.0.0.5"))
