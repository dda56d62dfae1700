"""The local interface over real sockets."""

import gzip
import http.client
import json
import re
import socket
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_models import linear_bundle
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.connection import Limits
from shoal_agent.serving.front import Front
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen
from shoal_protocol.errors import LocalError

X = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
TCP = Listen("127.0.0.1", 0)


def loaded(features: int) -> LoadedModel:
    digest, blobs = linear_bundle(features)
    return LoadedModel.load(from_blobs(digest, lambda name, _: blobs[name]))


@pytest.fixture(scope="module")
def slots() -> SlotTable:
    table = SlotTable()
    table.install("quality", loaded(4))
    return table


@contextmanager
def served(slots: SlotTable, listen: Listen = TCP, limits: Limits | None = None) -> Iterator[str]:
    server = LocalServer(Api(slots, hosts=listen.hosts).answerer, listen, limits=limits)
    address = server.start()
    try:
        yield address
    finally:
        server.stop()


@pytest.fixture(scope="module")
def address(slots: SlotTable) -> Iterator[str]:
    with served(slots) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address, timeout=10)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Any:
    payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    client.request(method, path, payload, {name.replace("_", "-"): value for name, value in headers.items()})
    response = client.getresponse()
    raw = response.read()
    return response.status, json.loads(raw) if "json" in response.headers["Content-Type"] else raw, response.headers


def infer_body(x: np.ndarray = X) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}


def raw_exchange(address: str, *parts: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more
    return received


def test_every_form_answers_the_same_numbers(client: http.client.HTTPConnection, slots: SlotTable) -> None:
    model = slots.get("quality")
    assert model is not None
    expected = model.predict({"x": X})
    status, document, _ = ask(client, "POST", "/v2/models/quality/infer", infer_body())
    assert status == 200
    assert document["model_version"] == "1.0.0"
    assert document["parameters"]["digest"] == model.digest
    by_name = {output["name"]: output for output in document["outputs"]}
    assert by_name["label"]["data"] == expected["label"].tolist()
    json_p = np.array(by_name["probabilities"]["data"], np.float32).reshape(3, 3)
    assert np.array_equal(json_p, expected["probabilities"])

    rows = [{f"x{at}": float(row[at]) for at in range(4)} for row in X]
    for body in (rows, {"rows": rows}):
        status, document, _ = ask(client, "POST", "/v1/predict", body)
        assert (status, document["digest"], document["bundle"]) == (200, model.digest, "quality:1.0.0")
        got = document["predictions"]
        assert [row["label"] for row in got] == expected["label"].tolist()
        assert np.array_equal(
            np.array(list(got[2]["probabilities"].values()), np.float32), expected["probabilities"][2]
        )
        assert list(got[0]["probabilities"]) == ["0", "1", "2"]

    tensor = {"name": "x", "shape": [3, 4], "datatype": "FP32", "parameters": {"binary_data_size": X.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = str(len(head))
    path = "/v2/models/quality/versions/1.0.0/infer"
    status, raw, headers = ask(client, "POST", path, head + X.tobytes(), Inference_Header_Content_Length=length)
    assert status == 200
    blobs = raw[int(headers["Inference-Header-Content-Length"]) :]
    assert blobs == expected["label"].tobytes() + expected["probabilities"].tobytes()


def test_metadata_and_readiness(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/v2")[1]["name"] == "shoal-agent"
    assert ask(client, "GET", "/v2/health/ready")[0] == 200
    assert ask(client, "GET", "/v2/models/quality/ready")[0] == 200
    document = ask(client, "GET", "/v2/models/quality/versions/1.0.0")[1]
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert ask(client, "GET", "/v2/models")[1]["models"][0]["name"] == "quality"
    status, document, _ = ask(client, "GET", "/v2/models/quality/versions/2.0.0")
    assert status == 404
    assert "runs version 1.0.0" in document["error"]


def test_what_does_not_fit_is_a_400_that_names_the_field(client: http.client.HTTPConnection) -> None:
    status, document, headers = ask(client, "POST", "/v1/predict", [{"x0": 1, "x1": "a", "x2": 3, "x3": 4}])
    assert (status, headers["Content-Type"]) == (400, "application/problem+json")
    assert document["faults"] == [{"field": "x1", "expected": "numbers", "got": "'a' (text)", "row": 0}]
    status, document, _ = ask(client, "POST", "/v2/models/quality/infer", infer_body(X[:, :3]))
    assert status == 400
    assert document["error"] == "'x': expected float32[N, 4], got float32[3, 3]"
    for path in ("/v1/predict", "/v2/models/quality/infer"):
        status, document, _ = ask(client, "POST", path, b"{")
        assert (status, document["code"]) == (400, "request")
    assert ask(client, "POST", "/v1/predict?slot=other", [])[0] == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/quality/infer", {"inputs": [{"name": "x", "shape": [], "datatype": "FP32", "data": [1.0]}]}),
        ("/v1/predict", [{f"x{at}": 10**400 for at in range(4)}]),
    ],
    ids=["a tensor without dimensions", "a number beyond any float"],
)
def test_what_no_model_can_take_is_the_callers_fault(client: http.client.HTTPConnection, path: str, body: Any) -> None:
    client.request("POST", path, json.dumps(body))
    answer = client.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (400, "input")


def test_a_system_without_threads_refuses_and_goes_on(slots: SlotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with served(slots) as url:
        address = url.removeprefix("http://")
        host, _, port = address.partition(":")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with socket.create_connection((host, int(port)), timeout=10) as refused:
                assert refused.recv(65536).startswith(b"HTTP/1.1 503")
        request = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert raw_exchange(address, request).startswith(b"HTTP/1.1 200")


def test_metrics_count_what_was_answered(slots: SlotTable) -> None:
    with served(slots) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        page = ask(connection, "GET", "/metrics")[1].decode()
        connection.close()
    model = slots.get("quality")
    assert model is not None
    totals = model.observer.totals()
    labels = f'slot="quality",bundle="quality:1.0.0",digest="{model.digest}"'
    assert f"shoal_agent_predictions_total{{{labels}}} {totals.calls}\n" in page
    assert f'shoal_agent_prediction_seconds_bucket{{{labels},le="+Inf"}} {totals.calls}\n' in page
    assert f"shoal_agent_model_active{{{labels}}} 1\n" in page
    from prometheus_client.parser import text_string_to_metric_families

    names = {family.name for family in text_string_to_metric_families(page)}
    assert {"shoal_agent_rows", "shoal_agent_prediction_errors", "process_resident_memory_bytes"} <= names


def test_a_request_in_pieces_and_several_at_once(address: str) -> None:
    body = json.dumps(infer_body()).encode()
    head = f"POST /v2/models/quality/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    pieces = [head[:10], head[10:-2], head[-2:] + body[:7], body[7:]]
    assert raw_exchange(address, *pieces).startswith(b"HTTP/1.1 200 OK\r\n")
    twice = raw_exchange(address, (head + body) * 2)
    assert twice.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_heads_of_any_order_on_one_connection_get_their_own_answers(address: str) -> None:
    def request(path: str, body: bytes, *headers: str) -> bytes:
        method = "POST" if body else "GET"
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    rows = [json.dumps([{f"x{at}": 10.0**digits for at in range(4)}]).encode() for digits in (0, 5, 12)]
    tensor = json.dumps(infer_body()).encode()
    packed = gzip.compress(rows[0])
    parts = [
        *(request("/v1/predict", row) for row in rows),
        request("/v1/predict", packed, "Content-Encoding: gzip"),
        request("/v1/predict", packed),
        request("/v2/models/quality/infer", tensor),
        request("/v2", b""),
        request("/v2/models/quality/infer", tensor + b" "),
        request("/v2/health/live", b""),
        request("/v1/predict", rows[2], "Connection: close"),
    ]
    for sent in (parts, [b"".join(parts)]):
        received = raw_exchange(address, *sent)
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", received)
        assert b" ".join(statuses) == b"200 200 200 200 400 200 200 200 200 200"
        assert received.count(b'"prediction_id"') == 7


def test_a_connection_that_repeats_its_head_is_answered_by_the_model_of_the_moment() -> None:
    table = SlotTable(drain_s=0)
    first, second = loaded(4), loaded(5)
    gone = weakref.ref(first)
    table.install("quality", first)
    with served(table) as url:
        client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        rows = [{f"x{at}": 1.0 for at in range(4)}]
        assert ask(client, "POST", "/v1/predict", rows)[1]["digest"] == first.digest
        table.install("quality", second)
        del first
        assert gone() is None  # an idle connection keeps no model
        status, told, _ = ask(client, "POST", "/v1/predict", rows)
        assert (status, [fault["field"] for fault in told["faults"]]) == (400, ["x4"])
        assert ask(client, "POST", "/v1/predict", [{**rows[0], "x4": 1.0}])[1]["digest"] == second.digest
        table.remove("quality")
        assert ask(client, "POST", "/v1/predict", rows)[0] == 503
        client.close()


def test_compressed_and_expected_bodies(client: http.client.HTTPConnection, address: str) -> None:
    packed = gzip.compress(json.dumps(infer_body()).encode())
    assert ask(client, "POST", "/v2/models/quality/infer", packed, Content_Encoding="gzip")[0] == 200
    for body, encoding, status in ((packed[:-9], "gzip", 400), (b"x", "gzip", 400), (packed, "br", 415)):
        again = http.client.HTTPConnection(address)
        assert ask(again, "POST", "/v2/models/quality/infer", body, Content_Encoding=encoding)[0] == status
        again.close()
    body = json.dumps(infer_body()).encode()
    head = f"POST /v2/models/quality/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost b\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabc", 400),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403),
    ],
)
def test_bad_requests_get_an_answer_and_the_end(address: str, raw: bytes, status: int) -> None:
    answer = raw_exchange(address, raw)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer


def test_a_bomb_is_not_unpacked(slots: SlotTable) -> None:
    with served(slots, limits=Limits(body_bytes=100_000)) as url:
        client = http.client.HTTPConnection(url.removeprefix("http://"))
        bomb = gzip.compress(b"[" + b" " * 50_000_000)
        assert len(bomb) < 100_000
        assert ask(client, "POST", "/v1/predict", bomb, Content_Encoding="gzip")[0] == 413
        client.close()


def test_more_connections_than_allowed_are_told(slots: SlotTable) -> None:
    with served(slots, limits=Limits(connections=2)) as url:
        clients = [http.client.HTTPConnection(url.removeprefix("http://"), timeout=10) for _ in range(3)]
        assert [ask(client, "GET", "/v2")[0] for client in clients[:2]] == [200, 200]
        clients[2].connect()
        with clients[2].sock as refused:
            assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
        for client in clients:
            client.close()


def test_a_slow_request_is_ended(slots: SlotTable) -> None:
    with served(slots, limits=Limits(request_s=0.0)) as url:
        answer = raw_exchange(url.removeprefix("http://"), b"GET /v2 HT")
        assert answer.startswith(b"HTTP/1.1 400")  # it ended before it was complete
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            got = b""
            for _ in range(100):
                connection.sendall(b"G")
                connection.settimeout(0.02)
                try:
                    got = connection.recv(1000)
                    break
                except TimeoutError:
                    continue
        assert got.startswith(b"HTTP/1.1 408")


def test_a_unix_socket_serves_and_goes(slots: SlotTable, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with served(slots, Listen(path=path)) as url:
        assert url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        with pytest.raises(LocalError, match="can't listen on .*: Address already in use$"):
            LocalServer(Api(slots).answerer, Listen(path=path)).start()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))  # and never unlinked
    with served(slots, Listen(path=path)):
        assert path.is_socket()


def test_stopping_ends_open_connections_and_threads(slots: SlotTable) -> None:
    before = threading.active_count()
    with served(slots) as url:
        client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        assert ask(client, "GET", "/v2")[0] == 200
        taken = Listen("127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(LocalError):
            LocalServer(Api(slots).answerer, taken).start()
    assert threading.active_count() == before
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(client, "GET", "/v2")
    client.close()


def test_tcp_and_a_unix_socket_answer_at_once_and_all_or_none(slots: SlotTable, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    front = Front(f"127.0.0.1:0,unix:{path}")
    front.open()
    tcp, unix = front.start(slots)
    try:
        for address, family in ((tcp, socket.AF_INET), (unix, socket.AF_UNIX)):
            host, _, port = address.removeprefix("http://").rpartition(":")
            with socket.socket(family) as client:
                client.connect((host, int(port)) if family == socket.AF_INET else str(path))
                client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
        with pytest.raises(LocalError):
            Front(f"unix:{tmp_path}/other.sock,{tcp.removeprefix('http://')}").open()
        assert not (tmp_path / "other.sock").exists()
    finally:
        front.stop()
    assert not path.exists()


def test_addresses_that_were_taken_and_never_served_are_given_back(tmp_path: Path) -> None:
    front = Front(f"127.0.0.1:0,unix:{tmp_path}/agent.sock")
    front.open()
    assert (tmp_path / "agent.sock").is_socket()
    front.stop()
    assert not (tmp_path / "agent.sock").exists()
