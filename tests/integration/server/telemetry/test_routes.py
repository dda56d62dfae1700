"""Messages of devices over HTTP: taken, refused, answered."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient

from shoal_protocol.mqtt.messages import MAX_PAYLOAD
from shoal_server.storage.database import Database
from shoal_server.telemetry import store
from shoal_server.telemetry.ingest import Ingest
from shoal_server.telemetry.routes import MAX_BODY, MAX_MESSAGES, router
from shoal_server.testing.link import FakeLink
from shoal_server.testing.program import fake_services, program_of
from shoal_server.testing.telemetry import EPOCH, START_MS, profile_payload

URL = "/api/v1/device/messages"


@pytest.fixture
def client(database: Database, tmp_path: Path) -> Iterator[TestClient]:
    ingest = Ingest(FakeLink(), database, {}, lambda: START_MS / 1000 + 310)
    services = fake_services(
        database,
        tmp_path,
        ingest=ingest,
        verify_device=lambda _session, device, secret: (device, secret) == ("d1", "x"),
    )
    ingest.start()
    client = TestClient(program_of(services, [router]))
    client.auth = ("d1", "x")
    yield client
    ingest.stop()


def posted(*messages: tuple[str, bytes]) -> bytes:
    return msgspec.json.encode([{"kind": kind, "payload": base64.b64encode(raw).decode()} for kind, raw in messages])


def stored(database: Database) -> list[tuple[str, int]]:
    with database.read() as session:
        return [(entry.device, entry.seq) for entry in store.windows_after(session, 0, 100)]


def test_messages_are_stored_under_the_device_and_acknowledged(client, database):
    body = posted(("profile", profile_payload(seq=1)), ("profile", b"damaged"), ("profile", profile_payload(seq=2)))
    answer = client.post(URL, content=body)
    assert answer.status_code == 200
    document = answer.json()
    assert document["acks"] == [{"epoch": EPOCH, "through": 2, "ranges": []}]
    assert [entry["index"] for entry in document["rejected"]] == [1]
    assert stored(database) == [("d1", 1), ("d1", 2)]
    assert client.post(URL, content=body).json()["acks"] == document["acks"]
    assert stored(database) == [("d1", 1), ("d1", 2)]


def test_nothing_to_say_is_no_error(client):
    answer = client.post(URL, content=b"[]")
    assert (answer.status_code, answer.json()) == (200, {"acks": [], "rejected": []})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b"[" * 100_000, 422),
        (b'[{"kind": "nothing", "payload": ""}]', 422),
        (b'[{"kind": "profile", "payload": "%%%"}]', 422),
        (posted(*[("profile", b"x")] * (MAX_MESSAGES + 1)), 413),
        (posted(("profile", b"x" * (MAX_PAYLOAD + 1))), 413),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
def test_what_is_no_list_of_messages_is_refused(client, database, body, status):
    answer = client.post(URL, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert stored(database) == []


@pytest.mark.parametrize("auth", [None, ("d1", "wrong"), ("d2", "x")])
def test_only_devices_may(client, auth: Any):
    client.auth = None
    assert client.post(URL, content=posted(("profile", profile_payload(seq=1))), auth=auth).status_code == 401


def test_a_server_that_can_not_store_says_come_again(client, database, monkeypatch):
    monkeypatch.setattr(client.app.state.shoal.ingest, "_down", "the database is away")
    answer = client.post(URL, content=posted(("profile", profile_payload(seq=1))))
    assert answer.status_code == 503
    assert answer.json()["code"] == "busy"
    assert stored(database) == []


def test_a_device_that_goes_away_within_its_request_is_no_fault_of_the_server(client, caplog):
    parts = iter([{"type": "http.request", "body": b"[", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(parts)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": URL, "raw_path": URL.encode(), "root_path": "", "query_string": b"",
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("device", 1),
        "headers": [(b"authorization", b"Basic " + base64.b64encode(b"d1:x"))],
    }  # fmt: skip
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert [record for record in caplog.records if record.exc_info] == []
