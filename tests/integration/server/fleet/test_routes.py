"""The fleet over HTTP: joining, what a device should run, and what operators change."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient

from shoal_protocol.trust.assignment import SlotTarget, verify_assignment
from shoal_protocol.trust.enrolment import enrol_proof_message
from shoal_protocol.trust.join_token import JoinToken, parse_join_token
from shoal_server.access import Role, audit
from shoal_server.fleet import assignments, credential_routes, device_routes, routes, store
from shoal_server.registry.trust import TrustService
from shoal_server.storage.database import Database
from shoal_server.testing.link import FakeLink
from shoal_server.testing.program import FakeClock, api_token, fake_services, program_of


class Fleet:
    """A server's fleet room with an operator, and devices that join it."""

    def __init__(self, database: Database, folder: Path) -> None:
        clock = FakeClock()
        self.link = FakeLink()
        self.link.start(lambda _inbound: None)
        self.services = fake_services(
            database,
            folder,
            clock=clock,
            link=self.link,
            trust=TrustService(database, keys_folder=folder / "keys", clock=clock),
            verify_device=store.verify_secret,
        )
        self.clock = clock
        self.client = TestClient(
            program_of(self.services, [routes.router, device_routes.router, credential_routes.router])
        )
        self.headers = {"authorization": f"Bearer {api_token(self.services, Role.OPERATOR)}"}

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/v1/{path}", headers=self.headers)

    def post(self, path: str, body: Any = None) -> Any:
        return self.client.post(f"/api/v1/{path}", json=body, headers=self.headers)

    def token(self, **wanted: Any) -> JoinToken:
        answer = self.post("join-tokens", wanted)
        assert answer.status_code == 201
        assert answer.json()["join"].startswith("shoal-agent join http://testserver --token sjt_")
        return parse_join_token(answer.json()["token"])

    def enrol(self, token: JoinToken, name: str | None = "cam-1", key: Any = None, **changes: Any) -> Any:
        key = key or ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        asked = {"subject": changes.get("token_id", token.id)}
        self.clock.advance(0.01)  # a challenge is newer than the one before by a millisecond
        challenge = self.client.get("/api/v1/device/challenge", params=asked).json()["challenge"]
        message = enrol_proof_message(challenge, token.id, name, public.decode())
        body = {
            "token_id": token.id,
            "token_secret": token.secret,
            "name": name,
            "public_key": public.decode(),
            "challenge": challenge,
            "proof": key.sign(message, ec.ECDSA(hashes.SHA256())).hex(),
            "capabilities": {"arch": "arm64", "colour": "red"},
            **changes,
        }
        return self.client.post("/api/v1/device/enrol", json=body)

    def desired(self, device: str, secret: str, **headers: str) -> Any:
        return self.client.get("/api/v1/device/desired", auth=(device, secret), headers=headers)


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Fleet:
    return Fleet(database, tmp_path)


def test_a_device_joins_with_the_labels_of_its_token(fleet: Fleet) -> None:
    answer = fleet.enrol(fleet.token(labels={"site": "bern"}))
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["mqtt_url"]) == ("accepted", "mqtt://fake:1883")
    shown = fleet.get("devices/cam-1").json()
    assert (shown["labels"], shown["facts"]) == ({"site": "bern"}, {"arch": "arm64"})
    assert fleet.link.connect("cam-1", answer.json()["secret"]).is_connected
    assert fleet.desired("cam-1", answer.json()["secret"]).status_code == 200
    assert fleet.desired("cam-1", "guess").status_code == 401


def test_a_device_without_a_name_is_given_one(fleet: Fleet) -> None:
    assert fleet.enrol(fleet.token(), name=None).json()["device"].startswith("device-")


def test_a_token_is_used_as_often_as_it_says_and_a_lost_answer_costs_nothing(fleet: Fleet) -> None:
    token, key = fleet.token(uses=1), ec.generate_private_key(ec.SECP256R1())
    first = fleet.enrol(token, key=key).json()["secret"]
    again = fleet.enrol(token, key=key)
    assert again.status_code == 200
    assert fleet.desired("cam-1", again.json()["secret"]).status_code == 200
    assert fleet.desired("cam-1", first).status_code == 401
    refused = fleet.enrol(token, name="cam-2")
    assert (refused.status_code, refused.json()["code"]) == (401, "enrolment")
    assert "used up" in refused.json()["detail"]


def test_wrong_tokens_and_proofs_are_refused(fleet: Fleet) -> None:
    token = fleet.token(uses=9)
    assert fleet.enrol(token, token_secret="guess").status_code == 401
    assert fleet.enrol(token, token_id="unknown").status_code == 401
    assert fleet.enrol(token, proof="00").status_code == 401
    assert fleet.enrol(token, proof="no hex").status_code == 401
    assert fleet.enrol(token, key=ec.generate_private_key(ec.SECP384R1())).status_code == 400
    assert fleet.enrol(token, public_key="no key").status_code == 400
    assert fleet.enrol(token, name="server").status_code == 400
    assert fleet.enrol(token, name="a/b").status_code == 400
    assert fleet.enrol(token, name=7).status_code == 422
    fleet.clock.advance(90_000)
    assert "expired" in fleet.enrol(token).json()["detail"]
    assert fleet.get("devices").json()["items"] == []


def test_a_proof_for_one_name_is_none_for_another(fleet: Fleet) -> None:
    token, key = fleet.token(uses=9), ec.generate_private_key(ec.SECP256R1())
    proof = fleet.enrol(token, key=key).request.content
    assert proof
    import json

    body = json.loads(proof)
    stolen = fleet.client.post("/api/v1/device/enrol", json={**body, "name": "cam-9"})
    assert stolen.status_code == 401


def test_a_recorded_request_is_worth_nothing(fleet: Fleet) -> None:
    token = fleet.token(uses=9)
    joined = fleet.enrol(token)
    again = fleet.client.post("/api/v1/device/enrol", content=joined.request.content)
    assert (again.status_code, again.json()["code"]) == (401, "challenge")
    assert "answered already" in again.json()["detail"]
    assert fleet.desired("cam-1", joined.json()["secret"]).status_code == 200, "the device's own still holds"


def test_a_challenge_is_bound_to_its_token_and_time(fleet: Fleet) -> None:
    token, other = fleet.token(uses=9), fleet.token(uses=9)
    theirs = fleet.client.get("/api/v1/device/challenge", params={"subject": other.id}).json()["challenge"]
    assert fleet.enrol(token, challenge=theirs).status_code == 401
    assert fleet.enrol(token, challenge="").status_code == 401
    assert fleet.enrol(token, challenge="1.2.3").json()["code"] == "enrolment", "it is not what was signed"
    key = ec.generate_private_key(ec.SECP256R1())
    kept = fleet.enrol(token, key=key, name="cam-2").request.content
    fleet.post("devices/cam-2/decommission")
    fleet.clock.advance(121)
    late = fleet.client.post("/api/v1/device/enrol", content=kept)
    assert (late.status_code, late.json()["code"]) == (401, "challenge")
    assert "older than" in late.json()["detail"]


def test_a_name_belongs_to_the_key_that_enrolled_it(fleet: Fleet) -> None:
    token = fleet.token(uses=9)
    fleet.enrol(token)
    refused = fleet.enrol(token)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_a_device_waits_until_it_is_accepted(fleet: Fleet) -> None:
    answer = fleet.enrol(fleet.token(preauthorised=False)).json()
    assert answer["state"] == "pending"
    assert fleet.desired("cam-1", answer["secret"]).status_code == 401
    assert "cam-1" not in fleet.link.credentials
    assert fleet.post("devices/cam-1/accept").json()["state"] == "accepted"
    assert fleet.desired("cam-1", answer["secret"]).status_code == 200
    assert "cam-1" in fleet.link.credentials


def test_revoking_ends_the_session_at_once(fleet: Fleet) -> None:
    token, key = fleet.token(uses=9), ec.generate_private_key(ec.SECP256R1())
    secret = fleet.enrol(token, key=key).json()["secret"]
    line = fleet.link.connect("cam-1", secret)
    assert fleet.post("devices/cam-1/revoke").json()["state"] == "revoked"
    assert not line.is_connected
    assert fleet.desired("cam-1", secret).status_code == 401
    assert fleet.enrol(token, key=key).status_code == 403
    assert fleet.post("devices/cam-1/decommission").status_code == 200
    assert fleet.get("devices/cam-1").status_code == 404
    assert fleet.enrol(token, key=key).status_code == 200


def test_a_name_is_free_again_though_its_assignment_was_just_being_sent(fleet: Fleet) -> None:
    token = fleet.token(uses=2)
    assert fleet.enrol(token).status_code == 200
    assert fleet.post("devices/cam-1/decommission").status_code == 200
    with fleet.services.database.write() as session:  # as a publisher does that has read what is due before
        target = SlotTarget(digest="sha256:" + "1" * 64)
        assignments.assign(session, "cam-1", "quality", target, now=fleet.clock())
    assert fleet.enrol(token).status_code == 200
    with fleet.services.database.read() as session:
        assert assignments.targets(session, "cam-1") == {}


def test_a_device_is_told_the_same_by_http(fleet: Fleet) -> None:
    secret = fleet.enrol(fleet.token()).json()["secret"]
    target = SlotTarget(digest="sha256:" + "1" * 64)
    with fleet.services.database.write() as session:
        assignments.assign(session, "cam-1", "quality", target, now=fleet.clock())
    answer = fleet.desired("cam-1", secret)
    keys = [fleet.services.trust.assignment_signer.public_key]
    seen = verify_assignment(answer.content, keys, device="cam-1", now_ms=int(fleet.clock() * 1000) + 1)
    assert (seen.generation, seen.slots) == (2, {"quality": target})
    same = fleet.desired("cam-1", secret, **{"if-none-match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    with fleet.services.database.write() as session:
        assignments.assign(session, "cam-1", "quality", SlotTarget(digest=None), now=fleet.clock())
    changed = fleet.desired("cam-1", secret, **{"if-none-match": answer.headers["etag"]})
    assert changed.status_code == 200
    assert fleet.get("devices/cam-1").json()["slots"]["quality"]["desired"]["digest"] is None


def test_devices_are_listed_by_query_and_in_pages(fleet: Fleet) -> None:
    token = fleet.token(uses=9, labels={"site": "bern"})
    for number in range(5):
        fleet.enrol(token, name=f"cam-{number}")
    page = fleet.get("devices?limit=2").json()
    assert ([one["id"] for one in page["items"]], page["total"]) == (["cam-0", "cam-1"], 5)
    rest = fleet.get(f"devices?limit=9&cursor={page['next_cursor']}").json()
    assert [one["id"] for one in rest["items"]] == ["cam-2", "cam-3", "cam-4"]
    assert [one["id"] for one in fleet.get("devices?q=id ~ *-3 and site = bern").json()["items"]] == ["cam-3"]
    refused = fleet.get("devices?q=site in (")
    assert (refused.status_code, refused.json()["code"], refused.json()["position"]) == (400, "cohort", 10)


def test_labels_and_pins_are_changed_and_audited(fleet: Fleet) -> None:
    fleet.enrol(fleet.token(labels={"site": "bern"}))
    body = {"labels": {"site": None, "line": "3"}}
    changed = fleet.client.patch("/api/v1/devices/cam-1/labels", json=body, headers=fleet.headers)
    assert changed.json()["labels"] == {"line": "3"}
    assert fleet.post("devices/cam-1/pin", {"slot": "quality", "reason": "repair"}).json()["pins"] == {
        "quality": "repair"
    }
    assert fleet.post("devices/cam-1/unpin", {}).json()["pins"] == {}
    with fleet.services.database.read() as session:
        rows = audit.rows(session, limit=50, subject="device:cam-1")
    assert [row.action for row in reversed(rows)] == ["device.enrol", "device.label", "device.pin", "device.unpin"]
    assert rows[2].before["labels"] == {"site": "bern"}
    assert rows[0].actor == "token:operator"


def test_join_tokens_are_listed_without_their_secret_and_deleted(fleet: Fleet) -> None:
    token = fleet.token()
    listed = fleet.get("join-tokens")
    assert [one["id"] for one in listed.json()["items"]] == [token.id]
    assert token.secret not in listed.text
    deleted = fleet.client.delete(f"/api/v1/join-tokens/{token.id}", headers=fleet.headers)
    assert deleted.json() == {"deleted": token.id}
    assert fleet.enrol(token).status_code == 401


def test_a_viewer_may_look_and_not_change(fleet: Fleet) -> None:
    fleet.enrol(fleet.token())
    fleet.headers = {"authorization": f"Bearer {api_token(fleet.services, Role.VIEWER)}"}
    assert fleet.get("devices/cam-1").status_code == 200
    assert fleet.post("devices/cam-1/revoke").status_code == 403
    assert fleet.post("join-tokens", {}).status_code == 403


def test_an_enrolment_request_is_bounded(fleet: Fleet) -> None:
    answer = fleet.client.post("/api/v1/device/enrol", content=b"x" * (device_routes.MAX_ENROLMENT_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (422, "content")
