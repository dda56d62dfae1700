"""Labels of earlier predictions come in with any window, once, and are added to the hour of the predictions."""

from __future__ import annotations

from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.labels import ErrorSums, LabelGroup
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.telemetry.labels import forget_labels, label_cells, label_errors
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.testing.telemetry import DIGEST, START_MS, profile_payload

NOW = START_MS / 1000 + 310
OLD = START_MS - 30 * 24 * HOUR_MS - 600_000
OTHER = "sha256:" + "cd" * 32
ALL = {"slot": "quality", "start_ms": 0, "end_ms": 2**52}


def send(database: Database, *payloads: bytes, device: str = "d1") -> None:
    with database.write() as session:
        arrivals = [arrival(device, Up.PROFILE, payload) for payload in payloads]
        assert all(one.message is not None for one in arrivals), [one.fault for one in arrivals]
        store_batch(session, arrivals, handlers={}, on_clone=lambda *_: None, now=NOW)


def group(start_ms: int, *cells: tuple[int, int, int, int], digest: str = DIGEST) -> LabelGroup:
    return LabelGroup("quality", digest, start_ms, 300_000, cells)


def test_labels_are_added_to_the_hour_of_their_predictions_once(database: Database) -> None:
    first = profile_payload(seq=1, labels=(group(OLD, (0, 1, 40, 2)), group(OLD + 300_000, (0, 1, 40, 1))))
    second = profile_payload(seq=2, labels=(group(OLD, (1, 1, 63, 5), digest=OTHER),))
    send(database, first, second, first)
    send(database, second)
    with database.read() as session:
        found = sorted(label_cells(session, **ALL))
        hour = OLD // HOUR_MS * HOUR_MS
        assert found == [(DIGEST, "d1", hour, 0, 1, 40, 3), (OTHER, "d1", hour, 1, 1, 63, 5)]
        assert label_cells(session, **{**ALL, "end_ms": hour}) == []
        assert [row[0] for row in label_cells(session, **ALL, digest=OTHER)] == [OTHER]


def test_errors_of_a_regression_add_up(database: Database) -> None:
    sums = ErrorSums(2, -1.0, 3.0, 5.0, 10.0, 60.0)
    labels = (LabelGroup("quality", DIGEST, OLD, 300_000, ((0, 0, 30, 2),), sums),)
    send(database, profile_payload(seq=1, labels=labels), profile_payload(seq=2, labels=labels))
    with database.read() as session:
        ((digest, device, _, found),) = label_errors(session, **ALL)
    assert (digest, device, found) == (DIGEST, "d1", sums + sums)


def test_labels_of_the_future_are_taken_as_of_now_and_old_ones_are_forgotten(database: Database) -> None:
    send(database, profile_payload(labels=(group(START_MS + 10**12, (0, 0, 1, 1)), group(OLD, (0, 0, 1, 1)))))
    with database.write() as session:
        assert {row[2] for row in label_cells(session, **ALL)} == {
            int(NOW * 1000) // HOUR_MS * HOUR_MS,
            OLD // HOUR_MS * HOUR_MS,
        }
        forget_labels(session, before_ms=START_MS - HOUR_MS)
        assert len(label_cells(session, **ALL)) == 1


def test_labels_out_of_range_make_the_message_malformed() -> None:
    for cells in (((0, 0, 1, 0),), ((0, 0, 256, 1),), ((-1, 0, 1, 1),), ((0, 0, 1, 2**60),)):
        assert "label" in arrival("d1", Up.PROFILE, profile_payload(labels=(group(OLD, *cells),))).fault
    bad = LabelGroup("quality", DIGEST, OLD, 1, (), ErrorSums(1, float("nan"), 0, 0, 0, 0))
    assert "not finite" in arrival("d1", Up.PROFILE, profile_payload(labels=(bad,))).fault
