"""A device joins a whole server, hears what to run, is listened to, and is thrown out: on both kinds of broker."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.metadata import Metadata, Root

from fixtures_broker import PahoDevice, eventually
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import UnsignedError
from shoal_protocol.mqtt.messages import Ack, Birth, Event, Message, Presence, Reported, SlotReport, encode_message
from shoal_protocol.mqtt.topics import Down, Up, down, up
from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.profile import summarise
from shoal_protocol.trust.assignment import SlotTarget, verify_assignment
from shoal_protocol.trust.enrolment import EnrolReply, EnrolRequest, enrol_proof_message
from shoal_protocol.trust.join_token import parse_join_token
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.storage.settings import Pace
from shoal_server.telemetry import store as telemetry
from shoal_server.testing import settings_in
from shoal_server.testing.bundles import push_bundle, tiny_bundle

EPOCH = "0123456789abcdef"
PACE = Pace(publisher_s=0.05, controller_s=0.2, scan_s=0.2)


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.broker)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    changes: dict[str, Any] = {"pace": PACE}
    if request.param == "mosquitto":
        broker = request.getfixturevalue("mosquitto")
        changes |= {"broker": broker.url, "broker_credentials_dir": broker.folder}
    server = Server(settings_in(tmp_path / "data", **changes))
    server.start()
    yield server
    server.stop()


def _join(client: httpx2.Client, name: str) -> tuple[EnrolReply, Root]:
    """Do what `shoal-agent join` does: pin the root, prove a key, get a secret."""
    text = client.post("/api/v1/join-tokens", json={"uses": 1, "labels": {"site": "bern"}}).json()["token"]
    token = parse_join_token(text)
    root = client.get("/trust/1.root.json").content
    assert sha256_digest(root) == token.root_digest
    key = ec.generate_private_key(ec.SECP256R1())
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()
    challenge = client.get("/api/v1/device/challenge", params={"subject": token.id}).json()["challenge"]
    proof = key.sign(enrol_proof_message(challenge, token.id, name, pem), ec.ECDSA(hashes.SHA256())).hex()
    body = EnrolRequest(
        token_id=token.id, token_secret=token.secret, name=name, public_key=pem, challenge=challenge, proof=proof
    )
    answer = httpx2.post(f"{client.base_url}/api/v1/device/enrol", content=msgspec.json.encode(body), trust_env=False)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=EnrolReply), Metadata[Root].from_bytes(root).signed


def _say(device: PahoDevice, name: str, kind: Up, message: Message | bytes) -> None:
    raw = message if isinstance(message, bytes) else encode_message(message)
    device.publish(up(name, kind), raw, retain=kind in {Up.PRESENCE, Up.REPORTED})


def _window(server: Server, digest: str, seq: int, now_ms: int) -> bytes:
    reference = server.services.bundles.reference(digest)
    assert reference is not None
    rows = np.zeros((5, 2), np.float32)
    profile = summarise(reference.spec, {"x": rows, "value": np.zeros((5, 1), np.float32)})
    return encode_profile(
        ProfileMessage(
            epoch=EPOCH, boot=1, seq=seq, sent_at=now_ms, slot="quality", digest=digest, spec_hash=reference.spec.hash,
            start_ms=now_ms - 1000, length_ms=1000, n=5, errors=0, latency=(), resources={},
            body=encode_counts(profile.cells, profile.moments),
        )
    )  # fmt: skip


def test_from_joining_to_revoking(server: Server, operator: httpx2.Client) -> None:
    bundle = tiny_bundle()
    assert push_bundle(operator, bundle, headers={}).status_code == 201
    reply, root = _join(operator, "cam-1")
    assert (reply.state, reply.device) == ("accepted", "cam-1")
    device = PahoDevice(server.runtime.broker_url, "cam-1", reply.secret)
    try:
        eventually(lambda: device.is_connected, what=f"connected: {device.answer}")
        device.subscribe("shoal/v1/cam-1/down/#")
        now_ms = int(server.services.clock() * 1000)
        head = {"epoch": EPOCH, "boot": 1, "sent_at": now_ms}
        _say(device, "cam-1", Up.PRESENCE, Presence(**head, seq=1, online=True))
        _say(device, "cam-1", Up.BIRTH, Birth(**head, seq=2, agent_version="0.1.0", arch="arm64"))
        eventually(lambda: operator.get("/api/v1/devices/cam-1").json()["online"], what="online")

        _hears_and_reports(server, device, root=root, digest=bundle.digest, head=head, operator=operator)
        _is_acknowledged(server, device, bundle.digest, head)

        assert operator.post("/api/v1/devices/cam-1/revoke").status_code == 200
        eventually(lambda: not device.is_connected, what="thrown out")
        basic = httpx2.BasicAuth("cam-1", reply.secret)
        assert httpx2.get(f"{server.runtime.url}/v2/", auth=basic, trust_env=False).status_code == 401
    finally:
        device.close()
    actions = [row["action"] for row in operator.get("/api/v1/audit").json()["items"]]
    assert {"device.revoke", "device.enrol", "join_token.create", "model.push", "session.open"} <= set(actions)
    assert operator.get("/api/v1/audit/verification").json()["intact"]


def _hears_and_reports(
    server: Server, device: PahoDevice, *, root: Root, digest: str, head: dict[str, Any], operator: httpx2.Client
) -> None:
    """Assign a bundle; the device hears a document signed by the root's timestamp key, and answers."""
    with server.services.database.write() as session:
        target = SlotTarget(digest=digest, name="quality:1.0.0")
        generation = assignments.assign(session, "cam-1", "quality", target, now=server.services.clock())
    server.services.signals.bump("desired")
    keys = [root.keys[keyid] for keyid in root.roles["timestamp"].keyids]

    def newest() -> Any:
        heard = [raw for topic, raw, _ in device.received if topic == down("cam-1", Down.DESIRED)]
        found = [verify_assignment(raw, keys, device="cam-1", now_ms=head["sent_at"]) for raw in heard]
        return next((one for one in found if one.generation == generation), None)

    assignment = eventually(newest, what="the assignment")
    assert assignment.slots["quality"].digest == digest
    heard = next(raw for topic, raw, _ in device.received if topic == down("cam-1", Down.DESIRED))
    with pytest.raises(UnsignedError):
        verify_assignment(heard, keys, device="cam-2", now_ms=head["sent_at"])
    report = SlotReport(state="active", active=digest, proven=digest, target=digest)
    _say(device, "cam-1", Up.REPORTED, Reported(**head, seq=3, generation=generation, slots={"quality": report}))

    def proven() -> str | None:
        slots = operator.get("/api/v1/devices/cam-1").json()["slots"]
        return slots.get("quality", {}).get("proven")

    eventually(lambda: proven() == digest, what="reported")


def _is_acknowledged(server: Server, device: PahoDevice, digest: str, head: dict[str, Any]) -> None:
    """Send windows, one of them twice, and an event; all are acknowledged, each counts once."""
    for seq in (1, 2, 2):
        _say(device, "cam-1", Up.PROFILE, _window(server, digest, seq, head["sent_at"]))
    refused = Event(**head, seq=3, at=head["sent_at"], kind="refused", data={"code": "unsigned", "message": "no key"})
    _say(device, "cam-1", Up.EVENT, refused)

    def through() -> int:
        acks = [json.loads(raw) for topic, raw, _ in device.received if topic == down("cam-1", Down.ACK)]
        return max((msgspec.convert(ack, Ack).through for ack in acks), default=0)

    eventually(lambda: through() == 3, what="acknowledged")
    with server.services.database.read() as session:
        found = telemetry.windows(session, slot="quality", start_ms=0, end_ms=head["sent_at"] + 1)
    assert [window.seq for window in found] == [1, 2]
    alerts = httpx2.get(
        f"{server.runtime.url}/api/v1/alerts", trust_env=False, headers={"authorization": f"Bearer {_viewer(server)}"}
    ).json()["items"]
    assert [(alert["kind"], alert["subject"]) for alert in alerts] == [("device_refused", "device:cam-1")]


def _viewer(server: Server) -> str:
    from shoal_server.access import Role
    from shoal_server.testing import api_token

    return api_token(server.services, Role.VIEWER)


def test_a_server_without_its_broker_is_not_ready(tmp_path: Path, free_port: int) -> None:
    server = Server(settings_in(tmp_path, broker=f"mqtt://server:x@127.0.0.1:{free_port}"))
    server.start()
    try:
        answer = httpx2.get(f"{server.runtime.url}/readyz", trust_env=False)
        assert (answer.status_code, answer.json()["broker"], answer.json()["database"]) == (503, "not connected", "ok")
    finally:
        server.stop()
