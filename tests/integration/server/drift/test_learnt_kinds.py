"""A bundle without data, from first rows to an alarm: values of every kind are learnt, and each kind's drift found."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from shoal_agent.runtime.followers import Followed
from shoal_agent.runtime.learner import Learner
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.mqtt.messages import Event
from shoal_protocol.profile.codec import ProfileMessage, encode_counts
from shoal_protocol.profile.profile import summarise
from shoal_protocol.profile.reference import Reference
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.drift.being_learnt import BeingLearnt, being_learnt
from shoal_server.drift.learning import LearningScan, References, on_first_rows
from shoal_server.drift.monitor import Rules
from shoal_server.drift.scan import DriftScan
from shoal_server.drift.states import current
from shoal_server.fleet import assignments
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.storage.database import Database
from shoal_server.testing.drift_fleet import DIGEST, window_rows

SLOT, BASELINE, ROWS, FIRST = "reader", 24, 30, 400
SIDE, WIDTH = 12, 48
NUMBERS = ("a", "b", "c")
SCHEMA = ModelSchema(
    tensors=(
        TensorSpec(name="x", dtype="float32", shape=(None, 3)),
        TensorSpec(name="flag", dtype="bool", shape=(None, 1)),
        TensorSpec(name="site", dtype="string", shape=(None, 1)),
        TensorSpec(name="at", dtype="int64", shape=(None, 1)),
        TensorSpec(name="pieces", dtype="int64", shape=(None, 1)),
        TensorSpec(name="note", dtype="string", shape=(None, 1)),
        TensorSpec(name="image", dtype="float32", shape=(None, 3, None, None)),
        TensorSpec(name="embedding", dtype="float32", shape=(None, 1, WIDTH)),
    ),
    inputs=(
        *(FieldSpec(name=name, dtype="float32", tensor="x", column=at) for at, name in enumerate(NUMBERS)),
        FieldSpec(name="flag", dtype="bool", tensor="flag"),
        *(FieldSpec(name=name, dtype="string", tensor=name) for name in ("site", "note")),
        *(FieldSpec(name=name, dtype="int64", tensor=name) for name in ("at", "pieces")),
        *(FieldSpec(name=name, dtype="float32", tensor=name) for name in ("image", "embedding")),
    ),
    outputs=(
        OutputSpec(name="label", dtype="bool", shape=(None,), role="label"),
        OutputSpec(name="value", dtype="float32", shape=(None, 3), role="value"),
        OutputSpec(name="votes", dtype="float32", shape=(None, 20), role="scores"),
        OutputSpec(name="anomaly", dtype="float32", shape=(None, 1), role="scores"),
    ),
)
WORDS = ("pump", "valve", "noisy", "bearing", "since", "monday", "oil", "leak", "motor", "hot", "cold", "belt", "worn")
ALIEN = ("pompe", "fuit", "encore", "depuis", "hier", "soir", "beaucoup", "vite", "trop", "fort", "huile", "chaude")
_AXES = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0] * (3 / np.arange(1, WIDTH + 1))[:, None]
_TURNED = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0]
_DAY = 86_400

FAULTS: dict[str, tuple[str, ...]] = {
    "correlation": ("joint 1", "joint 2", "joint 3"),
    "flag": ("flag",),
    "new site": ("site",),
    "night": ("at.hour",),
    "more pieces": ("pieces",),
    "language": ("note.unknown_tokens", "note.letters", "note.length"),
    "blur": ("image.sharpness", "image.contrast", *(f"image.projection {at}" for at in range(1, 9))),
    "turned": tuple(f"embedding.projection {at}" for at in range(1, 9)),
    "second value": ("value1",),
    "unsure": ("score",),
    "odd": ("output.score",),
}
"""What goes wrong on one device each, and the streams that may say so."""


def drawn(random: np.random.Generator, n: int, fault: str = "") -> dict[str, Any]:
    """Draw the tensors of a device's rows."""
    a = random.normal(size=n)
    b = (-0.9 if fault == "correlation" else 0.9) * a + 0.44 * random.normal(size=n)
    vote = random.normal(size=(n, 20))
    vote[:, 3] += 1.0 if fault == "unsure" else 4.0
    odd = random.gamma(2.0, 0.1, (n, 1)) * (3 if fault == "odd" else 1)
    hours = random.integers(0, 6, n) if fault == "night" else random.integers(8, 18, n)
    values = random.normal([0, 50, 1e6], [1, 5, 1e4], size=(n, 3))
    values[:, 1] += 10 * (fault == "second value")
    sites = ["bern", "basel"] if fault != "new site" else ["bern", "chur"]
    image = random.random((n, 3, SIDE, SIDE)) * random.uniform(0.5, 1, (n, 1, 1, 1))
    turned = _TURNED if fault == "turned" else np.eye(WIDTH)
    words = ALIEN if fault == "language" else WORDS
    tensors = {
        "x": np.stack([a, b, random.normal(size=n)], axis=1),
        "flag": random.random((n, 1)) < (0.9 if fault == "flag" else 0.3),
        "site": random.choice(np.array(sites, dtype=object), (n, 1)),
        "at": (1_790_000_000 // _DAY * _DAY + _DAY * random.integers(0, 7, n) + 3600 * hours + 5)[:, None],
        "pieces": random.poisson(9 if fault == "more pieces" else 4, (n, 1)),
        "note": np.array([[" ".join(random.choice(words, 8))] for _ in range(n)], dtype=object),
        "image": (image + np.roll(image, 1, axis=3)) / 2 if fault == "blur" else image,
        "embedding": ((random.normal(size=(n, WIDTH)) @ _AXES + _AXES[0]) @ turned)[:, None, :],
        "label": random.random(n) < 0.4,
        "value": values,
        "votes": vote,
        "anomaly": odd,
    }
    return {
        name: values.astype(np.float32) if values.dtype == np.float64 else values for name, values in tensors.items()
    }


class Model(Followed):
    """What a learner sees of an active model."""

    schema = SCHEMA


class Fleet:
    """Devices that run a bundle without data, and the server that learns of them."""

    def __init__(self, database: Database, names: list[str]) -> None:
        self.database, self.names = database, names
        self.now = 1_800_000_000.0
        self.random = np.random.default_rng(3)
        self.own: Callable[[str], Reference | None] = lambda _digest: None
        self.references = References(database, self.own)
        with database.write() as session:
            for name in names:
                row = DeviceRow(
                    id=name, state=DeviceState.ACCEPTED, public_key="", verifier="", token_id="t", enrolled_at=self.now
                )
                row.reported = {SLOT: {"state": "healthy", "active": DIGEST}}
                session.add(row)
                assignments.assign(session, name, SLOT, SlotTarget(digest=DIGEST, name="reader:1.0.0"), now=self.now)

    def learning(self) -> LearningScan:
        """A worker that knows nothing but the database, as after a restart."""
        return LearningScan(self.database, lambda _digest: SCHEMA, self.own, lambda: self.now)

    def sees(self, *, broken: bool = False) -> dict[str, Any]:
        """What a device tells of its first rows; a broken one sees nothing but zeros."""
        model: Any = Model()
        learner = Learner(model, seconds=0.0, monotonic=lambda: 0.0)
        learner.start()
        rows = drawn(self.random, FIRST)
        if broken:
            rows = {name: np.zeros_like(values) if values.dtype != object else values for name, values in rows.items()}
        outputs = {output.name for output in SCHEMA.outputs}
        for first in range(0, FIRST, 10):
            part = {name: values[first : first + 10] for name, values in rows.items()}
            feeds = {name: values for name, values in part.items() if name not in outputs}
            for follower in model.followers:
                follower.answered(feeds, {name: part[name] for name in outputs}, 1000)
        assert learner.is_done
        return {"columns": json.loads(msgspec.json.encode(learner.sketches()))}

    def tells(self, name: str, data: dict[str, Any]) -> None:
        event = Event(
            epoch="00" * 8, boot=1, seq=1, sent_at=1, at=1, kind="first_rows", slot=SLOT, digest=DIGEST, data=data
        )
        with self.database.write() as session:
            on_first_rows(session, name, event, self.now, own=self.own)

    def progress(self) -> list[BeingLearnt]:
        with self.database.read() as session:
            return being_learnt(session, None, self.references)


@pytest.fixture
def fleet(database: Database) -> Fleet:
    return Fleet(database, [f"cam-{at:02}" for at in range(len(FAULTS))])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # that rows come back is tested elsewhere
def test_every_kind_is_learnt_and_its_drift_found_on_the_device_that_has_it(fleet: Fleet) -> None:
    for at, name in enumerate(fleet.names):
        assert fleet.progress() == [BeingLearnt(SLOT, DIGEST, len(fleet.names), at)]
        data = fleet.sees(broken=at == 5)
        fleet.tells(name, data)
        fleet.tells(name, data)  # at least once, says MQTT
        assert fleet.learning().tick() == (at == len(fleet.names) - 1)
    assert fleet.progress() == []
    reference = fleet.references(DIGEST)
    assert reference is not None
    fleet.tells("cam-00", fleet.sees())  # too late: what is fixed stays
    assert (fleet.learning().tick(), fleet.references(DIGEST)) == (0, reference)
    scan = DriftScan(
        fleet.database,
        fleet.references,
        lambda: fleet.now,
        facts=lambda _session: {name: {"id": name} for name in fleet.names},
        rules=Rules(baseline_windows=BASELINE),
    )
    for index in range(BASELINE + 17):
        messages = []
        for name, fault in zip(fleet.names, FAULTS, strict=True):
            drifts = index > BASELINE + 2
            profile = summarise(reference.spec, drawn(fleet.random, ROWS, fault if drifts else ""))
            body = encode_counts(profile.cells, profile.moments)
            messages.append((name, window(reference, index, body)))
        fleet.now = index + 1.1
        with fleet.database.write() as session:
            session.add_all(window_rows(messages, received_at=fleet.now))
        scan.tick()
    with fleet.database.read() as session:
        states = [one for one in current(session, SLOT) if one.verdict == "drift" and one.scope == "device"]
    found = {name: {one.feature for one in states if one.name == name} for name in fleet.names}
    for (fault, may), name in zip(FAULTS.items(), fleet.names, strict=True):
        assert found[name], fault
        assert found[name] <= set(may), fault


def window(reference: Reference, index: int, body: bytes) -> ProfileMessage:
    return ProfileMessage(
        epoch="00" * 8,
        boot=1,
        seq=index + 1,
        sent_at=(index + 1) * 1000,
        slot=SLOT,
        digest=DIGEST,
        spec_hash=reference.spec.hash,
        start_ms=index * 1000,
        length_ms=1000,
        n=ROWS,
        errors=0,
        latency=(),
        resources={},
        body=body,
    )
