"""Routes, status codes and problems, with a slot table that has no model or a model that is none."""

import json
from pathlib import Path

import pytest

from shoal_agent.runtime.errors import Fault, InputError
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api, problem
from shoal_agent.serving.http_message import Response, parse_head
from shoal_agent.serving.listen import Listen, parse_listen, parse_listens
from shoal_protocol.errors import CallerError

API = Api(SlotTable(), hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}))


def ask(target: str, *headers: str, method: str = "GET", host: str = "localhost:8130") -> Response:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    return API.answerer(parse_head("\r\n".join(lines).encode()))(b"")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2", 200),
        ("HEAD", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 503),
        ("GET", "/v2/models", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v2/models/quality", 404),
        ("POST", "/v2/models/quality/infer", 404),
        ("POST", "/v1/predict", 503),
        ("GET", "/v1/predict", 405),
        ("POST", "/v2", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/quality/nothing", 404),
        ("GET", "/", 404),
    ],
)
def test_every_path_has_its_status(method: str, target: str, status: int) -> None:
    response = ask(target, method=method)
    assert response.status == status
    if status >= 400:
        document = json.loads(response.body)
        assert document["status"] == status
        assert document["error"] == document["detail"]
        assert response.content_type == "application/problem+json"
    assert ("Allow" in response.headers) is (status == 405)


@pytest.mark.parametrize("host", ["evil.example:8130", "", "127.0.0.1.evil.example", "localhost:8130:1"])
def test_a_web_page_under_another_name_is_refused(host: str) -> None:
    assert ask("/v2", host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8130", "[::1]:8130", "[::1]"])
def test_the_names_of_this_machine_are_taken(host: str) -> None:
    assert ask("/v2", host=host).status == 200


def test_a_request_of_a_web_page_is_refused() -> None:
    assert ask("/v2", "Origin: http://localhost:8130").status == 403


def test_faults_of_an_input_are_listed() -> None:
    response = problem(InputError([Fault("age", "numbers", "'x' (text)", 3)], hint="h"))
    document = json.loads(response.body)
    assert response.status == 400
    assert document["faults"] == [{"field": "age", "expected": "numbers", "got": "'x' (text)", "row": 3}]
    assert (document["code"], document["hint"]) == ("input", "h")
    assert "'age' in row 3: expected numbers, got 'x' (text)" in document["detail"]


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:8130", "[::1]:1", "unix:/run/a.sock"])
def test_loopback_and_unix_sockets_are_listened_on(text: str) -> None:
    assert parse_listen(text).is_loopback


@pytest.mark.parametrize("text", ["", "8130", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", ":8130"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(CallerError, match="no address"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8130", "[::]:1", "192.0.2.1:1", "device.example:1"])
def test_other_machines_are_let_in_only_when_said_so(text: str) -> None:
    with pytest.raises(CallerError, match="other machines"):
        parse_listen(text)
    assert parse_listen(text, insecure=True).hosts is None


def test_several_addresses_are_separated_by_commas() -> None:
    assert parse_listens("none") == []
    both = parse_listens("127.0.0.1:8130, unix:/run/a.sock")
    assert both == [Listen("127.0.0.1", 8130), Listen(path=Path("/run/a.sock"))]
    assert len(parse_listens("127.0.0.1:0,127.0.0.1:0")) == 2
    with pytest.raises(CallerError, match="twice"):
        parse_listens("unix:/a,unix:/a")
    with pytest.raises(CallerError, match="is no address"):
        parse_listens("127.0.0.1:8130,none")
    with pytest.raises(CallerError, match="other machines"):
        parse_listens("127.0.0.1:8130,0.0.0.0:8130")
