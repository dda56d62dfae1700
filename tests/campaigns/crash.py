"""A seeded sweep: a real agent ends, or its disk fails, at any point of an update, and what is left is looked at.

    make campaign NAME=crash POINTS=2000 SEED=7

Each point is a story (first install, upgrade, way back, an upgrade that was cut off before), a place in it and what
happens there: see `crash_points`. The kinds of points that the machine offers take turns; what it lacks is said at the
start and in the result. After each point, without any network: the state on the disk is intact; the old or the new
model is active and answers as itself, never none; the device has not gone back behind what it told the server; no
number was given to two messages. Every tenth goes on until the device has arrived where it was to go. Flawed agents
(one that never syncs, one that syncs files only after it renamed them, one that saves its state after acting) must be
caught, or the sweep proves nothing.

Writes ``benchmarks/results/campaign-crash.json``; a sweep of the same seed and points that was interrupted goes on
where it stopped. Several devices are swept at once (`--lanes`).
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from agent_nursery import Nursery  # noqa: E402 - the path comes first
from crash_points import CONTROLS, CUT_KINDS, KINDS, TRACED, Lane, Map, Played, caught, controls, missing  # noqa: E402
from crash_stories import Device, packed, weights  # noqa: E402
from full_disks import FullDisk  # noqa: E402
from loop_disks import LoopDisk  # noqa: E402
from shoal_agent.testing import SimulatedServer  # noqa: E402

RESULT = HERE.parents[1] / "benchmarks" / "results" / "campaign-crash.json"
CONTROL_POINTS = 200
"""So many points at most may a flawed agent stay unnoticed."""


@dataclass(frozen=True)
class Plan:
    """What to sweep.

    Attributes:
        points: How many.
        seed: Decides all of them.
        lanes: Devices at once.
        kinds: Kinds of points that are wanted.
        flaws: Of the agents that must be caught first.
        bundles: An old and a new one, of the converter; none: two models of one weight each.
    """

    points: int
    seed: int
    lanes: int = 3
    kinds: Sequence[str] = KINDS
    flaws: Sequence[str] = tuple(CONTROLS)
    bundles: Sequence[Path] = ()


@contextmanager
def lanes_of(plan: Plan, kinds: Sequence[str]) -> Iterator[list[Lane]]:
    """Give devices that are ready for points."""
    with ExitStack() as stack:
        lanes: list[Lane] = []
        for _ in range(plan.lanes):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-crash-")))
            server = stack.enter_context(SimulatedServer())
            server.codes = True  # updates come as patches, which have more steps
            nursery = stack.enter_context(Nursery(folder))
            releases, question = packed(plan.bundles, folder) if plan.bundles else (weights(), "")
            device = Device(server, nursery, folder, releases, question)
            device.prepare()
            here = lanes[0].map if lanes else Map.of(device, seed=plan.seed) if TRACED & {*kinds} else Map()
            disks = {kind: LoopDisk(disk, folder) for kind, disk in CUT_KINDS.items() if kind in kinds}
            for disk in disks.values():
                stack.callback(disk.unmount)
            small = FullDisk(folder)
            stack.callback(small.unmount)
            lanes.append(Lane(device, here, disks, small, kinds))
        yield lanes


def campaign(plan: Plan, result: Path) -> int:
    """Sweep, write down and tell; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="shoal-crash-") as folder:
        lacks = {kind: why for kind, why in missing(Path(folder)).items() if kind in plan.kinds}
    for kind, why in lacks.items():
        print(f"no points of the kind {kind!r} here: {why}", flush=True)
    kinds = [kind for kind in plan.kinds if kind not in lacks]
    known = _interrupted(result, plan)
    record = Record(plan, result, known)
    record.document |= {"kinds": kinds, "lacks": lacks}
    with lanes_of(plan, kinds) as lanes:
        record.document["places"] = len(lanes[0].map.places)
        if "controls" not in known:
            _sweep_controls(lanes[0], kinds, plan, record)
        _sweep(lanes, record)
    record.note()
    print(record.told())
    print(f"wrote {result}")
    return 0 if record.document["control_caught"] and not record.document["failures"] else 1


class Record:
    """What is known so far, on disk after every point.

    Args:
        plan: What is swept.
        result: Where it is written.
        known: Of an interrupted sweep.
    """

    def __init__(self, plan: Plan, result: Path, known: dict[str, Any]) -> None:
        self.plan, self._result = plan, result
        self._lock = threading.Lock()
        self._began, self._before = time.monotonic(), known.get("seconds", 0.0)
        self.document: dict[str, Any] = {
            "seed": plan.seed, "points": plan.points, "done": [], "never_hit": [], "failures": [],
        } | known  # fmt: skip

    def add(self, index: int, kind: str, runs: Sequence[Played]) -> None:
        """Note a point, and the runs that were made for it; the last one counts."""
        with self._lock:
            done, failures = self.document["done"], self.document["failures"]
            done.append(index)
            if not runs[-1].hit:
                self.document["never_hit"].append(index)
            for played in runs:
                for table, entry in (("by_kind", kind), ("by_story", played.story)):
                    self._count(table, entry, "points" if played.hit else "settled before")
                if played.hit:
                    self._count("by_end", kind, played.how)
                failures += [{"point": index, "what": played.told, "fault": fault} for fault in played.faults]
                for fault in played.faults:
                    print(f"point {index} ({played.told}): {fault}", flush=True)
            self.note()
            if len(done) % 25 == 0 or len(done) == self.plan.points:
                seconds = self.document["seconds"]
                print(f"{len(done)}/{self.plan.points} points, {len(failures)} failures, {seconds} s", flush=True)

    def _count(self, table: str, row: str, column: str) -> None:
        counts = self.document.setdefault(table, {}).setdefault(row, {})
        counts[column] = counts.get(column, 0) + 1

    def note(self) -> None:
        """Write it down."""
        self.document["seconds"] = round(self._before + time.monotonic() - self._began, 1)
        self._result.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._result.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._result)

    def told(self) -> str:
        """Return what was swept, kind by kind."""
        never = len(self.document["never_hit"])
        lines = [
            f"{len(self.document['done']) - never} points at which something happened, {never} at which nothing did"
        ]
        for kind, counts in self.document.get("by_kind", {}).items():
            ends = self.document.get("by_end", {}).get(kind, {})
            early = counts.get("settled before", 0)
            lines.append(
                f"{kind}: {counts.get('points', 0)} ends"
                + (f", {early} runs settled before" if early else "")
                + f"; {', '.join(f'{how} {count}' for how, count in sorted(ends.items()))}"
            )
        return "\n".join(lines)


def _sweep_controls(lane: Lane, kinds: Sequence[str], plan: Plan, record: Record) -> None:
    found = {}
    for flaw, kind in controls(plan.flaws, kinds):
        how = caught(lane, flaw, kind, seed=plan.seed, points=CONTROL_POINTS)
        found[f"{flaw} by {kind}"] = how
        print(f"control {flaw} by {kind}: {'NOT CAUGHT' if how is None else 'caught at ' + how[:300]}", flush=True)
    record.document |= {"control_caught": all(found.values()), "controls": found}


def _sweep(lanes: Sequence[Lane], record: Record) -> None:
    """Play all points that are left, on all lanes at once."""
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = set(record.document["done"])
    for index in range(record.plan.points):
        if index not in done:
            left.put(index)
    errors: list[BaseException] = []
    stopping = threading.Event()

    def work(lane: Lane) -> None:
        try:
            while not errors and not stopping.is_set():
                index = left.get_nowait()
                record.add(index, lane.kinds[index % len(lane.kinds)], [*lane.point(index, record.plan.seed)])
        except queue.Empty:
            return
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:  # interrupted: let every lane end its point, so that nothing stays mounted
        stopping.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _interrupted(result: Path, plan: Plan) -> dict[str, Any]:
    """Return what an unfinished sweep of the same seed and points has left."""
    try:
        known = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = (known.get("seed"), known.get("points")) == (plan.seed, plan.points)
    return known if same and len(known.get("done", ())) < plan.points else {}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=3)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind of points; may be repeated")
    parser.add_argument(
        "--bundles", nargs=2, type=Path, metavar=("OLD", "NEW"), default=(),
        help="bundles that shoal-convert packed, to be updated from and to; both take the same inputs",
    )  # fmt: skip
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable(logging.CRITICAL)  # agents that find damage say so loudly, and here all do
    kinds = tuple(given.kind or KINDS)
    plan = Plan(given.points, given.seed, given.lanes, kinds, bundles=tuple(given.bundles))
    try:
        return campaign(plan, given.result)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
