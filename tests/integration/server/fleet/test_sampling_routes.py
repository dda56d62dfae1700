"""Raw rows that a device sends: taken in under a permission, refused without one, too many, or after its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient

from shoal_protocol.samples import SAMPLES_PATH, SampleBatch, SampledRow
from shoal_protocol.trust.assignment import Sampling, SlotTarget
from shoal_server.fleet import assignments, sampling_routes
from shoal_server.storage.database import Database
from shoal_server.telemetry import samples
from shoal_server.testing.program import FakeClock, fake_services, program_of

DIGEST = "sha256:" + "ab" * 32
ROW = SampledRow(at=5, reason="random", inputs={"age": 34.0}, outputs={"p": 0.9})


class Room:
    """A server, and a device `cam-1` that may send samples for an hour."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.clock = FakeClock()
        self.services = fake_services(
            database, folder, clock=self.clock, verify_device=lambda _session, device, secret: secret == device
        )
        self.client = TestClient(program_of(self.services, [sampling_routes.router]))
        self.permit(Sampling(share=0.5, until=int((self.clock() + 3600) * 1000)))

    def permit(self, sampling: Sampling | None) -> None:
        with self.services.database.write() as session:
            if assignments.targets(session, "cam-1"):
                assignments.adjust_all(
                    session, "s", ["cam-1"], lambda t: msgspec.structs.replace(t, sampling=sampling), now=self.clock()
                )
            else:
                assignments.assign(
                    session, "cam-1", "s", SlotTarget(digest=DIGEST, sampling=sampling), now=self.clock()
                )

    def send(self, number: int = 1, *, device: str = "cam-1", slot: str = "s") -> Any:
        batch = SampleBatch(batch=f"{number:032x}", slot=slot, digest=DIGEST, rows=(ROW,))
        return self.client.post(SAMPLES_PATH, content=msgspec.json.encode(batch), auth=(device, device))

    @property
    def stored(self) -> int:
        with self.services.database.read() as session:
            return sum(one.rows for one in samples.sample_summaries(session))


@pytest.fixture
def room(database: Database, tmp_path: Path) -> Room:
    return Room(database, tmp_path)


def test_a_batch_is_stored_once(room: Room) -> None:
    assert [room.send(1).status_code, room.send(1).status_code, room.send(2).status_code] == [200, 200, 200]
    assert room.stored == 2


@pytest.mark.parametrize("fault", ["another slot", "another device", "withdrawn", "expired"])
def test_without_a_permission_in_force_rows_are_refused_and_not_stored(room: Room, fault: str) -> None:
    if fault == "withdrawn":
        room.permit(None)
    elif fault == "expired":
        room.clock.advance(3600 + 61)
    answer = room.send(
        slot="t" if fault == "another slot" else "s", device="cam-2" if fault == "another device" else "cam-1"
    )
    assert (answer.status_code, room.stored) == (403, 0)
    assert "no raw rows of slot" in answer.json()["detail"]


def test_a_device_that_sends_too_much_is_told_to_wait(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_DEVICE_BATCHES_PER_HOUR", 3)
    assert [room.send(number).status_code for number in range(5)] == [200, 200, 200, 429, 429]
    room.clock.advance(3601)
    room.permit(Sampling(share=0.5, until=int((room.clock() + 3600) * 1000)))
    assert room.send(9).status_code == 200


def test_what_is_old_or_too_much_goes_the_oldest_first(room: Room) -> None:
    for number in range(4):
        room.send(number)
        room.clock.advance(1.0)
    with room.services.database.write() as session:
        size = samples.sample_summaries(session)[0].size_bytes // 4
        samples.forget_samples(session, received_before=room.clock() - 3.5, max_bytes=10 * size)
        assert [number for number, _ in samples.batches_after(session, 0, slot="s", limit=9)] == [2, 3, 4]
        samples.forget_samples(session, received_before=0.0, max_bytes=2 * size)
        assert [number for number, _ in samples.batches_after(session, 0, slot="s", limit=9)] == [3, 4]


def test_a_body_that_is_none_is_refused(room: Room) -> None:
    answers = [
        room.client.post(SAMPLES_PATH, content=body, auth=("cam-1", "cam-1")) for body in (b"[]", b"x" * 600_000)
    ]
    assert [answer.status_code for answer in answers] == [422, 413]
