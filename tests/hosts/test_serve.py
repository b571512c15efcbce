"""`serve`: the page and the API without a WebUI, in the gradio of the isolated environment."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deforum_helpers.errors import InputError
from deforum_helpers.web.serve import OnlyKnownNames, serve, serve_command

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
_CODE = "import sys; sys.path.insert(0, sys.argv[1])\nfrom deforum_helpers.web.serve import serve\nsys.exit(serve(0))"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("serve")
    variables = {f"DEFORUM_WAN_{name}": str(folder / name.lower()) for name in ("DATA", "STATE", "OUT")}
    process = subprocess.Popen([sys.executable, "-c", _CODE, str(SCRIPTS)], env={**os.environ, **variables}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)  # fmt: skip
    said = ""
    while "Deforum Wan: http://127.0.0.1:" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    yield int(said.rpartition(":")[2])
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(30) in (0, -signal.SIGINT)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def get(port: int, path: str, **headers: str):
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:  # bound, and about to listen
            assert time.monotonic() < deadline
            time.sleep(0.1)
        finally:
            connection.close()


def test_the_page_its_code_and_the_api(port):
    status, page = get(port, "/")
    assert status == 200
    assert b"/deforum-wan/static/javascript/deforum_wan_core.js" in page
    assert get(port, "/deforum-wan/static/javascript/deforum_wan_core.js")[0] == 200
    assert get(port, "/deforum-wan/static/style.css")[0] == 200
    status, state = get(port, "/deforum-wan/api/state")
    assert (status, json.loads(state)["host"]["name"]) == (200, "standalone")
    assert json.loads(get(port, "/deforum_api/jobs")[1]) == {}


def test_names_that_only_point_here_are_refused(port):
    assert get(port, "/deforum-wan/api/state", Host="evil.example")[0] == 403
    assert get(port, "/", Host="evil.example")[0] == 403
    assert get(port, "/deforum-wan/api/state", Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("localhost:7860", True), ("127.0.0.1", True), ("[::1]:7860", True), ("192.168.1.4:80", True),
        ("box:7860", True), ("box.local", True), (f"{socket.gethostname()}:1", True), ("evil.example", False),
        ("127.0.0.1.evil", False), ("", False), ("box.evil", False), ("a.box", False),
    ],
)  # fmt: skip
def test_which_names_are_known(name, known):
    assert OnlyKnownNames(None, ["Box"]).is_known(name) == known


def test_a_port_that_is_taken_is_said_at_once():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="port can't be had"):
            serve(other.getsockname()[1])
    with pytest.raises(InputError, match="port can't be had"):
        serve(70_000)


def test_the_command_hands_on_what_it_was_told(monkeypatch):
    from argparse import Namespace

    told = []
    monkeypatch.setattr("deforum_helpers.web.serve.serve", lambda *given, **named: told.append((given, named)) or 0)
    assert serve_command(Namespace(port=1, host="::1", listen=False, allow_host=["box"], auth=["me:se:cret"])) == 0
    assert serve_command(Namespace(port=2, host="127.0.0.1", listen=True)) == 0
    assert told == [
        ((1, "::1"), {"names": ["box"], "users": [("me", "se:cret")]}), ((2, "0.0.0.0"), {"names": (), "users": []}),
    ]  # fmt: skip
    with pytest.raises(InputError, match="NAME:PASSWORD"):
        serve_command(Namespace(port=1, auth=["me"]))
