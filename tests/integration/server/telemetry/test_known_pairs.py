"""Hourly sums are told apart for what somebody was meant to run; what devices invent is summed together."""

from sqlmodel import select

from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import encode_profile
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.telemetry.rollup import KnownPairs
from shoal_server.telemetry.tables import HourRow
from shoal_server.testing.telemetry import DIGEST, START_MS, profile_message

NOW = START_MS / 1000 + 600


def test_a_device_can_not_invent_rows_that_are_kept(database: Database) -> None:
    asked = []

    def meant(_session: object, pairs: object) -> set[tuple[str, str]]:
        asked.append(sorted(pairs))
        return {pair for pair in pairs if pair[0] == "quality"}

    known = KnownPairs(meant)
    seq = 0
    for _ in range(2):
        found = []
        for slot in ("quality", *(f"invented-{at}" for at in range(20))):
            seq += 1
            found.append(arrival("cam-1", Up.PROFILE, encode_profile(profile_message(slot=slot, seq=seq, n=10))))
        with database.write() as session:
            store_batch(session, found, handlers={}, on_clone=lambda *_: None, now=NOW, known=known)
    with database.read() as session:
        rows = {(row.slot, row.digest): (row.windows, row.n) for row in session.exec(select(HourRow))}
    assert rows == {("quality", DIGEST): (2, 20), ("", ""): (40, 400)}
    assert len(asked[0]) == 21
    assert ("quality", DIGEST) not in asked[1], "what is known is not asked again"
