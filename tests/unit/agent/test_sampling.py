"""Which rows are chosen, how much is kept, and when sending is refused."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.sampling import accepted
from shoal_agent.domain.slot import SamplingWish, Slot
from shoal_agent.errors import TransportError
from shoal_agent.runtime.followers import Followed
from shoal_agent.runtime.sampler import Budget, Sampler
from shoal_agent.testing import FakeClock
from shoal_agent.updating.sampling import Sampling, SamplingClocks
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.errors import ContentError
from shoal_protocol.samples import MAX_BATCH_ROWS, SampledRow, parse_samples
from shoal_protocol.trust.assignment import Assignment, SlotTarget
from shoal_protocol.trust.assignment import Sampling as Permission

DIGEST = "sha256:" + "a" * 64
SCHEMA = ModelSchema(
    tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
    inputs=(
        FieldSpec(name="age", dtype="float32", tensor="x", column=0, low=0.0, high=100.0),
        FieldSpec(name="size", dtype="float32", tensor="x", column=1),
    ),
    outputs=(OutputSpec(name="p", dtype="float32", shape=(None, 2), role="probabilities"),),
)


class Model(Followed):
    """What a sampler sees of an active model."""

    digest = DIGEST
    schema = SCHEMA


@pytest.fixture
def model() -> Model:
    return Model()


def sampler(model: Model, share: float, budget: Budget | None = None) -> Sampler:
    made = Sampler(model, share=share, clock=FakeClock(), budget=budget or Budget(), chance=random.Random(7))
    made.start()
    return made


def ask(model: Model, rows: int, *, age: float = 30.0, sure: bool = True) -> None:
    x = np.full((rows, 2), age, np.float32)
    p = np.full((rows, 2), 0.5, np.float32)
    if sure:
        p[:] = [0.1, 0.9]
    for follower in model.followers:
        follower.answered({"x": x}, {"p": p}, 1000)


def told(made: Sampler) -> list[SampledRow]:
    return [msgspec.json.decode(raw, type=SampledRow) for raw in made.take().rows]


def test_a_share_is_taken_at_random_whatever_the_rows_hold(model):
    made = sampler(model, 0.02, Budget(rows=10**6, size_bytes=1 << 30))
    for _ in range(20_000):
        ask(model, 1)
    rows = told(made)
    assert {row.reason for row in rows} == {"random"}
    assert 140 <= len(rows) <= 260  # half of the share: 200 of 20,000, within four standard deviations
    ask(model, 20_000)
    assert 140 <= len(told(made)) <= 260


@pytest.mark.parametrize(("unusual", "reason"), [({"age": 130.0}, "out_of_range"), ({"sure": False}, "low_confidence")])
def test_notable_rows_get_the_other_half_of_the_share_and_no_more(model, unusual, reason):
    made = sampler(model, 0.02, Budget(rows=10**6, size_bytes=1 << 30))
    for _ in range(5_000):
        ask(model, 1, **unusual)
    reasons = [row.reason for row in told(made)]
    assert reasons.count(reason) == 50
    assert 20 <= reasons.count("random") <= 80


def test_at_a_share_of_one_every_row_is_taken_as_people_read_it(model):
    made = sampler(model, 1.0)
    ask(model, 3)
    rows = told(made)
    assert len(rows) == 3
    assert rows[0].inputs == {"age": 30.0, "size": 30.0}
    assert rows[0].outputs["p"] == pytest.approx([0.1, 0.9])


def test_a_missing_value_is_null(model):
    made = sampler(model, 1.0)
    ask(model, 1, age=float("nan"))
    assert told(made)[0].inputs["age"] is None


def test_no_more_than_the_budget_is_kept_and_the_rest_is_counted(model):
    made = sampler(model, 1.0, Budget(rows=10))
    ask(model, 25)
    taken = made.take()
    assert (len(taken.rows), taken.seen, taken.dropped) == (10, 25, 15)
    ask(model, 5)
    assert (made.take().rows, made.begin_window()) == ((), None)
    ask(model, 5)
    made.begin_window()
    ask(model, 20)
    assert len(made.take().rows) == 10  # what nobody fetched counts against the next window
    made.begin_window()
    small = sampler(model, 1.0, Budget(size_bytes=150))
    ask(model, 5)
    assert len(small.take().rows) == 1


def test_a_row_that_is_too_large_is_counted_and_not_taken():
    wide = Model()
    made = sampler(wide, 1.0)
    for follower in wide.followers:
        follower.answered({"x": np.zeros((1, 5000), np.float32)}, {"p": np.zeros((1, 2), np.float32)}, 1)
    taken = made.take()
    assert (taken.rows, taken.dropped) == ((), 1)


# The permission -------------------------------------------------------------------------------------------------


class Device:
    """A device whose permission, clock and link the test dictates."""

    def __init__(self, url: str = "https://shoal.example") -> None:
        self.clock, self.reference = FakeClock(), FakeClock()
        self.state = DeviceState()
        self.model = Model()
        self.url = url
        self.bodies: list[bytes] = []
        self.status: int | Exception = 200
        clocks = SamplingClocks(lambda: int(self.reference() * 1000), self.clock, window_s=60.0)
        self.sampling = Sampling(
            state=lambda: self.state,
            active=lambda _slot: self.model,
            sample=lambda model, share: Sampler(model, share=share, clock=self.clock, budget=Budget()),
            sender=self,
            clocks=clocks,
        )

    def permit(self, seconds: float | None) -> None:
        wish = None if seconds is None else SamplingWish(1.0, int((self.reference() + seconds) * 1000))
        self.state = self.state.with_slot("s", Slot(sampling=wish))

    def exchange(self, _method, _path, *, headers=None, body=None):
        if isinstance(self.status, Exception):
            raise self.status
        self.bodies.append(body)
        return self.status, {}, b""

    def close(self) -> None:
        """Nothing is open."""

    def turn(self, rows: int = 3) -> bool:
        permitted = self.sampling.turn()
        ask(self.model, rows)
        return self.sampling.turn() and permitted


def test_rows_are_sent_while_permitted_and_forgotten_at_the_end():
    device = Device()
    assert not device.turn()
    device.permit(60.0)
    assert device.turn()
    batch = parse_samples(device.bodies[0])
    assert (batch.slot, batch.digest, len(batch.rows), batch.seen) == ("s", DIGEST, 3, 3)
    ask(device.model, 3)
    device.reference.move(61.0)
    assert not device.turn()
    assert (len(device.bodies), device.model.followers) == (1, ())


@pytest.mark.parametrize("end", ["withdrawn", "expired", "clock set back"])
def test_what_could_not_be_sent_before_the_end_is_not_sent_after_it(end):
    device = Device()
    device.permit(60.0)
    device.status = TransportError("no network")
    device.turn()
    assert "no network" in device.sampling.reports()["s"]["fault"]
    device.status = 200
    if end == "withdrawn":
        device.permit(None)
    elif end == "expired":
        device.reference.move(61.0)
    else:
        device.reference.move(-30.0)
        device.clock.move(61.0)
    device.clock.move(10.0)
    device.turn()
    device.turn()
    assert (device.bodies, device.model.followers) == ([], ())


def test_a_transport_that_fails_gets_the_same_batch_again():
    device = Device()
    device.permit(60.0)
    device.status = 503
    device.turn()
    device.status = 200
    device.clock.move(6.0)
    device.turn()
    assert len({parse_samples(body).batch for body in device.bodies[:2]}) == 1


def test_without_tls_nothing_is_sampled_and_the_status_says_why():
    device = Device("http://10.0.0.1:8080")
    device.permit(60.0)
    assert device.turn()
    assert (device.bodies, device.model.followers) == ([], ())
    assert "has no TLS" in device.sampling.reports()["s"]["fault"]


def test_a_newer_assignment_that_does_not_name_a_slot_withdraws_its_permission():
    def assignment(**slots: SlotTarget) -> Assignment:
        return Assignment(device="d", generation=2, slots=slots, issued=0, expires=1)

    given = SlotTarget(digest=DIGEST, sampling=Permission(share=0.5, until=99))
    state = accepted(DeviceState(), assignment(s=given))
    assert state.slots["s"].sampling == SamplingWish(0.5, 99)
    assert accepted(state, assignment(s=SlotTarget(digest=DIGEST))).slots["s"].sampling is None
    assert accepted(state, assignment(t=SlotTarget(digest=DIGEST))).slots["s"].sampling is None
    wild = SlotTarget(digest=DIGEST, sampling=Permission(share=7.0, until=99))
    assert accepted(state, assignment(s=wild)).slots["s"].sampling is None


@pytest.mark.parametrize(
    "change", [{"batch": "x"}, {"slot": ""}, {"rows": []}, {"seen": -1}, {"digest": "sha256:1"}, {"rows": "no"}]
)
def test_a_batch_that_is_none_is_refused(change):
    row = {"at": 1, "reason": "random", "inputs": {}, "outputs": {}}
    good = {"batch": "0" * 32, "slot": "s", "digest": DIGEST, "rows": [row]}
    assert parse_samples(msgspec.json.encode(good)).rows
    with pytest.raises(ContentError):
        parse_samples(msgspec.json.encode({**good, **change}))
    with pytest.raises(ContentError, match="expected 1 to 256"):
        parse_samples(msgspec.json.encode({**good, "rows": [row] * (MAX_BATCH_ROWS + 1)}))
