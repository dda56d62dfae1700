"""The scan over stored windows: incremental, idempotent, and what it tells people."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session, SQLModel, select

from shoal_protocol.profile.reference import Reference
from shoal_server.alerts import store as alerts
from shoal_server.alerts.rules import AlertState
from shoal_server.drift import scan as scan_module
from shoal_server.drift import store
from shoal_server.drift.late_store import late_rows, newest_late
from shoal_server.drift.monitor_state import Scope
from shoal_server.drift.rules import Rules
from shoal_server.drift.scan import DriftScan, grace_ms
from shoal_server.drift.states import DriftState, current
from shoal_server.drift.tables import AlarmRow, LateRow, MonitorRow, ScanRow, ScoreRow, StreamRow
from shoal_server.errors import NotFoundError
from shoal_server.signals import Signals
from shoal_server.storage.database import Database
from shoal_server.telemetry.store import last_window_id
from shoal_server.testing.drift_fleet import DIGEST, SimulatedFleet, training_reference, window_rows

REFERENCE = training_reference()
WINDOW_S = 1.0
RULES = Rules(baseline_windows=24)  # production's 48 take twice as long
BASELINE = 26
FOG = {"normal": 2.0, "gaps": 2.0}


class Scanned:
    """A simulated fleet whose windows are stored and scanned."""

    def __init__(self, database: Database, *, devices: int = 12, seed: int = 1) -> None:
        self.database = database
        self.fleet = SimulatedFleet(reference=REFERENCE, devices=devices, seed=seed)
        self.signals = Signals()
        self.scan = self.another()
        self.index = 0

    def another(self, **changes: Any) -> DriftScan:
        given = {"facts": lambda _session: self.fleet.facts, "signals": self.signals, "rules": RULES, **changes}
        return DriftScan(self.database, self.reference, lambda: self.now, **given)

    def reference(self, digest: str) -> Reference | None:
        if digest != DIGEST:
            raise NotFoundError("there is no such bundle")
        return REFERENCE

    @property
    def now(self) -> float:
        return self.index * WINDOW_S + 0.1

    def store(
        self, windows: int, shifts: Mapping[int, Mapping[str, float]] | None = None, *, devices: int | None = None
    ) -> None:
        for _ in range(windows):
            messages = self.fleet.messages(self.index, window_ms=1000, shifts=shifts)[:devices]
            self.index += 1
            with self.database.write() as session:
                session.add_all(window_rows(messages, received_at=self.now))

    def run(self, windows: int, shifts: Mapping[int, Mapping[str, float]] | None = None) -> int:
        self.store(windows, shifts)
        return self.scan.tick()

    def fog(self, site: str = "site=s1") -> dict[int, dict[str, float]]:
        return {at: FOG for at in self.fleet.members(site)}  # noqa: C420 - nobody changes it

    def states(self, **wanted: Any) -> list[DriftState]:
        with self.database.read() as session:
            found = current(session, "reader")
        return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]

    def alerts(self) -> list[Any]:
        with self.database.read() as session:
            return alerts.alerts(session)


@pytest.fixture
def scanned(database: Database) -> Scanned:
    return Scanned(database)


def everything(session: Session) -> dict[str, list[dict[str, Any]]]:
    """All rows that the scan writes, but for times of writing."""
    tables: tuple[type[SQLModel], ...] = (ScanRow, MonitorRow, StreamRow, AlarmRow, ScoreRow)
    found = {
        table.__tablename__: [row.model_dump(exclude={"updated_at"}) for row in session.exec(select(table))]
        for table in tables
    }
    told = [row.model_dump(include={"key", "title", "body", "state"}) for row in alerts.alerts(session)]
    return {name: sorted(rows, key=repr) for name, rows in {**found, "alerts": told}.items()}


def test_a_foggy_site_is_told_once_with_place_extent_time_and_cause(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    assert {state.verdict for state in scanned.states()} == {"none"}
    assert scanned.alerts() == []
    scanned.run(8, scanned.fog())
    (alert,) = scanned.alerts()
    assert (alert.kind, alert.subject, alert.state) == ("drift", "slot:reader", AlertState.OPEN)
    assert alert.title.startswith("site=s1 drifts in reader: 2 streams, most ")
    assert "only site=s1 changed" in alert.body
    assert "- normal at site=s1 drifts since 1970-01-01 00:00 UTC: location +" in alert.body
    blamed = {(state.name, state.feature) for state in scanned.states(scope=Scope.COHORT, verdict="drift")}
    assert blamed == {("site=s1", "normal"), ("site=s1", "gaps")}
    assert {"drift", "alerts"} <= set(scanned.signals.counters())


def test_the_alert_is_resolved_when_the_fog_has_lifted(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    scanned.run(6, scanned.fog())
    scanned.run(40)
    assert [alert.state for alert in scanned.alerts()] == [AlertState.RESOLVED]
    assert {state.verdict for state in scanned.states()} == {"none"}


def test_an_acknowledged_alarm_stays_silent_while_its_cause_lasts(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    scanned.run(8, scanned.fog())
    (alert,) = scanned.alerts()
    with scanned.database.write() as session:
        alerts.acknowledge(session, alert.id, by="person:ann", now=scanned.now)
    scanned.scan.tick()  # also while no windows come
    assert all(state.acknowledged for state in scanned.states(scope=Scope.COHORT, verdict="drift"))
    told = alert.count
    scanned.run(6, scanned.fog())
    (alert,) = scanned.alerts()
    assert (alert.state, alert.count) == (AlertState.ACKNOWLEDGED, told)


def test_scanned_at_once_in_steps_or_by_another_process_gives_the_same(database: Database, tmp_path: Any) -> None:
    def fill(scanned: Scanned, *, step: int) -> None:
        for at in range(BASELINE + 9):
            scanned.store(1, scanned.fog() if at >= BASELINE + 3 else None)
            if at % step == step - 1:
                scanned.another().tick()  # nothing is kept in memory
        scanned.index += 10
        scanned.another().tick()

    stepwise = Scanned(database)
    fill(stepwise, step=2)
    others = [Database(f"sqlite:///{tmp_path}/{name}.db") for name in ("seldom", "at_once")]
    for other, step in zip(others, (5, 1000), strict=True):
        other.create_all()
        fill(Scanned(other), step=step)
    with database.read() as one, others[0].read() as two, others[1].read() as three:
        expected = everything(one)
        assert len(expected["alerts"]) == 1
        for session in (two, three):
            found = everything(session)
            assert found.keys() == expected.keys()
            for table, rows in expected.items():
                # what was seen and read when differs, not what came of it
                assert found[table] == rows or table == "drift_scan", table
    for other in others:
        other.close()


def test_a_tick_that_dies_leaves_nothing_behind(scanned: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned.run(20)
    scanned.store(5)
    scanned.index += 5
    with scanned.database.read() as session:
        before = everything(session)
    monkeypatch.setattr(scan_module.store, "save_cursor", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scanned.scan.tick()
    with scanned.database.read() as session:
        assert everything(session) == before
    monkeypatch.undo()
    assert scanned.scan.tick() == 7
    assert scanned.scan.tick() == 0


def test_a_backlog_is_taken_in_batches(scanned: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_BATCH", 7)  # fewer than the devices: a bucket takes several
    scanned.store(10)
    scanned.index += 5
    assert scanned.scan.tick() == 10
    with scanned.database.read() as session:
        (row,) = store.monitors(session)
        assert (row.watermark, row.late) == (9, 0)


def test_late_windows_are_counted_once_and_change_nothing(scanned: Scanned) -> None:
    scanned.run(10)
    with scanned.database.read() as session:
        streams = [row.memory for row in session.exec(select(StreamRow).order_by(StreamRow.scope_name))]
    late = scanned.fleet.messages(3)
    with scanned.database.write() as session:
        rows = window_rows(late, received_at=scanned.now)
        for row in rows:
            row.epoch = "11" * 8
        session.add_all(rows)
    for _ in range(3):
        scanned.scan.tick()
    with scanned.database.read() as session:
        (monitor,) = store.monitors(session)
        assert monitor.late == len(rows)
        again = [row.memory for row in session.exec(select(StreamRow).order_by(StreamRow.scope_name))]
    assert again == streams


class Offline:
    """The device cam-000 is not heard for a while, then sends everything at once."""

    def __init__(self, scanned: Scanned) -> None:
        self.scanned = scanned
        self.kept: list[Any] = []

    def run(self, windows: int, shift: Mapping[str, float] | None = None) -> None:
        scanned = self.scanned
        for _ in range(windows):
            shifts = {} if shift is None else {0: shift}
            messages = scanned.fleet.messages(scanned.index, window_ms=1000, shifts=shifts)
            scanned.index += 1
            self.kept += [one for one in messages if one[0] == "cam-000"]
            with scanned.database.write() as session:
                rest = [one for one in messages if one[0] != "cam-000"]
                session.add_all(window_rows(rest, received_at=scanned.now))
            scanned.scan.tick()

    def comes_back(self) -> None:
        self.scanned.run(2)  # the buckets of what it kept are closed
        kept, self.kept = self.kept, []
        with self.scanned.database.write() as session:
            session.add_all(window_rows(kept, received_at=self.scanned.now))
        self.scanned.scan.tick()

    def late(self) -> dict[str, Any]:
        with self.scanned.database.read() as session:
            (found,) = newest_late(session, "reader", DIGEST)
        return found


def test_a_device_that_comes_back_is_judged_by_what_it_saw_meanwhile(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    offline = Offline(scanned)
    offline.run(10)
    offline.comes_back()
    late = offline.late()
    assert (late["device"], late["windows"], late["rows"], late["verdict"]) == ("cam-000", 10, 200, "none")
    assert (late["from"], late["to"]) == ("1970-01-01T00:00:29.000Z", "1970-01-01T00:00:39.000Z")
    assert scanned.alerts() == []
    scanned.run(4)
    assert {one.verdict for one in scanned.states()} == {"none"}


def test_a_fault_while_it_was_away_is_told_as_late_and_raises_no_fresh_alarm(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    offline = Offline(scanned)
    offline.run(10, {"normal": 4.0})
    offline.comes_back()
    late = offline.late()
    assert (late["verdict"], late["feature"]) == ("drift", "normal")
    assert late["change"].startswith("location +")
    assert late["since"].startswith("1970-01-01T00:00:")
    (alert,) = scanned.alerts()
    assert alert.severity == "info"
    assert alert.title.startswith("cam-000 drifted in reader while it was not heard: most normal (location +")
    assert "came late" in alert.body
    scanned.run(6)  # it is well again
    assert {one.verdict for one in scanned.states()} == {"none"}
    assert len(scanned.alerts()) == 1
    offline.run(40)
    offline.comes_back()
    assert offline.late()["verdict"] == "none"
    assert [one.state for one in scanned.alerts()] == [AlertState.RESOLVED]


def test_a_device_that_is_always_late_learns_a_baseline_of_its_own(scanned: Scanned) -> None:
    offline = Offline(scanned)
    for _ in range(4):
        offline.run(10)
        offline.comes_back()
    assert offline.late()["verdict"] == "none"
    for _ in range(2):
        offline.run(6, {"normal": 4.0})
        offline.comes_back()
    assert (offline.late()["verdict"], offline.late()["windows"]) == ("drift", 52)


def test_late_rows_of_few_devices_are_read_alone_and_of_many_in_parts(database: Database) -> None:
    names = [f"cam-{number:04}" for number in range(1_201)]
    with database.write() as session:
        for name in names:
            session.add(LateRow(slot="reader", digest=DIGEST, device=name, first_ms=0, last_ms=1, arrived_at=1.0))
    read: list[str] = []
    with database.read() as session:

        def note(row: LateRow, _context: object) -> None:
            read.append(row.device)

        event.listen(LateRow, "load", note)
        try:
            few = late_rows(session, "reader", DIGEST, devices=["cam-0007", "cam-0003", "cam-0007", "elsewhere"])
            assert [row.device for row in few] == read == ["cam-0003", "cam-0007"]
            many = late_rows(session, "reader", DIGEST, devices=reversed(names[1:]))
        finally:
            event.remove(LateRow, "load", note)
        assert [row.device for row in many] == names[1:]
        assert late_rows(session, "reader", DIGEST, devices=[]) == []
        assert [row.device for row in late_rows(session, "reader", DIGEST)] == names


def test_open_buckets_wait(scanned: Scanned) -> None:
    scanned.store(1)
    end = 1.0
    assert scanned.scan.tick(end + grace_ms(1000) / 1000 - 0.01) == 0
    assert scanned.scan.tick(end + grace_ms(1000) / 1000) == 1


def test_a_device_that_claims_an_endless_window_does_not_hold_the_scan_up(scanned: Scanned, database: Database) -> None:
    scanned.store(1)
    (endless,) = window_rows(scanned.fleet.messages(1)[:1], received_at=scanned.now)
    endless.slot, endless.length_ms = "invented", 2**50
    endless.start_ms = 1000 - 2**50  # as telemetry takes it in: no window ends in the future
    with database.write() as session:
        session.add(endless)
    scanned.index += 3 * 3600
    scanned.scan.tick()
    with database.read() as session:
        assert store.cursor(session).read_through == last_window_id(session)


def test_a_late_window_without_a_date_is_told_from_the_epoch_on(scanned: Scanned) -> None:
    scanned.run(BASELINE + 3)
    offline = Offline(scanned)
    offline.run(10, {"normal": 4.0})
    message = offline.kept[0]
    (absurd,) = window_rows([message], received_at=scanned.now)
    absurd.start_ms, absurd.length_ms, absurd.epoch = -(2**52), 2**50, "22" * 8  # stored by an earlier version
    with scanned.database.write() as session:
        session.add(absurd)
    offline.comes_back()
    late = offline.late()
    assert (late["verdict"], late["from"]) == ("drift", "1970-01-01T00:00:00.000Z")
    assert len(scanned.alerts()) == 1


def test_a_bundle_that_cannot_be_judged_stops_no_other(
    scanned: Scanned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    judged = scan_module.take_late

    def fragile(session: Session, watch: Any, *given: Any, **named: Any) -> int:
        if watch.slot == "absurd":
            raise ValueError("year 36812 is out of range")
        return judged(session, watch, *given, **named)

    monkeypatch.setattr(scan_module, "take_late", fragile)
    for index in range(3):
        scanned.store(1)
        rows = window_rows(scanned.fleet.messages(index), received_at=scanned.now)
        for row in rows:
            row.slot, row.epoch = "absurd", "33" * 8
        with scanned.database.write() as session:
            session.add_all(rows)
    scanned.store(2)
    scanned.scan.tick()
    with scanned.database.read() as session:
        assert [(one.slot, one.watermark) for one in store.monitors(session)] == [("reader", 2)]
    assert "in absurd can't be judged" in caplog.text


def test_strangers_unknown_bundles_and_damaged_windows_are_left_out(scanned: Scanned) -> None:
    messages = scanned.fleet.messages(0)
    rows = window_rows(messages, received_at=1.0)
    rows[0].device = "stranger"
    rows[1].digest = "sha256:" + "cd" * 32
    rows[2].body = b"\x90"
    with scanned.database.write() as session:
        session.add_all(rows)
    scanned.index = 10
    scanned.scan.tick()
    with scanned.database.read() as session:
        (monitor,) = store.monitors(session)
        watch = store.load(session, "reader", DIGEST)
    assert monitor.damaged == 1
    assert watch is not None
    assert watch.state.devices.names == scanned.fleet.names[3:]


def test_learning_and_too_few_are_said_so(scanned: Scanned, database: Database) -> None:
    scanned.run(20)
    assert {state.verdict for state in scanned.states()} == {"learning"}
    assert {state.windows for state in scanned.states(scope=Scope.DEVICE)} == {18}


@pytest.mark.parametrize("windows", [20, BASELINE + 3])
def test_a_fleet_that_has_become_too_small_to_compare_says_so(scanned: Scanned, windows: int) -> None:
    """Else the last word of the larger fleet, `learning` or `none`, would stand for ever."""
    scanned.run(windows)
    scanned.store(8, devices=4)
    scanned.scan.tick()
    assert {state.verdict for state in scanned.states(scope=Scope.FLEET)} == {"too_few"}
    names = set(scanned.fleet.names[:4])
    heard = {state.verdict for state in scanned.states(scope=Scope.DEVICE) if state.name in names}
    assert heard <= {"learning", "none"}


def test_a_bundle_that_is_gone_from_the_slot_has_no_present_state(scanned: Scanned) -> None:
    scanned.run(10)
    with scanned.database.write() as session:
        old = session.get(MonitorRow, ("reader", DIGEST))
        assert old is not None
        session.add(
            MonitorRow(**{**old.model_dump(), "digest": "sha256:" + "00" * 32, "watermark": old.watermark - 20})
        )
    assert {state.digest for state in scanned.states()} == {DIGEST}
    with scanned.database.write() as session:
        assert store.forget(session, before=scanned.now + 1) == 2
        assert everything(session)["drift_streams"] == []


def test_histories_are_bounded(scanned: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEPT_BUCKETS", 5)
    scanned.run(BASELINE)
    with scanned.database.read() as session:
        scores = store.scores(session, "reader", DIGEST, scope=Scope.FLEET, name="fleet")
    assert len(scores) == 5
    assert scores[-1].bucket == BASELINE - 3
