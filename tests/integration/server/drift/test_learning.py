"""The worker that fixes what is counted of bundles without data: when enough was told, and whatever devices told."""

import msgspec
import numpy as np
import pytest
from sqlmodel import select

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec
from shoal_protocol.profile.sketch import sketches_of
from shoal_server.drift.learning import PATIENCE_S, LearningScan, learnt_reference
from shoal_server.drift.tables import SketchRow
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.storage.database import Database

NOW = 1_800_000_000.0
FIRST, SECOND = ("sha256:" + digit * 64 for digit in "12")
SCHEMA = ModelSchema(
    tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
    inputs=(FieldSpec(name="p", dtype="float32", tensor="x", column=0),),
    outputs=(),
)


class Learning:
    """Five accepted devices, none of which says yet what it runs."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOW
        self.scan = LearningScan(database, lambda _digest: SCHEMA, lambda _digest: None, lambda: self.now)
        with database.write() as session:
            for at in range(5):
                session.add(
                    DeviceRow(
                        id=f"cam-{at}",
                        state=DeviceState.ACCEPTED,
                        public_key="",
                        verifier="",
                        token_id="t",
                        enrolled_at=NOW,
                    )
                )

    def tells(self, device: str, digest: str, columns: bytes | None = None) -> None:
        seen = sketches_of(SCHEMA, {"x": np.random.default_rng(1).normal(size=(300, 1)).astype(np.float32)})
        body = msgspec.json.encode(seen) if columns is None else columns
        with self.database.write() as session:
            session.add(SketchRow(digest=digest, device=device, columns=body, received_at=self.now))

    def is_learnt(self, digest: str) -> bool:
        with self.database.read() as session:
            return learnt_reference(session, digest) is not None

    def waiting(self) -> list[tuple[str, str]]:
        with self.database.read() as session:
            return [(row.digest, row.device) for row in session.exec(select(SketchRow))]


@pytest.fixture
def learning(database: Database) -> Learning:
    return Learning(database)


def test_no_device_fixes_the_cells_of_a_fleet_alone_but_the_fleet_is_not_waited_for_without_end(
    learning: Learning,
) -> None:
    learning.tells("cam-0", FIRST)
    learning.tells("cam-1", FIRST)
    assert learning.scan.tick() == 0
    learning.tells("cam-2", FIRST)
    assert learning.scan.tick() == 1
    assert learning.is_learnt(FIRST)
    learning.tells("cam-0", SECOND)
    assert learning.scan.tick() == 0
    learning.now += PATIENCE_S
    assert learning.scan.tick() == 1
    assert learning.is_learnt(SECOND)


def test_sketches_that_nothing_can_be_learnt_of_are_dropped_and_hold_up_no_other_bundle(
    learning: Learning, caplog: pytest.LogCaptureFixture
) -> None:
    learning.tells("cam-0", FIRST, b'{"in:p": {"n": -1}}')
    for device in ("cam-0", "cam-1", "cam-2"):
        learning.tells(device, SECOND)
    learning.now += PATIENCE_S
    assert learning.scan.tick() == 1
    assert (learning.is_learnt(FIRST), learning.is_learnt(SECOND)) == (False, True)
    assert learning.waiting() == []
    assert f"nothing can be learnt of the sketches of {FIRST}" in caplog.text
    assert learning.scan.tick() == 0
