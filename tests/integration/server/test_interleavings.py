"""Two transactions at the worst moment, on both databases: each test forces the order that once lost something."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
from securesystemslib.signer import CryptoSigner

from shoal_protocol.trust.assignment import Sampling, SlotTarget
from shoal_server.access import audit
from shoal_server.alerts import store as alerts
from shoal_server.alerts.rules import AlertState
from shoal_server.alerts.tables import Alert
from shoal_server.fleet import assignments
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.publisher import Publisher
from shoal_server.fleet.tables import DeviceRow
from shoal_server.rollouts import creation, store
from shoal_server.rollouts.carry_out import Circumstances, carry_out
from shoal_server.rollouts.effects import Notify, Record
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.runner import Runner
from shoal_server.signals import Signals
from shoal_server.storage.database import Database
from shoal_server.testing.link import FakeLink
from shoal_server.testing.program import FakeClock
from shoal_server.testing.rollout_world import NEW, OLD, plan_of
from shoal_server.testing.simulated_devices import SimulatedDevice, fleet_of
from shoal_server.testing.stored_fleet import StoredFleet, add_version

NOW = 1_800_000_000.0


class Meanwhile:
    """Another thread, which goes as far as nothing holds it up."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.errors: list[Exception] = []
        self._act = act
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> None:
        self._thread.start()
        self._thread.join(0.5)

    def end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert not self.errors

    def _run(self) -> None:
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - judged by `end`
            self.errors.append(error)


def add_device(database: Database, name: str) -> None:
    with database.write() as session:
        row = DeviceRow(id=name, state=DeviceState.ACCEPTED, public_key="", verifier="", token_id="t", enrolled_at=NOW)
        session.add(row)


def test_what_goes_beside_a_model_does_not_take_back_what_a_rollout_assigns_meanwhile(database: Database) -> None:
    one, two = (SlotTarget(digest="sha256:" + digit * 64) for digit in "12")
    sampling = Sampling(share=0.5, until=1_900_000_000_000)
    add_device(database, "cam")
    with database.write() as session:
        assignments.assign(session, "cam", "s", one, now=NOW)

    def roll_out() -> None:
        with database.write() as session:
            assignments.assign(session, "cam", "s", two, now=NOW + 1)

    other = Meanwhile(roll_out)

    def change(target: SlotTarget) -> SlotTarget:
        other.begin()
        return msgspec.structs.replace(target, sampling=sampling)

    with database.write() as session:
        assert assignments.adjust_all(session, "s", ["cam"], change, now=NOW) == ["cam"]
    other.end()
    with database.read() as session:
        target = assignments.targets(session, "cam")["s"]
    assert (target.digest, target.sampling) == (two.digest, sampling)


def assigned(database: Database, *names: str) -> Callable[[], None]:
    """Assign something to devices, in this order of time; return what assigns something else to all at once."""
    for at, name in enumerate(names):
        add_device(database, name)
        with database.write() as session:
            assignments.assign(session, name, "s", SlotTarget(digest="sha256:" + "1" * 64), now=NOW + at)

    def roll_out() -> None:
        target = SlotTarget(digest="sha256:" + "2" * 64)
        with database.write() as session:
            assignments.assign_all(session, "s", dict.fromkeys(names, target), now=NOW + 10)

    return roll_out


def test_reports_of_many_devices_and_a_rollout_do_not_wait_for_each_other(database: Database) -> None:
    other = Meanwhile(assigned(database, "b", "a"))
    with database.write() as session:
        assignments.on_generation(session, "b", reported=1, now=NOW)
        other.begin()
        assignments.on_generation(session, "a", reported=1, now=NOW)
    other.end()
    with database.read() as session:
        assert assignments.generations(session) == {"a": 2, "b": 2}


def test_signing_for_many_devices_and_a_rollout_do_not_wait_for_each_other(database: Database) -> None:
    other = Meanwhile(assigned(database, "b", "a"))
    signer = CryptoSigner.generate_ecdsa()
    sign = signer.sign
    begun: list[bytes] = []

    def slowly(payload: bytes) -> Any:
        begun.append(payload)
        if len(begun) == 1:
            other.begin()
        return sign(payload)

    signer.sign = slowly  # type: ignore[method-assign]  # as above, but slower
    link = FakeLink()
    link.start(lambda _inbound: None)
    publisher = Publisher(database=database, link=link, signer=lambda: signer, clock=lambda: NOW + 5)
    publisher.tick()
    other.end()
    publisher.tick()
    with database.read() as session:
        assert assignments.due(session, now=NOW + 5, limit=9) == []


def test_a_cause_that_comes_back_while_it_is_called_gone_is_told(database: Database) -> None:
    def tell() -> Alert:
        with database.write() as session:
            return alerts.raise_alert(
                session, kind="drift", subject="slot:s", title="t", body="b", severity="warning", key="k", now=NOW
            )

    first, other = tell(), Meanwhile(tell)
    with database.write() as session:
        alerts.resolve_alert(session, "k", now=NOW)
        other.begin()
    other.end()
    with database.read() as session:
        told = alerts.open_alert(session, "k")
    assert told is not None
    assert told.id != first.id


def test_an_alert_that_gets_worse_while_it_is_acknowledged_is_open(database: Database) -> None:
    def tell(severity: str) -> Alert:
        with database.write() as session:
            return alerts.raise_alert(
                session, kind="drift", subject="slot:s", title="t", body="b", severity=severity, key="k", now=NOW
            )

    first, other = tell("warning"), Meanwhile(lambda: tell("critical"))
    with database.write() as session:
        assert first.id is not None
        alerts.acknowledge(session, first.id, by="person:ann", now=NOW)
        other.begin()
    other.end()
    with database.read() as session:
        assert alerts.get(session, first.id).state == AlertState.OPEN


def test_who_acknowledges_an_alert_and_a_rollout_that_raises_it_again_do_not_wait_for_each_other(
    database: Database,
) -> None:
    add_version(database, model="quality", version="1.1.0", digest=NEW, counter=1)
    add_device(database, "cam")
    about = Circumstances(now=NOW)
    effects = [
        Record(action="rollout.paused", reason="", before={}, after={}),
        Notify(kind="rollout.paused", severity="warning", title="t", body="b"),
    ]
    with database.write() as session:
        plan = plan_of(stages=[{"devices": {"percent": 100}, "soak": "6s"}])
        made = creation.create(session, plan, references=lambda _digest: None, actor="person:ada", about=about)
        carry_out(session, made, effects, about)
        (alert,) = alerts.alerts(session)

    def pause() -> None:
        with database.write() as session:
            carry_out(session, made, effects, about)

    other = Meanwhile(pause)
    with database.write() as session:
        assert alert.id is not None
        alerts.acknowledge(session, alert.id, by="person:ann", now=NOW)
        other.begin()
        audit.record(session, actor="person:ann", action="alert.ack", subject=f"alert:{alert.id}", now=NOW)
    other.end()
    with database.read() as session:
        assert alerts.get(session, alert.id).count == 2
        assert audit.first_break(session) is None


def test_a_newcomer_is_taken_by_one_rollout_of_two(database: Database) -> None:
    clock = FakeClock()
    add_version(database, model="quality", version="1.0.0", digest=OLD, counter=1)
    add_version(database, model="quality", version="1.1.0", digest=NEW, counter=2)
    fleet = StoredFleet(database, fleet_of(4, active=OLD), clock=clock)
    signals = Signals()

    def measure(*_asked: Any) -> Evidence:
        return Evidence()

    runner = Runner(database=database, measure=measure, signals=signals, clock=clock, standing_s=0.0)

    def create(name: str, **changes: Any) -> None:
        with database.write() as session:
            creation.create(
                session,
                plan_of(name=name, **changes),
                references=lambda _digest: None,
                actor="person:ada",
                about=Circumstances(now=clock(), request_id="r1"),
            )
            if name == "second":
                other.begin()

    other = Meanwhile(lambda: runner.advance("first"))
    create("first", standing=True)
    for _ in range(60):
        runner.tick()
        fleet.exchange()
        clock.advance(1.0)
    with database.read() as session:
        assert store.read(session, "first").state is RolloutState.COMPLETED
    fleet.join(SimulatedDevice(id="new", active=OLD), {"site": "new"})
    fleet.exchange()
    create("second", bundle="quality:1.0.0", cohort="site = new", stages=[{"devices": {"percent": 100}, "soak": "6s"}])
    other.end()
    with database.read() as session:
        members = {name: set(store.read(session, name).members) for name in ("first", "second")}
    assert members["second"] == {"new"}
    assert "new" not in members["first"]
