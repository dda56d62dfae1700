"""What the accuracy gate measures on stored windows and labels."""

from __future__ import annotations

import math

import pytest

from shoal_server.quality.estimates import reference_accuracy
from shoal_server.rollouts.accuracy import estimated_level, feedback_level
from shoal_server.rollouts.control import Question
from shoal_server.storage.database import Database
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.telemetry.store import windows
from shoal_server.testing.quality_fleet import QualityFleet, reference

DIGEST = "sha256:" + "aa" * 32
NOON_MS = 1_800_000_000_000
CANARY = ("d0", "d1", "d2", "d3")


def asked(since_ms: int = NOON_MS) -> Question:
    return Question(
        slot="quality",
        digest=DIGEST,
        canary=CANARY,
        control=(),
        control_digest=None,
        previous_digest=None,
        since=since_ms / 1000,
        against="",
    )


def test_estimate_and_feedback_of_the_canary_alone(database: Database) -> None:
    fleet = QualityFleet(database, dict.fromkeys(CANARY, "bern") | {"d9": "basel"}, digest=DIGEST)
    for hour in range(4):
        fleet.predict(NOON_MS + hour * HOUR_MS, rows=200, labelled=0.5, flipped={"basel": 1.0})
    with database.read() as session:
        found = windows(session, slot="quality", start_ms=0, end_ms=2**50, devices=CANARY)
        estimated = estimated_level(found, reference())
        feedback = feedback_level(session, asked())
        later = feedback_level(session, asked(NOON_MS + 10 * HOUR_MS))
    assert (estimated.n, estimated.devices, feedback.n, feedback.devices) == (3200, 4, 1600, 4)
    usual = reference_accuracy(reference())
    assert usual is not None
    for level in (estimated, feedback):
        assert level.value == pytest.approx(usual, abs=0.03)
        assert level.low < level.value < level.high
    assert math.isnan(later.value)
    assert "no true label" in later.detail


def test_without_reference_or_calibration_nothing_is_told(database: Database) -> None:
    QualityFleet(database, dict.fromkeys(CANARY, "bern"), digest=DIGEST).predict(NOON_MS)
    bare = reference()
    without = type(bare)(bare.spec, bare.profile)
    with database.read() as session:
        found = windows(session, slot="quality", start_ms=0, end_ms=2**50)
    assert "no calibration" in estimated_level(found, without).detail
    assert "no reference" in estimated_level(found, None).detail
    assert "no predictions" in estimated_level([], bare).detail
