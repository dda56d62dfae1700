"""The worker on a real database: whole rollouts, two runners at once, and what surrounds a rollout."""

import threading
from typing import Any

import pytest
from msgspec.structs import replace

from shoal_server.access import audit
from shoal_server.alerts.store import alerts
from shoal_server.errors import NotFoundError
from shoal_server.fleet import assignments
from shoal_server.fleet import store as fleet_store
from shoal_server.rollouts import creation, store, wishes
from shoal_server.rollouts.carry_out import Circumstances
from shoal_server.rollouts.commands import Verb, Wish
from shoal_server.rollouts.control import Question
from shoal_server.rollouts.gates import Difference, Evidence
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.plan import parse_plan
from shoal_server.rollouts.rollout import Rollout
from shoal_server.rollouts.runner import Runner
from shoal_server.signals import Signals
from shoal_server.storage.database import Database
from shoal_server.testing.drift_fleet import training_reference
from shoal_server.testing.program import FakeClock
from shoal_server.testing.rollout_world import NEW, OLD, plan_of
from shoal_server.testing.simulated_devices import Behaviour, SimulatedDevice, fleet_of
from shoal_server.testing.stored_fleet import StoredFleet, add_version

BAD = Difference(value=0.5, low=0.4, high=0.6, n=900, devices=3, detail="label 7 is 0.50 higher than expected")


class Scene:
    """A database with a registry, a fleet and a runner."""

    def __init__(self, database: Database, devices: dict[str, SimulatedDevice] | None = None, **labels: Any) -> None:
        self.database = database
        self.clock = FakeClock()
        self.evidence = Evidence()
        self.asked: list[Question] = []
        add_version(database, model="quality", version="1.0.0", digest=OLD, counter=1)
        add_version(database, model="quality", version="1.1.0", digest=NEW, counter=2)
        self.fleet = StoredFleet(
            database, fleet_of(10, active=OLD) if devices is None else devices, clock=self.clock, **labels
        )
        self.runner = self.another_runner()

    def another_runner(self) -> Runner:
        return Runner(
            database=self.database, measure=self._measure, signals=Signals(), clock=self.clock, standing_s=0.0
        )

    def _measure(self, _session: Any, asked: Question, _gates: Any, _now: float) -> Evidence:
        self.asked.append(asked)
        return self.evidence

    def create(self, **changes: Any) -> Rollout:
        with self.database.write() as session:
            return creation.create(
                session,
                plan_of(**changes),
                references=lambda _digest: None,
                actor="person:ada",
                about=Circumstances(now=self.clock(), request_id="r1"),
            )

    def wish(self, name: str, verb: Verb, reason: str = "") -> Rollout:
        with self.database.write() as session:
            wish = Wish(verb=verb, actor="person:ada", reason=reason)
            return wishes.act(session, name, wish, Circumstances(now=self.clock()))

    def rollout(self, name: str = "quality-1.1") -> Rollout:
        with self.database.read() as session:
            return store.read(session, name)

    def run(self, name: str = "quality-1.1", until: RolloutState | None = None, ticks: int = 60) -> RolloutState:
        for _ in range(ticks):
            if self.rollout(name).state is until:
                break
            self.tick()
        return self.rollout(name).state

    def tick(self) -> None:
        self.runner.tick()
        self.fleet.exchange()
        self.clock.advance(1.0)


def test_a_good_bundle_reaches_all_and_every_change_is_audited(database: Database) -> None:
    scene = Scene(database)
    scene.create()
    assert scene.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert scene.fleet.running(NEW) == set(scene.fleet.devices)
    with database.read() as session:
        actions = [row.action for row in store.history(session, "quality-1.1")]
        rows = [row for row in audit.rows(session, limit=100) if row.subject == "rollout:quality-1.1"]
        assert audit.first_break(session) is None
    assert actions[0] == "rollout.create"
    assert actions[-1] == "rollout.completed"
    assert [row.action for row in reversed(rows)] == actions
    assert {row.actor for row in rows} == {"person:ada", "server"}


def test_a_bad_bundle_is_taken_back_denied_and_told(database: Database) -> None:
    scene = Scene(database, fleet_of(10, active=OLD, behaviours={NEW: Behaviour.FAILS}))
    scene.create()
    assert scene.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert scene.fleet.running(OLD) == set(scene.fleet.devices)
    with database.read() as session:
        denied = store.denials(session, "quality")
        raised = alerts(session)
    assert [(row.digest, row.cohort) for row in denied] == [(NEW, "all")]
    assert [(alert.subject, alert.kind, alert.severity) for alert in raised] == [
        ("rollout:quality-1.1", "rollout.rolling_back", "critical")
    ]
    with pytest.raises(creation.CreationError, match="denied for 'all' by the rollout quality-1.1") as refused:
        scene.create(name="again")
    assert "override" in refused.value.hint
    for device in scene.fleet.devices.values():
        device.behaviours = {}
    scene.create(name="again", override={"denied": "the golden rows were wrong"})
    with database.read() as session:
        assert store.denials(session, "quality") == []
    assert scene.run("again", until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert scene.fleet.running(NEW) == set(scene.fleet.devices), "also those that remember that it failed"


def test_a_gate_asks_about_canaries_and_concurrent_control(database: Database) -> None:
    scene = Scene(database)
    scene.create(gates={"errors": {"vs": "control", "increase": "<= 1pp"}})
    scene.evidence = Evidence(errors=BAD)
    assert scene.run(until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    asked = scene.asked[0]
    assert (asked.digest, asked.control_digest, asked.previous_digest) == (NEW, OLD, OLD)
    assert set(asked.canary).isdisjoint(asked.control)
    assert len(asked.canary) == 3
    assert len(asked.control) == 7
    assert asked.against == "7 devices not yet updated"
    assert scene.fleet.running(OLD) == set(scene.fleet.devices)


def test_two_runners_at_once_advance_once(database: Database) -> None:
    scene = Scene(database, fleet_of(30, active=OLD))
    scene.create(stages=[{"devices": {"percent": 100}, "soak": "2s"}])
    runners = [scene.another_runner() for _ in range(3)]
    for _ in range(12):
        barrier = threading.Barrier(len(runners))

        def turn(runner: Runner, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            runner.tick()

        threads = [threading.Thread(target=turn, args=(runner,)) for runner in runners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scene.fleet.exchange()
        scene.clock.advance(1.0)
    assert scene.rollout().state is RolloutState.COMPLETED
    with database.read() as session:
        actions = [row.action for row in store.history(session, "quality-1.1")]
        assert len(actions) == len(set(actions))
        assert set(assignments.generations(session).values()) == {1}
        assert audit.first_break(session) is None


def test_a_runner_that_was_stopped_mid_tick_does_nothing_when_it_goes_on(database: Database) -> None:
    """It has seen evidence for a rollback, but another runner has carried the rollout on since it looked."""
    scene = Scene(database)
    scene.create(gates={"errors": {"vs": "control", "increase": "<= 1pp"}})
    for _ in range(4):
        scene.tick()
    slow = scene.another_runner()

    def stopped(*_args: Any) -> Evidence:
        scene.tick()
        return Evidence(errors=BAD)

    slow._measure = stopped
    assert slow.tick() == 0
    assert scene.rollout().state is RolloutState.RUNNING
    slow._measure = lambda *_args: Evidence(errors=BAD)
    assert slow.tick() == 1, "what it sees on the present state it does act on"
    assert scene.rollout().state is RolloutState.ROLLING_BACK


def test_a_second_rollout_on_the_same_devices_is_refused_by_name(database: Database) -> None:
    scene = Scene(database)
    scene.create()
    with pytest.raises(creation.CreationError, match="the rollout quality-1.1 is active on the slot quality of 10"):
        scene.create(name="other")
    with pytest.raises(creation.CreationError, match="there is already a rollout quality-1.1"):
        scene.create()


def test_who_enters_the_cohort_later_gets_the_standing_bundle(database: Database) -> None:
    scene = Scene(database)
    scene.create()
    scene.run(until=RolloutState.COMPLETED)
    scene.fleet.join(SimulatedDevice("late", active=None))
    scene.fleet.exchange()
    for _ in range(4):
        scene.tick()
    assert scene.fleet.devices["late"].active == NEW
    assert scene.rollout().members["late"].late


@pytest.mark.parametrize(("standing", "expected"), [(True, NEW), (False, OLD)])
def test_labels_and_pins_let_devices_in_later(database: Database, standing: bool, expected: str) -> None:
    devices = fleet_of(4, active=OLD)
    labels = {name: {"site": "bern"} for name in devices}
    labels["cam-3"] = {"site": "basel"}
    scene = Scene(database, devices, labels=labels)
    with database.write() as session:
        fleet_store.pin(session, "cam-2", reason="under repair")
    scene.create(cohort="site = bern", standing=standing)
    assert scene.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert scene.fleet.running(NEW) == {"cam-0", "cam-1"}
    with database.write() as session:
        fleet_store.unpin(session, "cam-2")
        fleet_store.set_labels(session, "cam-3", {"site": "bern"})
    for _ in range(4):
        scene.tick()
    assert {scene.fleet.devices[name].active for name in ("cam-2", "cam-3")} == {expected}


def test_the_newest_completed_rollout_wins(database: Database) -> None:
    scene = Scene(database)
    newest = "sha256:" + "3" * 64
    add_version(database, model="quality", version="1.2.0", digest=newest, counter=3)
    scene.create()
    scene.run(until=RolloutState.COMPLETED)
    scene.create(name="second", bundle="quality:1.2.0")
    scene.run("second", until=RolloutState.COMPLETED)
    scene.fleet.join(SimulatedDevice("late", active=None))
    scene.fleet.exchange()
    for _ in range(5):
        scene.tick()
    assert scene.fleet.devices["late"].active == newest
    assert "late" not in scene.rollout().members
    scene.wish("second", Verb.UNDO, "too early")
    assert scene.run("second", until=RolloutState.ROLLED_BACK) is RolloutState.ROLLED_BACK
    assert scene.fleet.running(NEW) == set(fleet_of(10, active=OLD))


def test_undo_is_refused_while_another_rollout_is_at_work(database: Database) -> None:
    scene = Scene(database)
    newest = "sha256:" + "3" * 64
    add_version(database, model="quality", version="1.2.0", digest=newest, counter=3)
    scene.create()
    scene.run(until=RolloutState.COMPLETED)
    scene.create(name="second", bundle="quality:1.2.0")
    with pytest.raises(Exception, match="the rollout second is active on 10 of these devices"):
        scene.wish("quality-1.1", Verb.UNDO)


@pytest.mark.parametrize("newer_is", [RolloutState.RUNNING, RolloutState.COMPLETED])
def test_a_retry_of_a_completed_rollout_takes_no_device_from_a_newer_one(
    database: Database, newer_is: RolloutState
) -> None:
    """A device that a newer rollout moved on runs another bundle, which looks like a failure of the older one's."""
    scene = Scene(database)
    newest = "sha256:" + "3" * 64
    add_version(database, model="quality", version="1.2.0", digest=newest, counter=3)
    scene.create()
    scene.run(until=RolloutState.COMPLETED)
    scene.create(name="second", bundle="quality:1.2.0", stages=[{"devices": {"percent": 100}, "soak": "30s"}])
    for _ in range(8):
        scene.tick()
    scene.run("second", until=newer_is)
    scene.wish("quality-1.1", Verb.RETRY)
    scene.run("second", until=RolloutState.COMPLETED)
    for _ in range(5):
        scene.tick()
    assert scene.rollout("second").state is RolloutState.COMPLETED
    assert scene.fleet.running(newest) == set(fleet_of(10, active=OLD))
    assert not scene.rollout("quality-1.1").retry_wanted


def test_dry_run_lists_the_devices_that_are_then_chosen(database: Database) -> None:
    scene = Scene(database)
    with database.read() as session:
        draft = creation.draft(
            session,
            parse_plan(plan_of()),
            references=lambda _digest: None,
            actor="person:ada",
            now=scene.clock(),
        )
    assert draft.rollout.members == scene.create().members


@pytest.mark.parametrize(("accuracy", "notes"), [(0.17, 1), (0.84, 0)])
def test_a_bundle_that_states_worse_figures_than_what_runs_is_noted(
    database: Database, accuracy: float, notes: int
) -> None:
    """Labels that were swapped in training: its own reference says that it answers so, and no gate objects."""
    reference = training_reference(rows=50)
    figures = {OLD: 0.84, NEW: accuracy}
    stated = {digest: replace(reference, metrics={"accuracy": value}) for digest, value in figures.items()}
    scene = Scene(database)
    with database.read() as session:
        draft = creation.draft(
            session,
            parse_plan(plan_of()),
            references=stated.__getitem__,
            actor="person:ada",
            now=scene.clock(),
        )
    said = [note for note in draft.notes if "accuracy" in note]
    assert len(said) == notes
    assert all("0.17, but quality:1.0.0, which 10 of these devices run, 0.84" in note for note in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cohort": "site = nowhere"}, "reaches no device: no accepted device matches"),
        ({"gates": {"install": {"min_devices": 5}}}, "stage 1 adds 3 devices, but gates.install.min_devices is 5"),
        ({"gates": {"output": {"drift_vs": "control"}}}, "quality:1.1.0 holds no reference profile"),
    ],
)
def test_what_could_never_pass_is_refused(database: Database, change: dict[str, Any], message: str) -> None:
    scene = Scene(database)
    with pytest.raises(creation.CreationError, match=message):
        scene.create(**change)


def test_a_bundle_that_is_not_there_is_refused(database: Database) -> None:
    scene = Scene(database)
    with pytest.raises(NotFoundError):
        scene.create(bundle="quality:9.9.9")


def test_revoked_devices_weigh_nothing(database: Database) -> None:
    devices = fleet_of(10, active=OLD)
    scene = Scene(database, devices)
    rollout = scene.create()
    canaries = [member.device for member in rollout.members_of(0)]
    for name in canaries[:2]:
        devices[name].behaviours = {NEW: Behaviour.FAILS}
    for _ in range(2):
        scene.tick()
    with database.write() as session:
        for name in canaries[:2]:
            fleet_store.revoke(session, name)
    assert scene.run(until=RolloutState.COMPLETED) is RolloutState.COMPLETED
    assert scene.rollout().stages[0].counts.eligible == 1


def test_a_worker_survives_a_rollout_that_breaks(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(database)
    scene.create(gates={"errors": {"vs": "control", "increase": "<= 1pp"}})

    def broken(*_args: Any) -> Evidence:
        raise ZeroDivisionError

    scene.runner._measure = broken
    for _ in range(5):
        scene.tick()
    assert "the rollout quality-1.1 could not be carried on" in caplog.text
    assert scene.rollout().state is RolloutState.RUNNING
