"""Gates on stored windows: which of them count, and what they say."""

import itertools
from typing import Any

import numpy as np
import pytest

from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import encode_counts
from shoal_protocol.profile.profile import summarise
from shoal_protocol.profile.reference import Reference
from shoal_server.errors import NotFoundError
from shoal_server.rollouts.control import Question
from shoal_server.rollouts.evidence import Measurements
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.plan import ErrorsGate, Gates, OutputGate
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.testing.rollout_world import NEW, OLD
from shoal_server.testing.telemetry import SPEC, START_MS, profile_payload

SINCE = START_MS / 1000
CANARY, CONTROL = ("c1", "c2", "c3"), ("k1", "k2", "k3", "k4")
BOTH = Gates(errors=ErrorsGate(increase=0.01), output=OutputGate())
_numbers = itertools.count(1)


def _body(ones: float, rows: int = 100) -> bytes:
    label = (np.arange(rows) < ones * rows).astype(np.int64)
    scores = np.linspace(0.5, 1.0, rows, dtype=np.float32).reshape(rows, 1)
    profile = summarise(SPEC, {"scores": scores, "label": label})
    return encode_counts(profile.cells, profile.moments)


def _reference(ones: float) -> Reference:
    rows = 4000
    label = (np.arange(rows) < ones * rows).astype(np.int64)
    scores = np.linspace(0.5, 1.0, rows, dtype=np.float32).reshape(rows, 1)
    return Reference(SPEC, summarise(SPEC, {"scores": scores, "label": label}))


class Windows:
    """Windows in a database, a second each."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self, devices: tuple[str, ...], digest: str, *, ones: float, at_s: float = 0.0, count: int = 5, errors: int = 0
    ) -> None:
        arrivals = [
            arrival(
                device,
                Up.PROFILE,
                profile_payload(
                    seq=next(_numbers),
                    digest=digest,
                    n=100,
                    errors=errors,
                    start_ms=START_MS + int(at_s * 1000) + 1000 * place,
                    length_ms=1000,
                    sent_at=START_MS + int(at_s * 1000) + 1000 * (place + 1),
                    body=_body(ones),
                ),
            )
            for device in devices
            for place in range(count)
        ]
        with self.database.write() as session:
            store_batch(session, arrivals, now=SINCE + at_s + count, handlers={}, on_clone=lambda *_: None)

    def measure(self, *, now: float = 30.0, references: Any = None, **changes: Any) -> Evidence:
        asked = Question(
            **{
                "slot": "quality",
                "digest": NEW,
                "canary": CANARY,
                "control": CONTROL,
                "control_digest": OLD,
                "previous_digest": OLD,
                "since": SINCE,
                "against": "4 devices not yet updated",
                **changes,
            }
        )
        known = references or (lambda _digest: _reference(0.5))
        with self.database.read() as session:
            return Measurements(known)(session, asked, BOTH, SINCE + now)


@pytest.fixture
def windows(database: Database) -> Windows:
    return Windows(database)


def test_nothing_is_said_before_the_new_bundle_predicts(windows: Windows) -> None:
    windows.add(CANARY, OLD, ones=0.5)
    windows.add(CONTROL, OLD, ones=0.5)
    assert windows.measure() == Evidence()


def test_predictions_that_move_with_the_control_are_not_the_bundles_fault(windows: Windows) -> None:
    for devices in (CANARY, CONTROL):
        windows.add(devices, OLD, ones=0.5, at_s=-20)
    windows.add(CANARY, NEW, ones=0.8)
    windows.add(CONTROL, OLD, ones=0.8)
    found = windows.measure()
    assert found.output is not None
    assert found.output.value < 0.05
    assert (found.output.n, found.output.devices) == (1500, 3)


def test_predictions_that_move_alone_are_proven(windows: Windows) -> None:
    for devices in (CANARY, CONTROL):
        windows.add(devices, OLD, ones=0.5, at_s=-20)
    windows.add(CANARY, NEW, ones=0.9)
    windows.add(CONTROL, OLD, ones=0.5)
    found = windows.measure()
    assert found.output is not None
    assert found.output.low is not None
    assert found.output.low > 0.1
    assert found.output.against == "4 devices not yet updated"
    assert "label" in found.output.detail


def test_a_shift_that_the_references_explain_is_expected(windows: Windows) -> None:
    windows.add(CANARY, NEW, ones=0.9)
    windows.add(CONTROL, OLD, ones=0.5)
    references = {NEW: _reference(0.9), OLD: _reference(0.5)}
    found = windows.measure(references=references.get)
    assert found.output is not None
    assert found.output.value < 0.05


def test_windows_outside_of_the_canarys_time_do_not_count(windows: Windows) -> None:
    windows.add(CANARY, NEW, ones=0.5, at_s=0, count=3)
    windows.add(CONTROL, OLD, ones=0.5, at_s=0, count=3)
    windows.add(CONTROL, OLD, ones=1.0, at_s=10, count=9)
    found = windows.measure()
    assert found.output is not None
    assert found.output.value < 0.05


def test_a_first_deployment_is_judged_by_its_own_reference(windows: Windows) -> None:
    windows.add(CANARY, NEW, ones=0.9)
    found = windows.measure(control=(), control_digest=None, previous_digest=None, against="the bundle's own reference")
    assert found.output is not None
    assert found.output.low is not None
    assert found.output.low > 0.1
    assert "reference" in found.output.against


def test_a_bundle_that_the_registry_does_not_know_is_no_control(windows: Windows) -> None:
    windows.add(CANARY, NEW, ones=0.5)
    windows.add(CONTROL, OLD, ones=0.9)

    def references(digest: str) -> Reference:
        if digest == OLD:
            raise NotFoundError("no such blob")
        return _reference(0.5)

    found = windows.measure(references=references)
    assert found.output is not None
    assert "reference" in found.output.against
    assert found.output.value < 0.05


def test_errors_are_compared_in_the_same_way(windows: Windows) -> None:
    for devices in (CANARY, CONTROL):
        windows.add(devices, OLD, ones=0.5, at_s=-20)
    windows.add(CANARY, NEW, ones=0.5, errors=25)
    windows.add(CONTROL, OLD, ones=0.5)
    found = windows.measure()
    assert found.errors is not None
    assert found.errors.value == pytest.approx(0.2)
    assert found.errors.low is not None
    assert found.errors.low > 0.1
