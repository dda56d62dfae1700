"""Batches against real databases: what is new, what came before, what is a clone's, what is malformed."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal_protocol.mqtt.messages import Event, Presence, encode_message
from shoal_protocol.mqtt.topics import Up
from shoal_server.storage.database import Database
from shoal_server.telemetry import rollup, store
from shoal_server.telemetry.arrivals import Arrival, arrival
from shoal_server.telemetry.batch import Outcome, give_up, store_batch
from shoal_server.telemetry.ledger import Ledger
from shoal_server.telemetry.store import LedgerKey
from shoal_server.telemetry.windows import stack
from shoal_server.testing.telemetry import DIGEST, EPOCH, SPEC, START_MS, profile_payload

NOW = START_MS / 1000 + 310
KEY = LedgerKey("d1", EPOCH)


def window(seq: int, device: str = "d1", **changes: Any) -> Arrival:
    return arrival(device, Up.PROFILE, profile_payload(seq=seq, **changes))


def event(seq: int, kind: str = "activated", device: str = "d1", **data: Any) -> Arrival:
    message = Event(epoch=EPOCH, boot=1, seq=seq, sent_at=0, at=0, kind=kind, data=data)
    return arrival(device, Up.EVENT, encode_message(message))


def take(database: Database, arrivals: list[Arrival], now: float = NOW, **options: Any) -> Outcome:
    given = {"handlers": {}, "on_clone": lambda *_: None, **options}
    with database.write() as session:
        return store_batch(session, arrivals, now=now, **given)


def stored(database: Database, slot: str = "quality") -> list[store.StoredWindow]:
    with database.read() as session:
        return store.windows(session, slot=slot, start_ms=0, end_ms=2**53)


def test_windows_are_stored_with_what_is_asked_of_them(database):
    outcome = take(database, [window(1), window(2, n=20, errors=3), window(1, device="d2")])
    assert (outcome.windows, outcome.duplicates) == (3, 0)
    assert outcome.ledgers == {KEY: Ledger(2), LedgerKey("d2", EPOCH): Ledger(1)}
    assert outcome.kinds == {Up.PROFILE}
    second = stored(database)[1]
    assert (second.device, second.seq, second.n, second.errors, second.digest) == ("d1", 2, 20, 3, DIGEST)
    assert (second.start_ms, second.length_ms, second.received_at) == (START_MS, 300_000, NOW)
    assert second.message.profile(SPEC).n == 20


def test_a_duplicate_counts_once_within_a_batch_and_across_batches(database):
    take(database, [window(1), window(1), window(2)])
    again = take(database, [window(2), window(3), window(1)])
    assert (again.windows, again.duplicates, again.clones) == (1, 2, 0)
    assert [entry.seq for entry in stored(database)] == [1, 2, 3]
    with database.read() as session:
        [hour] = rollup.hours(session, slot="quality", start_ms=0, end_ms=2**53)
    assert (hour.windows, hour.n, hour.errors) == (3, 30, 0)


def test_a_duplicate_is_known_as_one_after_the_windows_are_gone(database):
    take(database, [window(1), window(2)])
    with database.write() as session:
        assert store.prune(session, received_before=NOW + 1) == 2
    later = take(database, [window(2), window(3)], now=NOW + 30 * 86_400)
    assert (later.windows, later.duplicates, later.clones) == (1, 1, 0)
    assert [entry.seq for entry in stored(database)] == [3]


def test_pruning_takes_the_oldest_and_no_more_than_asked(database):
    for seq in range(1, 6):
        take(database, [window(seq)], now=NOW + seq)
    with database.write() as session:
        assert store.prune(session, received_before=NOW + 4, limit=2) == 2
        assert store.prune(session, received_before=NOW + 4, limit=2) == 1
        assert store.prune(session, received_before=NOW + 4, limit=2) == 0
    assert [entry.seq for entry in stored(database)] == [4, 5]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_same_number_with_other_content_is_a_clone(database, at_once):
    told: list[tuple[str, int]] = []
    options = {"on_clone": lambda _session, device, seq, _now: told.append((device, seq))}
    first, others = [window(1), window(2)], [window(1, n=99), window(2, n=98), window(3)]
    if at_once:
        outcome = take(database, first + others, **options)
    else:
        take(database, first)
        outcome = take(database, others, **options)
    assert (outcome.clones, outcome.duplicates) == (2, 2)
    assert told == [("d1", 1)]
    assert [entry.n for entry in stored(database)] == [10, 10, 10]


def test_epochs_are_apart(database):
    other = "f" * 16
    outcome = take(database, [window(1), window(1, epoch=other)])
    assert outcome.windows == 2
    with database.read() as session:
        assert store.device_ledgers(session, "d1") == {EPOCH: Ledger(1), other: Ledger(1)}


def test_events_share_the_numbers_and_reach_their_handler_once(database):
    seen: list[tuple[str, str, float]] = []
    handlers = {Up.EVENT: lambda _session, device, message, now: seen.append((device, message.kind, now))}
    outcome = take(database, [window(1), event(2), event(2), window(3)], handlers=handlers)
    assert (outcome.windows, outcome.events, outcome.duplicates) == (2, 1, 1)
    take(database, [event(2)], handlers=handlers)
    assert seen == [("d1", "activated", NOW)]
    assert outcome.ledgers == {KEY: Ledger(3)}


def test_what_a_device_reports_as_lost_closes_its_gaps(database):
    outcome = take(database, [window(1), window(5), event(9, kind="lost", ranges=[[2, 4], [6, 8]])])
    assert outcome.ledgers == {KEY: Ledger(9, (), 6)}
    late = take(database, [window(3)])
    assert (late.windows, late.duplicates) == (0, 1)


def test_what_a_device_merged_before_it_ever_sent_it_closes_its_gaps_without_a_loss(database):
    outcome = take(database, [window(1), window(5), event(6, kind="merged", ranges=[[2, 4]])])
    assert outcome.ledgers == {KEY: Ledger(6, (), 0)}


@pytest.mark.parametrize("ranges", [None, "x", [1, 2], [[1]], [["a", 2]], [[5, 2]], [[-5, -1]], [[1, 2, 3]], {}])
def test_a_lost_event_that_names_no_ranges_loses_nothing(database, ranges):
    assert take(database, [event(4, kind="lost", ranges=ranges)]).ledgers[KEY].lost == 0


def test_a_device_can_not_lose_what_is_still_to_come(database):
    take(database, [event(3, kind="lost", ranges=[[1, 2**52]])])
    assert take(database, [window(4)]).windows == 1


def test_presence_and_the_like_go_to_their_handlers_in_order(database):
    seen: list[tuple[str, bool]] = []
    handlers = {Up.PRESENCE: lambda _session, device, message, _now: seen.append((device, message.online))}
    said = [(1, True), (2, False), (3, True)]
    arrivals = [
        arrival("d1", Up.PRESENCE, encode_message(Presence(epoch=EPOCH, boot=1, seq=seq, sent_at=0, online=online)))
        for seq, online in said
    ]
    outcome = take(database, arrivals, handlers=handlers)
    assert seen == [("d1", True), ("d1", False), ("d1", True)]
    assert outcome.ledgers == {}
    assert outcome.kinds == {Up.PRESENCE}


def test_nothing_of_a_batch_stays_when_a_handler_fails(database):
    def fail(*_: object) -> None:
        raise ValueError("broken on purpose")

    with pytest.raises(ValueError, match="broken on purpose"):
        take(database, [window(1), event(2)], handlers={Up.EVENT: fail})
    assert stored(database) == []
    assert take(database, [window(1)]).windows == 1


def test_what_is_given_up_is_recorded_and_its_number_ends_here(database):
    with database.write() as session:
        outcome = give_up(session, event(1), reason="because", now=NOW)
    assert outcome.ledgers == {KEY: Ledger(1, (), 1)}
    with database.read() as session:
        [entry] = store.malformed(session)
    assert (entry.device, entry.kind, entry.error) == ("d1", "event", "because")


def test_malformed_messages_are_kept_to_a_bound(database, monkeypatch):
    monkeypatch.setattr(store, "KEPT_MALFORMED", 10)
    for number in range(5):
        batch = [arrival("d1", Up.PROFILE, b"\xff%d-%d" % (number, at) + b"x" * 1000) for at in range(7)]
        assert take(database, batch).malformed == 7
    with database.read() as session:
        kept = store.malformed(session)
    assert len(kept) == 10
    assert kept[0].head.startswith(b"\xff4-6")
    assert len(kept[0].head) == store.HEAD_BYTES
    assert kept[0].size_bytes == len(b"\xff4-6") + 1000


def test_a_window_from_the_future_is_put_at_its_receipt(database):
    take(database, [window(1, start_ms=START_MS + 10**9)])
    [entry] = stored(database)
    assert entry.start_ms + entry.length_ms == NOW * 1000 + 60_000
    assert entry.message.start_ms == START_MS + 10**9


def test_windows_are_found_by_slot_time_bundle_and_device(database):
    other = "sha256:" + "cd" * 32
    take(
        database,
        [
            window(1, start_ms=START_MS - 900_000),
            window(2, slot="other"),
            window(3, digest=other),
            window(4),
            window(1, device="d2"),
        ],
    )
    with database.read() as session:

        def found(**wanted: Any) -> list[tuple[str, int]]:
            given = {"slot": "quality", "start_ms": 0, "end_ms": 2**53, **wanted}
            return [(entry.device, entry.seq) for entry in store.windows(session, **given)]

        assert found() == [("d1", 1), ("d1", 3), ("d1", 4), ("d2", 1)]
        assert found(start_ms=START_MS) == [("d1", 3), ("d1", 4), ("d2", 1)]
        assert found(end_ms=START_MS) == [("d1", 1)]
        assert found(digests=[other]) == [("d1", 3)]
        assert found(digests=[]) == []
        assert found(devices=["d2"]) == [("d2", 1)]
        assert found(devices=[]) == []
        assert found(slot="nothing") == []


def test_a_scan_sees_every_window_once_in_the_order_of_storing(database):
    take(database, [window(seq) for seq in range(1, 8)])
    with database.read() as session:
        assert store.last_window_id(session) == store.windows_after(session, 0, 100)[-1].id
        first = store.windows_after(session, 0, 4)
        rest = store.windows_after(session, first[-1].id, 4)
        assert [entry.seq for entry in first + rest] == list(range(1, 8))
        assert store.windows_after(session, rest[-1].id, 4) == []


def test_windows_are_stacked_into_arrays_by_spec(database):
    damaged = {"body": b"\x00damaged"}
    take(database, [window(1, n=4), window(2, spec_hash="0" * 16), window(3, **damaged), window(4, n=6)])
    arrays = stack(stored(database), SPEC)
    assert (len(arrays), arrays.damaged, arrays.n.tolist()) == (2, 1, [4, 6])
    assert arrays.cells.shape == (2, SPEC.size)
    assert arrays.moments.shape == (2, 2, 2)
    assert arrays.cells.sum(axis=1).tolist() == [8, 12]
    assert arrays.digests == [DIGEST, DIGEST]
    assert stack([], SPEC).cells.shape == (0, SPEC.size)


def test_many_devices_in_one_batch(database):
    arrivals = [window(1, device=f"many-{number}") for number in range(900)]
    assert take(database, arrivals).windows == 900
    again = take(database, [*arrivals, *[window(2, device=f"many-{number}") for number in range(900)]])
    assert (again.windows, again.duplicates, again.clones) == (900, 900, 0)


DEVICES = itertools.count()
PAYLOADS = {seq: profile_payload(seq=seq) for seq in range(1, 13)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(1, 12), max_size=12), max_size=5))
def test_in_any_order_with_any_duplicates_the_store_holds_each_once(database, batches):
    name = f"any-{next(DEVICES)}"  # the database is the same for every example
    for batch in batches:
        take(database, [arrival(name, Up.PROFILE, PAYLOADS[seq]) for seq in batch])
    sent = {seq for batch in batches for seq in batch}
    with database.read() as session:
        found = store.windows(session, slot="quality", start_ms=0, end_ms=2**53, devices=[name])
        ledger = store.device_ledgers(session, name).get(EPOCH, Ledger())
    assert sorted(entry.seq for entry in found) == sorted(sent)
    assert {seq for seq in range(1, 20) if ledger.covers(seq)} == sent
