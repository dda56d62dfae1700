"""Windows that flow while the line to the server breaks: none lost, none counted twice.

Devices spool: they keep a window until the server's own acknowledgement, and send everything again after a connect.
"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures_broker import PahoDevice, eventually, find_free_port
from shoal_protocol.mqtt.messages import Ack, parse_ack
from shoal_protocol.mqtt.topics import Down, Up, down, down_filter, up
from shoal_server.link.broker import BrokerLink
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.verifiers import verifier_line
from shoal_server.storage.database import Database
from shoal_server.telemetry import store
from shoal_server.telemetry.ingest import Ingest, Pace
from shoal_server.testing.telemetry import EPOCH, START_MS, profile_payload

SECRET = "s" * 43
DEVICES = ["d1", "d2", "d3"]
WINDOWS = 400
OUTAGE_S = 2.0


class SpoolingDevice(threading.Thread):
    """A device that makes `WINDOWS` windows and ends when all of them are acknowledged by the server."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.device = url, name
        self.spool: dict[int, bytes] = {}
        self.connects = 0
        self.stopping = threading.Event()
        self.seq = 0

    def run(self) -> None:
        while not self.stopping.is_set() and (self.seq < WINDOWS or self.spool):
            try:
                line = PahoDevice(self.url, self.device, SECRET)
            except (OSError, AssertionError):
                self.stopping.wait(0.05)
                continue
            try:
                if line.is_connected:
                    self.connects += 1
                    self.converse(line)
            finally:
                line.close()

    def converse(self, line: PahoDevice) -> None:
        line.subscribe(down_filter(self.device))
        sent: dict[int, float] = {}
        while line.is_connected and not self.stopping.is_set() and (self.seq < WINDOWS or self.spool):
            if self.seq < WINDOWS:
                self.seq += 1
                self.spool[self.seq] = profile_payload(seq=self.seq, n=1)
            now = time.monotonic()
            due = [seq for seq in self.spool if sent.get(seq, 0.0) < now - 0.5][:64]
            random.Random(self.seq).shuffle(due)
            for seq in due:
                sent[seq] = now
                line.publish(up(self.device, Up.PROFILE), self.spool[seq])
            self.hear(line)
            self.stopping.wait(0.005)

    def hear(self, line: PahoDevice) -> None:
        while line.received:
            topic, raw, _ = line.received.pop(0)
            if topic == down(self.device, Down.ACK):
                ack: Ack = parse_ack(raw)
                for seq in [seq for seq in self.spool if ack.covers(seq)]:
                    del self.spool[seq]


@contextlib.contextmanager
def devices(url: str) -> Iterator[list[SpoolingDevice]]:
    running = [SpoolingDevice(url, name) for name in DEVICES]
    for device in running:
        device.start()
    try:
        yield running
    finally:
        for device in running:
            device.stopping.set()
        for device in running:
            device.join()


def started(link: Any, database: Database) -> Ingest:
    ingest = Ingest(link, database, {}, lambda: START_MS / 1000 + 310, pace=Pace(linger_s=0.002))
    ingest.start()
    return ingest


def credentials() -> list[tuple[str, str]]:
    return [(name, verifier_line(SECRET, salt=b"0123456789ab")) for name in DEVICES]


def stored(database: Database) -> list[tuple[str, int]]:
    with database.read() as session:
        found = store.windows(session, slot="quality", start_ms=0, end_ms=2**53)
    return sorted((entry.device, entry.seq) for entry in found)


def check(database: Database, running: list[SpoolingDevice]) -> None:
    eventually(lambda: all(not device.is_alive() for device in running), within_s=60, what="all spools are empty")
    assert stored(database) == [(name, seq) for name in DEVICES for seq in range(1, WINDOWS + 1)]
    with database.read() as session:
        for name in DEVICES:
            ledger = store.device_ledgers(session, name)[EPOCH]
            assert (ledger.through, ledger.ranges, ledger.lost) == (WINDOWS, (), 0)


def some_stored(database: Database) -> bool:
    with database.read() as session:
        return store.last_window_id(session) > 100


@pytest.mark.broker
def test_a_broker_that_is_killed_loses_nothing(mosquitto, database):
    link = BrokerLink(mosquitto.url, clock=lambda: 0.0, credentials=mosquitto.credentials())
    link.sync_credentials(credentials())
    ingest = started(link, database)
    with devices(link.url) as running:
        eventually(lambda: some_stored(database))
        mosquitto.kill()
        for path in mosquitto.folder.glob("mosquitto.db*"):
            path.unlink()  # the broker forgets what it had acknowledged
        time.sleep(OUTAGE_S)
        mosquitto.start()
        check(database, running)
        assert all(device.connects >= 2 for device in running)
    assert link.connections >= 2
    ingest.stop()


@pytest.mark.parametrize("kind", ["embedded", pytest.param("mosquitto", marks=pytest.mark.broker)])
def test_a_server_that_restarts_loses_nothing(request, database, kind):
    if kind == "embedded":
        port = find_free_port()
        make = lambda: EmbeddedLink("127.0.0.1", port, clock=lambda: 0.0)  # noqa: E731 - one of two ways
    else:
        broker = request.getfixturevalue("mosquitto")
        make = lambda: BrokerLink(broker.url, clock=lambda: 0.0, credentials=broker.credentials())  # noqa: E731
    link = make()
    link.sync_credentials(credentials())
    ingest = started(link, database)
    with devices(link.url) as running:
        for _ in range(3):
            at = len(stored(database))
            eventually(lambda more=at: len(stored(database)) > more + 50)
            ingest.stop()
            time.sleep(0.3)
            link = make()
            link.sync_credentials(credentials())
            ingest = started(link, database)
        check(database, running)
    ingest.stop()


def test_ten_thousand_malformed_messages_over_mqtt_hurt_nobody(database):
    link = EmbeddedLink("127.0.0.1", 0, clock=lambda: 0.0)
    link.sync_credentials(credentials())
    ingest = started(link, database)
    attacker, honest = PahoDevice(link.url, "d1", SECRET), PahoDevice(link.url, "d2", SECRET)
    honest.subscribe(down_filter("d2"))
    randomness = random.Random(7)
    kinds = list(Up)
    for number in range(10_000):
        attacker.publish(up("d1", kinds[number % len(kinds)]), randomness.randbytes(number % 200), qos=number % 2)
        if number % 100 == 0:
            honest.publish(up("d2", Up.PROFILE), profile_payload(seq=number // 100 + 1))
    eventually(lambda: ingest.status().counts["malformed"] == 10_000, within_s=60)
    eventually(lambda: honest.received and parse_ack(honest.received[-1][1]).through == 100)
    assert [seq for _, seq in stored(database)] == list(range(1, 101))
    assert attacker.is_connected
    assert ingest.status().ready
    attacker.close()
    honest.close()
    ingest.stop()
