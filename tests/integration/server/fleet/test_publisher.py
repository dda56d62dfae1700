"""From the outbox to the line: everything that is due, once, and all of it again when the line is new."""

import pytest
from securesystemslib.signer import CryptoSigner

from shoal_protocol.mqtt.topics import Down, down
from shoal_protocol.trust.assignment import Assignment, SlotTarget, verify_assignment
from shoal_server.fleet import assignments, store
from shoal_server.fleet.desired import LIFETIME_S
from shoal_server.fleet.publisher import REMIND_S, Publisher
from shoal_server.link.port import LinkError
from shoal_server.storage.database import Database
from shoal_server.testing.link import FakeLink
from shoal_server.testing.program import FakeClock
from shoal_server.testing.simulated_devices import fleet_of
from shoal_server.testing.stored_fleet import StoredFleet

SIGNER = CryptoSigner.generate_ecdsa()
TARGET = SlotTarget(digest="sha256:" + "1" * 64)


class Scene:
    def __init__(self, database: Database, count: int, *, batch: int = 200) -> None:
        self.database = database
        self.clock = FakeClock()
        self.link = FakeLink()
        self.link.start(lambda _inbound: None)
        StoredFleet(database, fleet_of(count, active=None), clock=self.clock)
        self.publisher = Publisher(
            database=database, link=self.link, signer=lambda: SIGNER, clock=self.clock, batch=batch
        )

    def assign(self, device: str, target: SlotTarget = TARGET) -> None:
        with self.database.write() as session:
            assignments.assign(session, device, "quality", target, now=self.clock())

    def heard(self, device: str) -> Assignment:
        raw = self.link.stored[down(device, Down.DESIRED)]
        return verify_assignment(raw, [SIGNER.public_key], device=device, now_ms=int(self.clock() * 1000) + 1)


def test_what_changed_is_published_once(database: Database) -> None:
    scene = Scene(database, 3)
    scene.assign("cam-1")
    assert scene.publisher.tick() == 2, "sent as due, and once more since the line is new"
    assert scene.heard("cam-1").slots == {"quality": TARGET}
    assert scene.publisher.tick() == 0
    scene.assign("cam-1", SlotTarget(digest=None))
    assert scene.publisher.tick() == 1
    assert scene.heard("cam-1").generation == 2


def test_nothing_stays_stored_for_a_device_that_is_revoked_while_documents_go_out(database: Database) -> None:
    scene = Scene(database, 3)
    for name in ("cam-0", "cam-1", "cam-2"):
        scene.assign(name)
    publish = scene.link.publish

    def revoking(topic: str, payload: bytes, *, retain: bool = False) -> None:
        publish(topic, payload, retain=retain)
        scene.link.publish = publish  # type: ignore[method-assign]  # once
        with database.write() as session:
            store.revoke(session, "cam-1")
        publish(down("cam-1", Down.DESIRED), b"", retain=True)  # as whoever throws it out does

    scene.link.publish = revoking  # type: ignore[method-assign]  # as above
    scene.publisher.tick()
    assert down("cam-1", Down.DESIRED) not in scene.link.stored
    assert scene.heard("cam-2").slots == {"quality": TARGET}


def test_everything_is_sent_again_at_a_pace_when_the_line_is_new(database: Database) -> None:
    scene = Scene(database, 7, batch=3)
    for number in range(7):
        scene.assign(f"cam-{number}")
    while scene.publisher.tick():
        pass
    scene.link.lose()
    assert scene.publisher.tick() == 0
    scene.link.regain()
    assert [scene.publisher.tick() for _ in range(4)] == [3, 3, 1, 0]
    assert all(scene.heard(f"cam-{number}").generation == 1 for number in range(7))


def test_a_connected_device_that_does_not_seem_to_have_heard_is_told_again(database: Database) -> None:
    scene = Scene(database, 4, batch=2)
    for number in range(4):
        scene.assign(f"cam-{number}")
    while scene.publisher.tick():
        pass
    with database.write() as session:
        for number, (online, reported) in enumerate([(True, 1), (True, 0), (False, 0), (True, 0)]):
            row = store.row_of(session, f"cam-{number}")
            row.online, row.generation_reported = online, reported
    scene.link.stored.clear()
    scene.clock.advance(REMIND_S - 1)
    assert scene.publisher.tick() == 0
    scene.clock.advance(1)
    assert scene.publisher.tick() == 2
    assert set(scene.link.stored) == {down("cam-1", Down.DESIRED), down("cam-3", Down.DESIRED)}
    assert scene.publisher.tick() == 0, "and not again at once"
    scene.clock.advance(REMIND_S)
    assert scene.publisher.tick() == 0, "they were all told; the next round begins anew"
    scene.clock.advance(REMIND_S)
    assert scene.publisher.tick() == 2


def test_a_line_that_breaks_leaves_the_rest_to_be_sent(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(database, 3)
    while scene.publisher.tick():
        pass
    for number in range(3):
        scene.assign(f"cam-{number}")
    publish, sent = scene.link.publish, []

    def break_after_one(topic: str, payload: bytes, *, retain: bool = False) -> None:
        if sent:
            raise LinkError("gone")
        sent.append(topic)
        publish(topic, payload, retain=retain)

    monkeypatch.setattr(scene.link, "publish", break_after_one)
    assert scene.publisher.tick() == 1
    monkeypatch.setattr(scene.link, "publish", publish)
    assert scene.publisher.tick() == 2


def test_documents_are_signed_again_at_half_life(database: Database) -> None:
    scene = Scene(database, 1)
    scene.assign("cam-0")
    while scene.publisher.tick():
        pass
    first = scene.heard("cam-0")
    scene.clock.advance(LIFETIME_S * 0.6)
    assert scene.publisher.tick() == 1
    assert scene.heard("cam-0").content_digest == first.content_digest
    assert scene.heard("cam-0").expires > first.expires


def test_who_is_not_accepted_is_neither_let_in_nor_told(database: Database) -> None:
    scene = Scene(database, 2)
    scene.assign("cam-0")
    scene.assign("cam-1")
    with database.write() as session:
        store.revoke(session, "cam-1")
    scene.publisher.tick()
    assert set(scene.link.credentials) == {"cam-0"}
    assert down("cam-1", Down.DESIRED) not in scene.link.stored
