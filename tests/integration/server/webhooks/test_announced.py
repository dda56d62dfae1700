"""What a whole server tells a receiver while models, aliases and devices come and go, over its real API."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fixtures_broker import eventually
from shoal_protocol.trust.enrolment import enrol_proof_message
from shoal_protocol.trust.join_token import parse_join_token
from shoal_server.bootstrap import Server
from shoal_server.fleet import clones
from shoal_server.storage.settings import Pace
from shoal_server.testing import settings_in
from shoal_server.testing.bundles import push_bundle, tiny_bundle
from webhook_receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pace = Pace(webhooks_s=0.05)
    server = Server(settings_in(tmp_path / "data", webhook_allow=("127.0.0.0/8",), pace=pace, compress=False))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def api(server: Server) -> Iterator[httpx2.Client]:
    origin = {"origin": server.runtime.url}
    with httpx2.Client(base_url=server.runtime.url, trust_env=False, headers=origin) as client:
        client.post("/api/v1/login", json={"name": "admin", "password": server.first_password})
        yield client


def _join(api: httpx2.Client, name: str, **wanted: Any) -> None:
    text = api.post("/api/v1/join-tokens", json={"labels": {"site": "bern"}, **wanted}).json()["token"]
    token, key = parse_join_token(text), ec.generate_private_key(ec.SECP256R1())
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()
    challenge = api.get("/api/v1/device/challenge", params={"subject": token.id}).json()["challenge"]
    proof = key.sign(enrol_proof_message(challenge, token.id, name, pem), ec.ECDSA(hashes.SHA256())).hex()
    body = {
        "token_id": token.id,
        "token_secret": token.secret,
        "name": name,
        "public_key": pem,
        "challenge": challenge,
        "proof": proof,
    }
    assert api.post("/api/v1/device/enrol", json=body).status_code == 200


def _told(receiver: Receiver, family: str) -> list[tuple[str, str]]:
    found = zip(receiver.types, receiver.subjects, strict=True)
    return [(name.removeprefix(f"{family}."), subject) for name, subject in found if name.startswith(f"{family}.")]


def test_models_and_devices_are_told_as_they_come_and_go(
    server: Server, api: httpx2.Client, receiver: Receiver
) -> None:
    made = api.post("/api/v1/webhooks", json={"name": "ops", "url": receiver.url})
    assert made.status_code == 201, made.text
    push_bundle(api, tiny_bundle(name="reader", version="1.0.0"), headers={})
    path = "/api/v1/models/reader"
    for _ in range(2):  # the same again is no event
        api.put(f"{path}/aliases/champion", json={"version": "1.0.0"})
        api.post(f"{path}/versions/1.0.0/deny")
    api.post(f"{path}/versions/1.0.0/allow")
    api.delete(f"{path}/aliases/champion")
    _join(api, "cam-1")
    _join(api, "cam-2", preauthorised=False)
    api.post("/api/v1/devices/cam-2/accept")
    with server.services.database.write() as session:
        for _ in range(2):
            clones.suspect(session, "cam-1", why="message 3 came with two contents", now=time.time())
    api.patch("/api/v1/devices/cam-1/labels", json={"labels": {"line": "3"}})  # told to nobody
    api.post("/api/v1/devices/cam-1/revoke")
    api.post("/api/v1/devices/cam-1/decommission")
    eventually(lambda: "device.decommissioned" in receiver.types, within_s=60)

    assert _told(receiver, "model") == [
        ("pushed", "model:reader:1.0.0"),
        ("alias_moved", "model:reader@champion"),
        ("denied", "model:reader:1.0.0"),
        ("allowed", "model:reader:1.0.0"),
        ("alias_moved", "model:reader@champion"),
    ]
    assert _told(receiver, "device") == [
        ("enrolled", "device:cam-1"),
        ("enrolled", "device:cam-2"),
        ("accepted", "device:cam-2"),
        ("clone_suspected", "device:cam-1"),
        ("revoked", "device:cam-1"),
        ("decommissioned", "device:cam-1"),
    ]
    data = {name: one.event["data"] for name, one in zip(receiver.types, receiver.got, strict=True)}
    assert data["model.pushed"]["actor"] == data["device.revoked"]["actor"] == "person:admin"
    assert data["model.pushed"]["url"] == f"{server.runtime.url}/models/reader"
    assert (data["device.accepted"]["state"], data["device.accepted"]["labels"]) == ("accepted", {"site": "bern"})
    assert data["device.enrolled"]["actor"].startswith("join_token:")
    shown = api.get("/api/v1/alerts").json()["items"]
    told = next(one.event["data"] for one in receiver.got if one.event["data"].get("kind") == "clone")
    assert told["text"] == next(one["body"] for one in shown if one["kind"] == "clone")
    counted = f'shoal_webhook_attempts_total{{outcome="delivered",webhook="ops"}} {float(len(receiver.got))}'
    eventually(lambda: counted in api.get("/metrics").text, within_s=30)
