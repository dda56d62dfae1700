"""A whole server and whole agents that break again and again, while their models change: every row counts once.

The part of the campaign `faults` that leaves nothing out: agents that load models and answer from two threads each, the
server with its embedded broker, its publisher, rollouts and counting beyond bundles. Models are swapped at random, by
assignment, by rollout, by undoing one, by going back at the device; windows close every 0.2 s; labels come back. The
last device is a process of its own that is killed. In the end the rows stored of each device must be those that it
answered, and its labels those that it took; of the killed one at most its open windows may be missing.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from counting_agent import MOST_ROWS, SLOT
from counting_devices import PATIENCE_S, Device, Mortal
from sqlalchemy import func
from sqlmodel import SQLModel, col, select

from fixtures_broker import find_free_port
from shoal_agent.adapters.enrolment import join
from shoal_agent.errors import NoModelError
from shoal_protocol.errors import CallerError, ShoalError
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.alerts import store as alerts
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.rollouts import creation, wishes
from shoal_server.rollouts.carry_out import Circumstances
from shoal_server.rollouts.commands import Verb, Wish
from shoal_server.storage.database import Database
from shoal_server.storage.settings import Pace
from shoal_server.telemetry import store as telemetry
from shoal_server.telemetry.tables import LabelErrorRow, WindowRow
from shoal_server.testing import settings_in
from shoal_server.testing.bundles import push_bundle, tiny_bundle

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
_FALSE = frozenset({"clone", "device_lost", "device_refused"})
"""Kinds of alerts for which nothing here gives a reason."""

_PACE = Pace(publisher_s=0.1, controller_s=0.2, scan_s=0.5)


@dataclass
class Fleet:
    """Everything that can break.

    Attributes:
        lots: Decide the faults.
        folder: Of the server's data and the devices' states.
        told: How often each fault came.
        number: Of the next assignment or rollout.
    """

    lots: random.Random
    folder: Path
    told: Counter[str] = field(default_factory=Counter)
    number: int = 0

    def __post_init__(self) -> None:
        self._listen = f"127.0.0.1:{find_free_port()}"
        self.digests: list[str] = []
        self.devices: list[Device] = []
        self.serve()
        self._password = self.server.first_password
        self._rollouts: list[str] = []
        self._deck: list[Callable[[], str]] = []

    def serve(self) -> None:
        """Start the server."""
        settings = settings_in(
            self.folder / "server", listen=self._listen, pace=_PACE, compress=False, credential_days=0.0, season="none"
        )
        self.server = Server(settings)
        self.server.start()

    def furnish(self, names: list[str], seed: str) -> None:
        """Push the models, and let the devices join; the last one is mortal."""
        with self._operator() as operator:
            for at, version in enumerate(VERSIONS):
                bundle = tiny_bundle(version=version, weights=(1.0, 2.0 + at))
                assert push_bundle(operator, bundle, headers={}).status_code == 201
                self.digests.append(bundle.digest)
            token = operator.post("/api/v1/join-tokens", json={"uses": len(names), "labels": {}}).json()["token"]
        for name in names:
            join(self.server.runtime.url, token, self.folder / name, name=name, labels={}, facts={}, clock=time.time)
        self.names = names
        self._assign()
        self.devices = [Device(name, self.folder / name, seed) for name in names[:-1]]
        self.mortal = Mortal(names[-1], self.folder / names[-1])

    def stored(self) -> int:
        """Return how many windows are stored."""
        return _stored(self.server.services.database)

    def strike(self) -> str:
        """Break or change something; return what. Everything comes once before anything comes again."""
        if not self._deck:
            swaps = [self._assign, self._roll_out, self._undo, self._go_back, self._count]
            faults = [self._restart, self._broker, self._device, self._kill, self._throw_out, self._lock]
            faults.append(self._kill_server)
            self._deck = self.lots.sample([*swaps, *faults], k=len(swaps) + len(faults))
        what = self._deck.pop()()
        self.told[what] += 1
        return what

    # What changes -----------------------------------------------------------------------------------------------

    def _assign(self) -> str:
        self.number += 1
        at = self.lots.randrange(len(VERSIONS))
        target = SlotTarget(digest=self.digests[at], name=f"{SLOT}:{VERSIONS[at]}", attempt=self.number)
        some = self.lots.sample(self.names, k=self.lots.randint(1, len(self.names))) if self.devices else self.names
        with self.server.services.database.write() as session:
            assignments.assign_all(session, SLOT, dict.fromkeys(some, target), now=time.time())
        self.server.services.signals.bump("desired")
        return "assigned"

    def _roll_out(self) -> str:
        self.number += 1
        plan = {
            "name": f"r{self.number}",
            "slot": SLOT,
            "bundle": f"{SLOT}:{self.lots.choice(VERSIONS)}",
            "cohort": "all",
            "stages": [{"devices": {"percent": 50}, "soak": "1s"}, {"devices": {"percent": 100}, "soak": "1s"}],
            "override": {"denied": "the campaign undoes what it likes"},
        }
        about = Circumstances(now=time.time())
        try:
            with self.server.services.database.write() as session:
                creation.create(session, plan, references=lambda _digest: None, actor="person:c", about=about)
        except CallerError:
            return "rollout refused"
        self._rollouts.append(f"r{self.number}")
        self.server.services.signals.bump("rollouts")
        return "rolled out"

    def _undo(self) -> str:
        for verb in (Verb.ABORT, Verb.UNDO):
            with suppress(CallerError, IndexError), self.server.services.database.write() as session:
                wish = Wish(verb=verb, actor="person:c")
                wishes.act(session, self._rollouts[-1], wish, Circumstances(now=time.time()))
                return "rollout taken back"
        return "no rollout to take back"

    def _go_back(self) -> str:
        able = [one.agent for one in self.devices if one.agent.status()["slots"].get(SLOT, {}).get("previous")]
        try:
            self.lots.choice(able).roll_back(SLOT, timeout_s=PATIENCE_S)
        except (NoModelError, IndexError):
            return "nothing to go back to"
        return "gone back at the device"

    def _count(self) -> str:
        rule = {"fields": {"a": {"range": [0, self.lots.randint(1, 9)]}}}
        with self._operator() as operator:
            if self.lots.random() < 0.3:
                operator.delete(f"/api/v1/contracts/{SLOT}")
            else:
                operator.put(f"/api/v1/contracts/{SLOT}", json=rule).raise_for_status()
        return "counted otherwise"

    @contextmanager
    def _operator(self) -> Iterator[httpx2.Client]:
        url = self.server.runtime.url
        password = self.server.first_password or self._password
        with httpx2.Client(base_url=url, trust_env=False, headers={"origin": url}, timeout=PATIENCE_S) as client:
            client.post("/api/v1/login", json={"name": "admin", "password": password}).raise_for_status()
            yield client

    # What breaks ------------------------------------------------------------------------------------------------

    def _restart(self) -> str:
        self.server.stop()
        time.sleep(self.lots.uniform(0.0, 0.3))
        self.serve()
        return "server restarted"

    def _kill_server(self) -> str:
        """Let a process be the server for a while, and kill it at whatever it is doing."""
        due, database = self.stored() + len(self.names), Database(self.server.settings.database_url)
        self.server.stop()
        program = [Path(sys.executable).with_name("shoal-server"), "serve", "--listen", self._listen]
        with (self.folder / "server.log").open("ab") as log, closing(database):
            child = subprocess.Popen([*program, "--data", self.folder / "server"], stdout=log, stderr=log)
            until = time.monotonic() + PATIENCE_S
            while _stored(database) < due and child.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            child.kill()
            child.wait()
            self.serve()
            return "server killed" if _stored(database) >= due else "server killed before it took anything in"

    def _broker(self) -> str:
        program = self.server.services
        program.link.stop()
        time.sleep(self.lots.uniform(0.0, 0.3))
        program.link.start(program.ingest.receive)
        return "broker restarted"

    def _device(self) -> str:
        device = self.lots.choice(self.devices)
        device.end()
        device.begin()
        return "device restarted"

    def _kill(self) -> str:
        self.mortal.kill()
        return "device killed"

    def _throw_out(self) -> str:
        for name in self.lots.sample(self.names, k=max(len(self.names) // 2, 1)):
            self.server.services.link.kick(name)
        return "devices thrown out"

    def _lock(self) -> str:
        with self.server.services.database.write():
            time.sleep(self.lots.uniform(0.0, 0.5))
        return "database locked"

    # The end ----------------------------------------------------------------------------------------------------

    def settle(self, wait: Callable[[Callable[[], bool], str], None]) -> None:
        """Close all windows, and wait until the server has them."""
        for device in self.devices:
            device.ask_no_more()
        self.mortal.end()
        last = Device(self.mortal.name, self.folder / self.mortal.name, "")  # only to send what is left
        last.ask_no_more()
        for device in (*self.devices, last):
            device.end()
            device.begin()
        try:
            wait(lambda: all(device.is_settled for device in (*self.devices, last)), "all windows are acknowledged")
        finally:
            last.end()
            self.sent_last = sum(last.rows)

    def failures(self) -> Iterator[str]:
        """Hold what is stored against what was answered."""
        with self.server.services.database.read() as session:
            counted = _sums(session, WindowRow)
            labelled = _sums(session, LabelErrorRow)
            ledgers = {name: telemetry.device_ledgers(session, name) for name in self.names}
            told = [one for one in alerts.alerts(session, limit=1000) if one.kind in _FALSE]
        for alert in told:
            yield f"people were told: {alert.title}: {alert.body}"
        for device in self.devices:
            answered, labels = sum(device.rows), sum(device.labels)
            if counted.get(device.name, 0) != answered:
                yield f"{device.name} answered {answered} rows, stored are {counted.get(device.name, 0)}"
            if labelled.get(device.name, 0) != labels:
                yield f"{device.name} took {labels} labels, stored are {labelled.get(device.name, 0)}"
        answered, closed = (n + self.sent_last for n in self.mortal.told())
        stored, spared = counted.get(self.mortal.name, 0), self.mortal.kills * MOST_ROWS
        if not closed <= stored <= answered + spared:
            yield f"{self.mortal.name} answered {answered} rows, closed {closed} of them, stored are {stored}"
        for name, epochs in ledgers.items():
            for epoch, ledger in epochs.items():
                if ledger.ranges or ledger.lost:
                    yield f"the ledger of {name} in epoch {epoch} says {ledger}"

    def stop(self) -> None:
        """End everything."""
        for device in self.devices:
            device.ask_no_more()
            with suppress(ShoalError):
                device.agent.stop()
        if self.devices:
            self.mortal.end()
        self.server.stop()


def _stored(database: Database) -> int:
    with database.read() as session:
        return telemetry.last_window_id(session)


def _sums(session: Any, table: type[SQLModel]) -> dict[str, int]:
    """Return the sum of a table's counts by device."""
    device, n = col(table.device), col(table.n)  # type: ignore[attr-defined]  # both tables have them
    return {name: int(total) for name, total in session.exec(select(device, func.sum(n)).group_by(device))}


def sweep(*, points: int, seed: int, devices: int, windows: int, folder: Path) -> dict[str, Any]:
    """Break and mend; return what was found.

    Args:
        points: How often.
        seed: Decides what.
        devices: How many, the killed one among them.
        windows: Stored between two points.
        folder: For everything.
    """
    fleet = Fleet(random.Random(f"{seed}/whole"), folder)
    try:
        fleet.furnish([f"dev-{number}" for number in range(devices)], str(seed))
        for point in range(points):
            due = fleet.stored() + windows
            _wait(fleet, lambda due=due: fleet.stored() >= due, "windows flow")
            print(f"whole {point + 1}/{points}: {fleet.strike()} at {fleet.stored()} windows", flush=True)
        fleet.settle(lambda true, what: _wait(fleet, true, what))
        return {
            "broker": "whole",
            "windows": fleet.stored(),
            "rows": sum(sum(device.rows) for device in fleet.devices),
            "labels": sum(sum(device.labels) for device in fleet.devices),
            "faults": dict(fleet.told),
            "failures": list(fleet.failures()),
        }
    finally:
        fleet.stop()


def _wait(fleet: Fleet, true: Callable[[], bool], what: str) -> None:
    """Wait; as long as windows are stored it may take any time."""
    seen, since = -1, time.monotonic()
    while not true():
        if (now := fleet.stored()) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            raise SystemExit(f"nothing was stored for {PATIENCE_S:g} s, waiting until {what}")
        time.sleep(0.05)
