"""Agreement of shadows comes in with windows, once, and is added up by hour, over devices."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.shadow import DIFFERENCES, DifferenceSums, ShadowSums
from shoal_protocol.trust.assignment import Sampling, SlotTarget
from shoal_server.fleet import assignments
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.telemetry.shadows import forget_shadows, summaries
from shoal_server.testing.telemetry import DIGEST, START_MS, profile_payload

NOW = START_MS / 1000 + 310
SHADOW = "sha256:" + "cd" * 32
COUNTS = (3, *(0,) * (DIFFERENCES - 2), 1)
SUMS = ShadowSums(
    SHADOW,
    10,
    8,
    4,
    1,
    (("a", "a", 8), ("a", "b", 2)),
    DifferenceSums(9, -1.0, 3.0, 5.0, COUNTS),
    (0, 5),
    (0, 0, 4, 1),
)


def send(database: Database, *payloads: bytes, device: str = "d1") -> None:
    with database.write() as session:
        arrivals = [arrival(device, Up.PROFILE, payload) for payload in payloads]
        store_batch(session, arrivals, handlers={}, on_clone=lambda *_: None, now=NOW)


def test_what_a_shadow_did_is_added_up_once(database: Database) -> None:
    first = profile_payload(seq=1, shadows=(SUMS,))
    send(database, first, profile_payload(seq=2, shadows=(SUMS,)), first)
    send(database, profile_payload(seq=1, shadows=(SUMS,)), device="d2")
    with database.read() as session:
        (found,) = summaries(session, since_ms=START_MS)
        (one,) = summaries(session, since_ms=START_MS, device="d2", slot="quality")
        assert summaries(session, since_ms=START_MS, slot="other") == []
    assert (found.digest, found.shadow, found.devices) == (DIGEST, SHADOW, 2)
    assert (found.rows, found.agreed, found.dropped, found.errors) == (30, 24, 12, 3)
    assert found.pairs == (("a", "a", 24), ("a", "b", 6))
    assert (found.agreement, found.mean_absolute) == (0.8, pytest.approx(1 / 3))
    assert (found.differences[0], found.differences[-1], len(found.differences)) == (9, 3, DIFFERENCES)
    assert found.latency_us == {"active": (20.0, 20.0), "shadow": (50.0, 100.0)}
    assert (one.rows, one.devices) == (10, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:no"},
        {"agreed": 11},
        {"rows": -1},
        {"pairs": (("a", "b", 11),)},
        {"pairs": (("a" * 65, "b", 1),)},
        {"pairs": (("a\x00", "b", 1),)},
        {"shadow_latency": (0,) * 30},
        {"differences": DifferenceSums(1, float("nan"), 0.0, 0.0, ())},
        {"differences": DifferenceSums(1, 0.0, -1.0, 0.0, ())},
        {"differences": DifferenceSums(1, 0.0, 0.0, 0.0, (0,) * (DIFFERENCES + 1))},
    ],
)
def test_impossible_sums_make_the_window_malformed(changes) -> None:
    hostile = ShadowSums(**({name: getattr(SUMS, name) for name in SUMS.__struct_fields__} | changes))
    assert arrival("d1", Up.PROFILE, profile_payload(shadows=(hostile,))).message is None


def test_old_sums_are_forgotten(database: Database) -> None:
    send(database, profile_payload(shadows=(SUMS,)))
    with database.write() as session:
        forget_shadows(session, before_ms=START_MS + 3_600_000)
        assert summaries(session, since_ms=0) == []


def _target(session: Session) -> SlotTarget:
    return assignments.targets(session, "d1")["quality"]


def test_a_rollout_keeps_what_goes_beside_the_model_until_the_shadow_becomes_it(database: Database) -> None:
    sampling = Sampling(share=0.01, until=START_MS)
    with database.write() as session:
        assignments.assign(session, "d1", "quality", SlotTarget(digest=DIGEST), now=NOW)
        beside = SlotTarget(digest=DIGEST, shadow=SHADOW, sampling=sampling)
        assert assignments.adjust_all(session, "quality", ["d1", "d2"], lambda _: beside, now=NOW) == ["d1"]
        assert assignments.generations(session) == {"d1": 2}
        other = "sha256:" + "ef" * 32
        assignments.assign(session, "d1", "quality", SlotTarget(digest=other, attempt=1), now=NOW)
        assert _target(session) == SlotTarget(digest=other, attempt=1, shadow=SHADOW, sampling=sampling)
        assignments.assign(session, "d1", "quality", SlotTarget(digest=SHADOW), now=NOW)
        assert _target(session) == SlotTarget(digest=SHADOW, sampling=sampling)
