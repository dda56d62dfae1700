"""The controller dies at every one of its writes, just before or just after the commit, and is started anew.

The rollout must end as it ends without a death: same history, same devices on the same bundles, same generations, same
events for webhooks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session, select

from shoal_server.access import audit
from shoal_server.fleet import assignments
from shoal_server.outbox.tables import EventRow
from shoal_server.rollouts import creation, store
from shoal_server.rollouts.carry_out import Circumstances
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.machine import FINAL, RolloutState
from shoal_server.rollouts.runner import Runner
from shoal_server.signals import Signals
from shoal_server.storage.database import Database
from shoal_server.testing.program import FakeClock
from shoal_server.testing.rollout_world import NEW, OLD, plan_of
from shoal_server.testing.simulated_devices import Behaviour, fleet_of
from shoal_server.testing.stored_fleet import StoredFleet, add_version
from shoal_server.webhooks import store as webhooks

_ENDS = FINAL | {RolloutState.COMPLETED}
_STAGES = [{"devices": {"percent": 40}, "soak": "1s"}, {"devices": {"percent": 100}, "soak": "1s"}]


class Death(BaseException):
    """The process is killed."""


class MortalDatabase(Database):
    """Kills whoever makes the n-th write, counted from 1, before or after its commit."""

    def __init__(self, url: str, *, at: int, after_commit: bool) -> None:
        super().__init__(url)
        self.writes = 0
        self._at, self._after_commit = at, after_commit

    @contextmanager
    def write(self) -> Iterator[Session]:
        self.writes += 1
        dies = self.writes == self._at
        with super().write() as session:
            yield session
            if dies and not self._after_commit:
                raise Death
        if dies:
            raise Death


def _end(folder: Path, behaviour: Behaviour, *, at: int, after_commit: bool) -> tuple[object, int]:
    """Return how a rollout ends when its controller dies so, and how many writes it took."""
    clock = FakeClock()
    database = Database(f"sqlite:///{folder}/shoal.db")
    database.create_all()
    add_version(database, model="quality", version="1.0.0", digest=OLD, counter=1)
    add_version(database, model="quality", version="1.1.0", digest=NEW, counter=2)
    fleet = StoredFleet(database, fleet_of(5, active=OLD, behaviours={NEW: behaviour}), clock=clock)
    with database.write() as session:
        wish = webhooks.Wish(
            url="https://x.example", types=("*",), min_severity=None, format="cloudevents", enabled=True
        )
        webhooks.create(session, "ops", wish, by="tests", now=clock())
        plan = plan_of(stages=_STAGES, rate={"in_flight": 1})
        about = Circumstances(now=clock())
        creation.create(session, plan, references=lambda _digest: None, actor="person:ada", about=about)
    mortal = MortalDatabase(database.url, at=at, after_commit=after_commit)
    runner = _runner(mortal, clock)
    for _ in range(60):
        try:
            runner.tick()
        except Death:
            runner = _runner(mortal, clock)
        fleet.exchange()
        clock.advance(1.0)
        with database.read() as session:
            if store.read(session, "quality-1.1").state in _ENDS:
                break
    with database.read() as session:
        rollout = store.read(session, "quality-1.1")
        history = [(row.action, row.stage) for row in store.history(session, rollout.name)]
        end = (
            rollout.state,
            history,
            {name: device.active for name, device in fleet.devices.items()},
            assignments.generations(session),
            {name: (member.stage, member.previous) for name, member in rollout.members.items()},
            len(store.denials(session, "quality")),
            audit.first_break(session),
            session.exec(select(EventRow.type, EventRow.title).order_by(text("rowid"))).all(),
        )
    mortal.close()
    database.close()
    return end, mortal.writes


def _runner(database: Database, clock: FakeClock) -> Runner:
    return Runner(database=database, measure=lambda *_: Evidence(), signals=Signals(), clock=clock)


@pytest.mark.parametrize("behaviour", [Behaviour.GOOD, Behaviour.FAILS])
@pytest.mark.parametrize("after_commit", [False, True])
def test_killed_at_every_write_it_ends_the_same(tmp_path: Path, behaviour: Behaviour, after_commit: bool) -> None:
    (tmp_path / "alive").mkdir()
    expected, writes = _end(tmp_path / "alive", behaviour, at=0, after_commit=False)
    assert writes > 5
    assert len(expected[-1]) > 4  # type: ignore[index]
    for at in range(1, writes + 1):
        folder = tmp_path / f"dies-{at}"
        folder.mkdir()
        end, _ = _end(folder, behaviour, at=at, after_commit=after_commit)
        assert end == expected, f"killed at write {at}"
