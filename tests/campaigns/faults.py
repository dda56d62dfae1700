"""A seeded sweep: the way of windows from real spools to the store breaks again and again; the ledger must agree.

    make campaign NAME=faults POINTS=50 SEED=7

Devices run the agent's own spool, uplink and MQTT link, and make windows as fast as their disk takes them. Each point
is a fault, after so many more windows were stored: the broker is killed, with or without its state; the server, or a
device, stops and starts anew; devices are thrown out; the database is locked for a while. Brokers take turns: a real
mosquitto (where it is installed) and the embedded endpoint. In the end the windows stored must be those that were made,
with the same rows, none lost, none twice. A last part of the points goes to whole agents at a whole server, whose
models change meanwhile: see `whole_fleet`.

Writes ``benchmarks/results/campaign-faults.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import whole_fleet  # noqa: E402 - the path comes first

from fixtures_broker import find_free_port, mosquitto_of_our_own  # noqa: E402 - the path comes first
from shoal_agent.adapters.mqtt_link import MqttLink  # noqa: E402
from shoal_agent.adapters.spool import SqliteSpool  # noqa: E402
from shoal_agent.domain.backoff import Backoff  # noqa: E402
from shoal_agent.domain.device import DeviceState  # noqa: E402
from shoal_agent.runtime.windows import ClosedWindow  # noqa: E402
from shoal_agent.updating.messages import Messages  # noqa: E402
from shoal_agent.updating.uplink import Situation, Uplink  # noqa: E402
from shoal_agent.updating.window_spool import WindowSpool  # noqa: E402
from shoal_protocol.profile.profile import summarise  # noqa: E402
from shoal_server.link.broker import BrokerLink  # noqa: E402
from shoal_server.link.endpoint import EmbeddedLink  # noqa: E402
from shoal_server.link.verifiers import verifier_line  # noqa: E402
from shoal_server.storage.database import Database  # noqa: E402
from shoal_server.telemetry import store  # noqa: E402
from shoal_server.telemetry.ingest import Ingest, Pace  # noqa: E402
from shoal_server.testing.telemetry import DIGEST, SPEC  # noqa: E402

RESULT = HERE.parents[1] / "benchmarks" / "results" / "campaign-faults.json"
SECRET = "s" * 43
SLOT = "quality"
MOST_WAITING = 400
"""A device pauses while so many of its windows wait, so that its spool never has to drop or merge any."""

PATIENCE_S = 120.0
KINDS = ("mosquitto", "embedded", "whole")
_WHOLE = 100
"""A window of a whole agent costs as much as so many that are only made."""


@dataclass(frozen=True)
class Plan:
    """What to sweep.

    Attributes:
        points: Faults, over all brokers.
        seed: Decides them.
        windows: Made between two faults, by all devices together.
        devices: How many.
        brokers: ``mosquitto``, ``embedded``; ``whole``: nothing but a whole server and whole agents.
    """

    points: int
    seed: int
    windows: int = 2000
    devices: int = 6
    brokers: tuple[str, ...] = KINDS


class Maker:
    """One device: makes windows with the agent's own parts, and remembers the rows of each.

    Args:
        name: Of the device.
        folder: For its spool.
        url: Of the broker.
        total: So many windows it makes.
    """

    def __init__(self, name: str, folder: Path, url: str, total: int) -> None:
        self.name = name
        self._path, self._url, self._total = folder / f"{name}.db", url, total
        self._lots = random.Random(name)
        self._profile = summarise(SPEC, {"scores": np.full((1, 1), 0.5, np.float32), "label": np.zeros(1, np.int64)})
        self.rows: list[int] = []
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin()

    @property
    def done(self) -> bool:
        """Whether all windows are made and acknowledged."""
        return len(self.rows) == self._total and not self._spool.waiting(1)

    def restart(self) -> None:
        """End in good order and begin again with what is on the disk."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End."""
        self._halt.set()
        self._uplink.stop()
        for thread in self._threads:
            thread.join()
        self._uplink.finish()
        self._spool.close()

    def _begin(self) -> None:
        self._halt.clear()
        self._spool = SqliteSpool(
            self._path, budget_bytes=64 << 20, new_epoch=lambda: f"{abs(hash(self.name)):016x}"[:16]
        )
        messages = Messages(epoch=self._spool.epoch, boot=self._spool.boot, clock=time.time)
        link = MqttLink(
            self._url,
            device=self.name,
            secret=lambda: SECRET,
            ca_file=None,
            backoff=Backoff(base_s=0.05, cap_s=0.5),
            chance=self._lots.random,
        )
        self._uplink = Uplink(
            link,
            spool=self._spool,
            messages=messages,
            situation=Situation(lambda: {"agent_version": "0"}, DeviceState, dict, dict),
            windows=SimpleNamespace(tick=lambda: 0, due_in_s=lambda: 0.05, close_all=lambda: 0),
            monotonic=time.monotonic,
            resend_s=1.0,
        )
        self._sink = WindowSpool(self._spool, messages, stored=self._uplink.nudge)
        self._uplink.start_link(lambda _document: None)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._uplink.run, self._make)]
        for thread in self._threads:
            thread.start()

    def _make(self) -> None:
        while len(self.rows) < self._total and not self._halt.is_set():
            if len(self._spool.waiting(MOST_WAITING)) >= MOST_WAITING:
                self._halt.wait(0.02)
                continue
            n = self._lots.randrange(1, 1000)
            start_ms = int(time.time() * 1000) - 1000
            self._sink.append(ClosedWindow(SLOT, DIGEST, SPEC.hash, start_ms, 1000, n, 0, (), {}, self._profile))
            self.rows.append(n)


@dataclass
class World:
    """Everything that can break, around one broker.

    Attributes:
        kind: Of the broker.
        lots: Decide the faults.
        link: Makes a new line of the server.
        broker: The process of its own, if there is one.
        database: Where windows end up.
        makers: The devices.
        ingest: The server's way in, at present.
        told: How often each fault came.
    """

    kind: str
    lots: random.Random
    link: Callable[[], Any]
    broker: Any
    database: Database
    makers: list[Maker] = field(default_factory=list)
    ingest: Any = None
    line: Any = None
    told: Counter[str] = field(default_factory=Counter)

    def serve(self) -> None:
        """Start the server's side."""
        self.line = self.link()
        self.line.sync_credentials([(name, verifier_line(SECRET, salt=b"0123456789ab")) for name in _names(99)])
        self.ingest = Ingest(self.line, self.database, {}, time.time, pace=Pace(linger_s=0.002))
        self.ingest.start()

    def stop(self) -> None:
        """End the server's side that runs now."""
        self.ingest.stop()

    def stored(self) -> int:
        """Return how many windows are stored."""
        with self.database.read() as session:
            return store.last_window_id(session)

    def strike(self) -> str:
        """Break something; return what."""
        faults: list[Callable[[], str]] = [self._server, self._device, self._throw_out, self._lock]
        if self.broker is not None:
            faults += [self._broker] * 6
        what = self.lots.choice(faults)()
        self.told[what] += 1
        return what

    def _broker(self) -> str:
        forgets = self.lots.random() < 0.5
        self.broker.kill()
        for path in self.broker.folder.glob("mosquitto.db*") if forgets else ():
            path.unlink()
        time.sleep(self.lots.uniform(0.0, 0.3))
        self.broker.start()
        return "broker killed, its state deleted" if forgets else "broker killed"

    def _server(self) -> str:
        self.ingest.stop()
        time.sleep(self.lots.uniform(0.0, 0.3))
        self.serve()
        return "server restarted"

    def _device(self) -> str:
        self.lots.choice(self.makers).restart()
        return "device restarted"

    def _throw_out(self) -> str:
        for maker in self.lots.sample(self.makers, k=max(len(self.makers) // 2, 1)):
            self.line.kick(maker.name)
        return "devices thrown out"

    def _lock(self) -> str:
        with self.database.write():
            time.sleep(self.lots.uniform(0.0, 0.5))
        return "database locked"


def _names(count: int) -> list[str]:
    return [f"dev-{number}" for number in range(count)]


@contextmanager
def world_of(kind: str, plan: Plan) -> Iterator[World]:
    """Give a broker, a server without devices, and an empty database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-faults-")))
        url = f"sqlite:///{folder / 'shoal.db'}"
        database = Database(url)
        stack.callback(database.close)
        database.upgrade()
        lots = random.Random(f"{plan.seed}/{kind}")
        if kind == "mosquitto":
            broker = stack.enter_context(mosquitto_of_our_own())
            world = World(
                kind,
                lots,
                lambda: BrokerLink(broker.url, clock=time.time, credentials=broker.credentials()),
                broker,
                database,
            )
            address = f"mqtt://127.0.0.1:{broker.port}"
        else:
            port = find_free_port()
            world = World(kind, lots, lambda: EmbeddedLink("127.0.0.1", port, clock=time.time), None, database)
            address = f"mqtt://127.0.0.1:{port}"
        world.serve()
        stack.callback(world.stop)
        yield _with_devices(world, folder, address, plan, stack)


def _with_devices(world: World, folder: Path, address: str, plan: Plan, stack: ExitStack) -> World:
    each = plan.windows * _share(plan) // plan.devices
    for name in _names(plan.devices):
        maker = Maker(name, folder, address, each)
        stack.callback(maker.stop)
        world.makers.append(maker)
    return world


def _share(plan: Plan) -> int:
    """Return the points of each broker."""
    return -(-plan.points // len(plan.brokers))


def sweep(world: World, plan: Plan) -> dict[str, Any]:
    """Break and mend until all windows are made; return what was found."""
    points = _share(plan)
    total = plan.windows * points // plan.devices * plan.devices
    for point in range(points):
        _wait(lambda due=(point + 0.5) * total / points: world.stored() >= due, world, "windows flow")
        what = world.strike()
        print(f"{world.kind} {point + 1}/{points}: {what} at {world.stored()} of {total} windows", flush=True)
    _wait(lambda: all(maker.done for maker in world.makers), world, "all windows are acknowledged")
    return {"broker": world.kind, "windows": total, "faults": dict(world.told), "failures": list(_failures(world))}


def _failures(world: World) -> Iterator[str]:
    """Hold what is stored against what was made."""
    with world.database.read() as session:
        found = store.windows(session, slot=SLOT, start_ms=0, end_ms=2**53)
        ledgers = {maker.name: store.device_ledgers(session, maker.name) for maker in world.makers}
    for maker in world.makers:
        rows = [entry.n for entry in sorted(found, key=lambda entry: entry.seq) if entry.device == maker.name]
        if rows != maker.rows:
            made = f"{len(maker.rows)} windows of {sum(maker.rows)} rows"
            yield f"{maker.name} made {made}, stored are {len(rows)} of {sum(rows)}"
        for epoch, ledger in ledgers[maker.name].items():
            if (ledger.through, ledger.ranges, ledger.lost) != (len(maker.rows), (), 0):
                yield f"the ledger of {maker.name} in epoch {epoch} says {ledger}"


def _wait(true: Callable[[], bool], world: World, what: str) -> None:
    """Wait; as long as windows are stored it may take any time."""
    seen, since = -1, time.monotonic()
    while not true():
        if (now := world.stored()) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            raise SystemExit(f"nothing was stored for {PATIENCE_S:g} s, waiting until {what}")
        time.sleep(0.02)


def campaign(plan: Plan, result: Path) -> int:
    """Sweep, write down and tell; return the exit code."""
    began = time.monotonic()
    found = []
    for kind in plan.brokers:
        if kind == "mosquitto" and shutil.which("mosquitto") is None:
            print("no mosquitto here (Debian: apt-get install mosquitto): only the embedded endpoint is tried")
            continue
        if kind == "whole":
            with tempfile.TemporaryDirectory(prefix="shoal-faults-") as folder:
                each = {"points": _share(plan), "seed": plan.seed, "devices": plan.devices}
                found.append(whole_fleet.sweep(**each, windows=-(-plan.windows // _WHOLE), folder=Path(folder)))
        else:
            with world_of(kind, plan) as world:
                found.append(sweep(world, plan))
        for failure in found[-1]["failures"]:
            print(f"{kind}: {failure}", flush=True)
    document = {
        "seed": plan.seed,
        "points": plan.points,
        "windows": sum(one["windows"] for one in found),
        "seconds": round(time.monotonic() - began, 1),
        "brokers": found,
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    failures = sum(len(one["failures"]) for one in found)
    print(f"{document['windows']} windows, {plan.points} faults, {failures} failures, {document['seconds']} s")
    print(f"wrote {result}")
    return 1 if failures else 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--windows", type=int, default=2000, help="made between two faults")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--broker", action="append", choices=KINDS, help="may be repeated")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # lines that break say so loudly, and here all do
    brokers = tuple(given.broker or KINDS)
    return campaign(Plan(given.points, given.seed, given.windows, given.devices, brokers), given.result)


if __name__ == "__main__":
    sys.exit(main())
