"""The way in, over a fake line: acknowledgements after the commit, a database that goes away, messages that fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from fixtures_broker import eventually
from shoal_protocol.mqtt.messages import Event, Presence, encode_message, parse_ack
from shoal_protocol.mqtt.topics import Down, Up, down, down_filter, up
from shoal_server.link.verifiers import verifier_line
from shoal_server.signals import Signals
from shoal_server.storage.database import Database
from shoal_server.telemetry import store
from shoal_server.telemetry.ingest import BusyError, Ingest, Pace
from shoal_server.testing.link import FakeDevice, FakeLink
from shoal_server.testing.telemetry import EPOCH, START_MS, profile_payload

SECRET = "s" * 43
NOW = START_MS / 1000 + 310
PROFILE = up("d1", Up.PROFILE)


class FailingDatabase:
    """A database that can be taken away."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.away = False
        self.tries = 0
        self.gate = threading.Event()  # closed: nothing is written, as by a slow disk
        self.gate.set()

    @contextmanager
    def write(self) -> Iterator[Any]:
        self.tries += 1
        self.gate.wait(30)
        with self.database.write() as session:
            yield session
            if self.away:  # as late as can be: at the commit
                raise OperationalError("COMMIT", {}, Exception("the disk is full"))


class World:
    """An ingest with the device d1 connected over a fake line."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.database = FailingDatabase(database)
        self.link = FakeLink()
        self.signals = Signals()
        pace = Pace(linger_s=0.001, retry_s=(0.005, 0.01), waiting=50)
        given = {"handlers": {}, "clock": lambda: NOW, "signals": self.signals, "pace": pace, **options}
        self.ingest = Ingest(self.link, self.database, **given)  # type: ignore[arg-type]
        self.ingest.start()
        self.link.sync_credentials([("d1", verifier_line(SECRET, salt=b"0123456789ab"))])
        self.device: FakeDevice = self.link.connect("d1", SECRET)
        self.device.subscribe(down_filter("d1"))

    def acks(self) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
        parsed = [parse_ack(raw) for topic, raw, _ in self.device.received if topic == down("d1", Down.ACK)]
        return [(ack.through, ack.ranges) for ack in parsed]

    def stored(self) -> list[int]:
        with self.database.database.read() as session:
            return [entry.seq for entry in store.windows_after(session, 0, 10_000)]


@pytest.fixture
def worlds(database: Database) -> Iterator[Any]:
    started: list[World] = []

    def start(**options: Any) -> World:
        started.append(World(database, **options))
        return started[-1]

    yield start
    for world in started:
        world.database.away = False
        world.database.gate.set()
        world.ingest.stop()


def event(seq: int, kind: str = "activated") -> bytes:
    return encode_message(Event(epoch=EPOCH, boot=1, seq=seq, sent_at=0, at=0, kind=kind))


def test_windows_are_acknowledged_to_link_and_device_once_stored(worlds):
    world = worlds()
    ids = {world.device.publish(PROFILE, profile_payload(seq=seq)) for seq in (1, 2, 4)}
    eventually(lambda: (2, ((4, 4),)) in world.acks())
    assert world.device.acknowledged == ids
    assert world.stored() == [1, 2, 4]
    assert world.signals.counters()["windows"] >= 1
    status = world.ingest.status()
    assert status.ready
    assert (status.counts["windows"], status.counts["messages"], status.waiting) == (3, 3, 0)


def test_a_duplicate_is_acknowledged_again(worlds):
    world = worlds()
    world.device.publish(PROFILE, profile_payload(seq=1))
    eventually(lambda: len(world.acks()) == 1)
    world.device.publish(PROFILE, profile_payload(seq=1))
    eventually(lambda: len(world.acks()) == 2)
    assert world.acks() == [(1, ()), (1, ())]
    assert world.stored() == [1]
    assert world.ingest.status().counts["duplicates"] == 1


def test_while_the_database_is_away_nothing_is_acknowledged_and_nothing_lost(worlds):
    world = worlds()
    world.database.away = True
    first = world.device.publish(PROFILE, profile_payload(seq=1))
    eventually(lambda: world.database.tries > 3)
    second = world.device.publish(PROFILE, profile_payload(seq=2))
    status = world.ingest.status()
    assert not status.ready
    assert "OperationalError" in status.reason
    assert world.device.acknowledged == set()
    assert world.acks() == []
    with pytest.raises(BusyError):
        world.ingest.submit_and_wait("d1", [(Up.PROFILE, profile_payload(seq=3))])
    world.database.away = False
    eventually(lambda: world.device.acknowledged == {first, second})
    assert world.ingest.status().ready
    assert world.stored() == [1, 2]
    assert world.acks()[-1] == (2, ())


class TooLargeForAnIndexError(Exception):
    """What PostgreSQL says of a key that no index page can hold."""

    sqlstate = "54000"


def test_a_message_beyond_a_limit_of_the_database_does_not_pass_for_a_database_that_is_away(worlds):
    def refuse(_session, _device, message, _now):
        if message.kind == "poison":
            raise OperationalError("INSERT", {}, TooLargeForAnIndexError("index row requires 60000 bytes"))

    world = worlds(handlers={Up.EVENT: refuse})
    world.device.publish(up("d1", Up.EVENT), event(1, "poison"))
    world.device.publish(PROFILE, profile_payload(seq=2))
    eventually(lambda: (2, ()) in world.acks())
    assert world.stored() == [2]
    assert world.ingest.status().counts["malformed"] == 1


def test_a_message_that_cannot_even_be_recorded_does_not_stay_under_way_for_ever(worlds, monkeypatch):
    def refuse(*_):
        raise ValueError("not this one")

    monkeypatch.setattr(store, "record_malformed", refuse)
    world = worlds(handlers={Up.EVENT: refuse})
    poison = world.device.publish(up("d1", Up.EVENT), event(1, "poison"))
    window = world.device.publish(PROFILE, profile_payload(seq=2))
    eventually(lambda: world.device.acknowledged == {poison, window})
    assert world.stored() == [2]
    assert world.ingest.status().counts["malformed"] == 1


class DeadlockError(Exception):
    """What psycopg raises when two transactions waited for each other and this one was given up."""

    sqlstate = "40P01"


def test_a_transaction_that_was_given_up_for_another_is_written_again_and_the_database_is_not_called_away(worlds):
    world = worlds()
    given_up, told = [1, 2, 3], []

    def handler(*_message):
        told.append(world.ingest.status().reason)
        if given_up:
            given_up.pop()
            raise OperationalError("UPDATE", {}, DeadlockError("deadlock detected"))

    world.ingest._handlers = {Up.PRESENCE: handler}
    presence = Presence(epoch=EPOCH, boot=1, seq=1, sent_at=0, online=True)
    world.device.publish(up("d1", Up.PRESENCE), encode_message(presence))
    eventually(lambda: len(told) == 4, what="the message is taken in")
    assert told == [""] * 4


def test_stopping_while_the_database_is_away_leaves_messages_with_the_devices(worlds):
    world = worlds()
    world.database.away = True
    world.device.publish(PROFILE, profile_payload(seq=1))
    eventually(lambda: world.database.tries > 1)
    world.ingest.stop()
    assert world.device.acknowledged == set()
    assert world.stored() == []
    assert not world.ingest.status().ready


def test_stopping_takes_in_what_waits(worlds):
    world = worlds(pace=Pace(linger_s=0.2))
    ids = {world.device.publish(PROFILE, profile_payload(seq=seq)) for seq in range(1, 30)}
    world.ingest.stop()
    assert world.device.acknowledged == ids
    assert world.stored() == list(range(1, 30))
    assert not world.link.connected


def test_a_message_that_fails_does_not_stop_the_others(worlds):
    failed: list[str] = []

    def handler(_session: Any, _device: str, message: Any, _now: float) -> None:
        if message.kind == "bad":
            failed.append(message.kind)
            raise ValueError("broken on purpose")

    world = worlds(handlers={Up.EVENT: handler})
    ids = {
        world.device.publish(PROFILE, profile_payload(seq=1)),
        world.device.publish(up("d1", Up.EVENT), event(2, "bad")),
        world.device.publish(up("d1", Up.EVENT), event(3)),
        world.device.publish(PROFILE, profile_payload(seq=4)),
    }
    eventually(lambda: (4, ()) in world.acks())
    assert world.device.acknowledged == ids
    assert world.stored() == [1, 4]
    counts = world.ingest.status().counts
    assert (counts["windows"], counts["events"], counts["malformed"]) == (2, 1, 1)
    assert 1 <= len(failed) <= 2


def test_malformed_messages_are_acknowledged_to_the_link_recorded_and_bounded(worlds, monkeypatch):
    monkeypatch.setattr(store, "KEPT_MALFORMED", 50)
    world = worlds()
    ids = {world.device.publish(PROFILE, b"\xff" * (number % 300)) for number in range(10_000)}
    ids.add(world.device.publish(PROFILE, profile_payload(seq=1)))
    eventually(lambda: world.device.acknowledged == ids, within_s=30)
    assert world.stored() == [1]
    assert world.acks() == [(1, ())]
    assert world.ingest.status().counts["malformed"] == 10_000
    with world.database.database.read() as session:
        assert len(store.malformed(session, limit=1000)) == 50


def test_handlers_write_in_the_same_transaction_and_their_room_is_signalled(worlds):
    seen: list[bool] = []
    world = worlds(handlers={Up.PRESENCE: lambda _session, _device, message, _now: seen.append(message.online)})
    presence = Presence(epoch=EPOCH, boot=1, seq=1, sent_at=0, online=True)
    world.device.publish(up("d1", Up.PRESENCE), encode_message(presence))
    eventually(lambda: world.signals.counters().get("devices") == 1)
    assert seen == [True]
    assert world.acks() == []


def test_a_line_that_is_down_does_not_stop_the_writer(worlds):
    world = worlds()
    world.device.publish(PROFILE, profile_payload(seq=1))
    eventually(world.acks)
    world.link.lose()
    world.device.publish(PROFILE, profile_payload(seq=2))
    eventually(lambda: world.stored() == [1, 2])
    assert world.ingest.status().ready


def test_messages_by_http_are_answered_when_they_are_stored(worlds):
    world = worlds()
    answered = world.ingest.submit_and_wait(
        "d1",
        [
            (Up.PROFILE, profile_payload(seq=1)),
            (Up.PROFILE, b"malformed"),
            (Up.PROFILE, profile_payload(seq=1, epoch="f" * 16)),
            (Up.EVENT, event(2)),
        ],
    )
    assert {epoch: ack.through for epoch, ack in answered.acks.items()} == {EPOCH: 2, "f" * 16: 1}
    assert [bool(arrived.fault) for arrived in answered.arrivals] == [False, True, False, False]
    assert world.stored() == [1, 1]
    assert world.acks() == []  # by the way it came, not by both
    assert world.ingest.submit_and_wait("d1", []).acks == {}


def test_too_many_by_http_are_sent_away(worlds):
    world = worlds()
    with pytest.raises(BusyError):
        world.ingest.submit_and_wait("d1", [(Up.PROFILE, profile_payload(seq=seq)) for seq in range(1, 52)])
    assert world.stored() == []


def test_one_device_that_sends_without_end_leaves_room_for_the_others(worlds):
    world = worlds(pace=Pace(linger_s=0.001, retry_s=(0.005, 0.01), waiting=200, waiting_per_device=30))
    answered: list[str] = []

    def post(device: str, first: int) -> None:
        messages = [(Up.PROFILE, profile_payload(seq=seq)) for seq in range(first, first + 20)]
        try:
            answered.append(f"{device} {world.ingest.submit_and_wait(device, messages).acks[EPOCH].through}")
        except BusyError as error:
            answered.append(f"{device}: {error.message}")

    world.database.gate.clear()
    greedy = [threading.Thread(target=post, args=("greedy", first)) for first in (1, 21, 41, 61)]
    modest = threading.Thread(target=post, args=("modest", 1))
    for thread in greedy:
        thread.start()
    eventually(lambda: len(answered) == 3)
    assert set(answered) == {"greedy: 20 messages of this device wait"}
    modest.start()
    world.database.gate.set()
    for thread in [*greedy, modest]:
        thread.join()
    assert "modest 20" in answered
    post("greedy", 1)
    assert answered[-1].startswith("greedy "), "its part is free again"


def test_many_at_once_by_http_and_by_the_link(worlds):
    world = worlds(pace=Pace(linger_s=0.001))
    answers: list[int] = []

    def post(number: int) -> None:
        messages = [(Up.PROFILE, profile_payload(seq=seq)) for seq in range(1, 21)]
        answers.append(world.ingest.submit_and_wait(f"h{number}", messages).acks[EPOCH].through)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for seq in range(1, 101):
        world.device.publish(PROFILE, profile_payload(seq=seq))
    for thread in threads:
        thread.join()
    eventually(lambda: (100, ()) in world.acks())
    assert answers == [20] * 8
    assert len(world.stored()) == 260
