"""Hourly sums are told apart for what somebody was meant to run; what devices invent is summed together."""

from sqlmodel import select

from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import encode_profile
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.telemetry.rollup import MOST_REFUSED, REFUSED_S, KnownPairs
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
    assert len(asked) == 1, "what is known, or was refused just now, is not asked again"


def test_who_was_refused_is_asked_about_again_only_after_a_while(database: Database) -> None:
    asked, now, allowed = [], [1000.0], set()

    def meant(_session: object, pairs: object) -> set[tuple[str, str]]:
        asked.append(sorted(pairs))
        return allowed & set(pairs)

    known = KnownPairs(meant, lambda: now[0])
    stray, other = ("quality", "sha256:aa"), ("quality", "sha256:bb")
    with database.read() as session:
        for _ in range(3):
            assert known.among(session, {stray}) == set()
        assert known.among(session, {stray, other}) == set()
        assert asked == [[stray], [other]]
        allowed.add(stray)  # it was assigned
        now[0] += REFUSED_S
        assert known.among(session, {stray, other}) == {stray}
        assert asked[2:] == [[stray, other]]


def test_strangers_without_end_cost_no_more_memory_and_no_more_questions(database: Database) -> None:
    asked, now = [], [1000.0]

    def meant(_session: object, pairs: object) -> set[tuple[str, str]]:
        asked.extend(pairs)
        return {pair for pair in pairs if pair[0] == "quality"}

    known = KnownPairs(meant, lambda: now[0])
    with database.read() as session:
        for batch in range(3):
            strangers = {(f"invented-{batch}", str(at)) for at in range(MOST_REFUSED // 2 + 1)}
            assert known.among(session, strangers) == set()
        assert len(asked) == MOST_REFUSED
        assert known.among(session, {("quality", "a")}) == set(), "unasked while there are so many"
        now[0] += REFUSED_S
        assert known.among(session, {("quality", "a")}) == {("quality", "a")}
