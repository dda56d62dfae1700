"""A seeded sweep: a real agent ends at random durable steps, by SIGKILL or power cut, and what is left is looked at.

    make campaign NAME=crash POINTS=1000 SEED=7

Each point draws a story (first install, upgrade, way back, an upgrade that was cut off before), a step and an end.
Then, without any network: the state on the disk is intact; the old or the new model is active and answers as itself,
never none; the device has not gone back behind what it told the server; no number was given to two messages. Every
fifth point goes on until the device has arrived where it was to go. Two flawed agents, one that never syncs and one
that saves its state after acting, must be caught, or the sweep proves nothing.

Writes ``benchmarks/results/campaign-crash.json`` after every point; a sweep of the same seed and points that was
interrupted goes on where it stopped.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402 - the path comes first

from agent_bundles import bundle_files  # noqa: E402
from killed_agent import Fate, run_killed  # noqa: E402
from shoal_agent import Agent  # noqa: E402
from shoal_agent.adapters.enrolment import join  # noqa: E402
from shoal_agent.adapters.state_file import decode_state  # noqa: E402
from shoal_agent.bootstrap import Overrides  # noqa: E402
from shoal_agent.domain.slot import Slot  # noqa: E402
from shoal_agent.settings import Settings  # noqa: E402
from shoal_agent.testing import FakePreflight, SimulatedServer  # noqa: E402
from shoal_protocol.mqtt.topics import Up  # noqa: E402

RESULT = HERE.parents[1] / "benchmarks" / "results" / "campaign-crash.json"
SETTINGS = Settings(
    window_s=3600.0, poll_s=0.05, trial_predictions=10, trial_seconds=0.1, retry_max_s=0.1, listen="none"
)
CONTROL_POINTS = 40
"""So many points at most may a flawed agent stay unnoticed."""

FLAWS = ("unsynced", "late")


@dataclass(frozen=True)
class Story:
    """What happens to the device.

    Attributes:
        name: As it is printed.
        start: Folder that is copied as the beginning.
        document: What the server wants.
        path: Active bundles in the order in which they may follow each other.
        roll_back: Whether an operator at the device starts it.
        cut_before: Whether the agent is cut off twice.
        steps: Durable steps when nothing goes wrong.
    """

    name: str
    start: Path
    document: bytes
    path: tuple[str | None, ...]
    roll_back: bool = False
    cut_before: bool = False
    steps: int = 0


@dataclass
class Sweep:
    """The sweep over one simulated server.

    Attributes:
        server: Told by the device.
        folder: For everything.
        answers: What the model of each bundle says to a one.
        stories: By name.
    """

    server: SimulatedServer
    folder: Path
    answers: dict[str | None, float] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The device's state folder."""
        return self.folder / "state"

    def prepare(self) -> None:
        """Make the beginnings of the stories, and count their steps."""
        join(self.server.url, self.server.join_token, self.state, name="dev-1", labels={}, facts={}, clock=time.time)
        joined = self._keep("joined")
        old, first = self._release(3.0, "1.0")
        self._settle(old)
        settled = self._keep("settled")
        new, second = self._release(5.0, "1.1")
        self._settle(new)
        updated = self._keep("updated")
        drafts = [
            Story("install", joined, first, (None, old)),
            Story("upgrade", settled, second, (old, new)),
            Story("rollback", updated, second, (new, old), roll_back=True),
            Story("resume", settled, second, (old, new), cut_before=True),
        ]
        for draft in drafts:
            self._begin(draft)
            ended = run_killed(self.state, self._fate(draft))
            if ended.status != 0 or not ended.steps:
                raise SystemExit(f"{draft.name} does not even work undisturbed: {ended.told}")
            self.stories.append(Story(**{**vars(draft), "steps": ended.steps}))

    def point(self, seed: str, *, flaw: str | None = None) -> tuple[str, list[str]]:
        """Play one point; return what it was and what is wrong."""
        lots = random.Random(seed)
        story = lots.choice(self.stories)
        self._begin(story)
        told = [story.name]
        for _ in range(2 if story.cut_before else 1):
            step = lots.randint(1, story.steps)
            cut = lots.randrange(1 << 30) if flaw == "unsynced" or lots.random() < 0.5 else None
            ended = run_killed(self.state, self._fate(story, steps=step, power_cut=cut, flaw=flaw))
            told.append(f"{'power cut' if cut is not None else 'SIGKILL'} at {step}/{story.steps}")
            if ended.status not in {0, -9}:
                return ", ".join(told), [f"the agent ended with {ended.status}: {ended.told[-2000:]}"]
        faults = list(self._faults(story))
        if not faults and flaw is None and lots.random() < 0.2:
            faults = list(self._unsettled(story))
        return ", ".join(told), faults

    def _fate(self, story: Story, **fields: Any) -> Fate:
        return Fate(str(story.path[-1]), roll_back=story.roll_back, **fields)

    def _faults(self, story: Story) -> Iterator[str]:
        """Look at what is left; nobody helps."""
        path = self.state / "state.json"
        try:
            saved = decode_state(path.read_bytes()) if path.exists() else None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the finding
            yield f"state.json is not intact: {error}"
            saved = None
        slot = saved.slots.get("quality", Slot()) if saved else Slot()
        if slot.active not in story.path:
            yield f"{slot.active} is active on the disk, which is neither the old nor the new bundle"
            return
        for report in self.server.of(Up.REPORTED):
            said = report.slots.get("quality")
            for what in ("active", "proven") if said is not None else ():
                kept, told = getattr(slot, what), getattr(said, what)
                if self._is_behind(story, kept, told):
                    yield f"the server was told that {told} is {what}; the disk says {kept}"
        for event in self.server.of(Up.EVENT):
            if event.kind == "committed" and self._is_behind(story, slot.proven, event.digest):
                yield f"the server was told that {event.digest} is committed; the disk says {slot.proven}"
        yield from self._doubles()
        yield from self._silent(slot.active)

    @staticmethod
    def _is_behind(story: Story, kept: str | None, told: str | None) -> bool:
        return told in story.path and (kept not in story.path or story.path.index(kept) < story.path.index(told))

    def _doubles(self) -> Iterator[str]:
        seen: dict[tuple[str, int], Any] = {}
        for kind in (Up.EVENT, Up.PROFILE):
            for message in self.server.of(kind):
                if seen.setdefault((message.epoch, message.seq), message) != message:
                    yield f"number {message.seq} was given to two messages"

    def _silent(self, active: str | None) -> Iterator[str]:
        overrides = Overrides(preflight=FakePreflight(), link=lambda _identity: None)
        try:
            with Agent(self.state, SETTINGS, overrides=overrides) as agent:
                if active is None:
                    return
                found = agent.status()["slots"]["quality"]["active"]
                if found != active:
                    yield f"{active} is active on the disk, after a start it is {found}"
                said = _answer(agent)
                if said != self.answers.get(found):
                    yield f"{found} is active and answers {said} instead of {self.answers.get(found)}"
        except Exception as error:  # noqa: BLE001 - whatever keeps the agent from answering is the finding
            yield f"after a start nothing answers: {type(error).__name__}: {error}"

    def _unsettled(self, story: Story) -> Iterator[str]:
        """Let the device go on with its server."""
        goals = {story.path[-1]} if not story.roll_back else set(story.path)
        with Agent(self.state, SETTINGS, overrides=Overrides(preflight=FakePreflight())) as agent:

            def arrived() -> bool:
                slot = agent.status()["slots"].get("quality", {})
                return slot.get("state") == "idle" and slot["active"] in goals

            if not _until(arrived):
                yield f"the device never arrived: {agent.status()['slots']}"
            elif _answer(agent) not in {self.answers[goal] for goal in goals}:
                yield "it arrived, but another model answers"

    def _release(self, weight: float, version: str) -> tuple[str, bytes]:
        digest = self.server.add_bundle(bundle_files(weight, version=version, padding=5_000))
        self.answers[digest] = weight
        return digest, self.server.assign("quality", self.server.release(digest, "quality", version))

    def _settle(self, wanted: str) -> None:
        with Agent(self.state, SETTINGS, overrides=Overrides(preflight=FakePreflight())) as agent:
            if not _until(lambda: agent.status()["slots"].get("quality", {}).get("state") == "idle"):
                raise SystemExit(f"{wanted} can't even be installed: {agent.status()}")

    def _keep(self, name: str) -> Path:
        shutil.copytree(self.state, self.folder / name, symlinks=True)
        return self.folder / name

    def _begin(self, story: Story) -> None:
        for name in ("state", "state.cut"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(story.start, self.state, symlinks=True)
        self.server.desired = story.document
        self.server.forget_messages()


def _answer(agent: Agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def _until(met: Callable[[], bool], *, timeout_s: float = 30.0) -> bool:
    waiter, deadline = threading.Event(), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if met():
            return True
        waiter.wait(0.02)
    return False


@contextmanager
def sweeping() -> Iterator[Sweep]:
    """Give a sweep that is ready for points."""
    with tempfile.TemporaryDirectory(prefix="shoal-crash-") as folder, SimulatedServer() as server:
        sweep = Sweep(server, Path(folder))
        sweep.prepare()
        yield sweep


def caught(sweep: Sweep, flaw: str, *, seed: int, points: int = CONTROL_POINTS) -> str | None:
    """Return how a flawed agent was noticed; none: it was not."""
    for index in range(points):
        told, faults = sweep.point(f"{seed}/{flaw}/{index}", flaw=flaw)
        if faults:
            return f"point {index + 1} ({told}): {faults[0]}"
    return None


def campaign(points: int, seed: int, result: Path) -> int:
    """Sweep, write down and tell; return the exit code."""
    known = _interrupted(result, points, seed)
    began, before = time.monotonic(), known.get("seconds", 0.0)
    failures, done = known.get("failures", []), known.get("done", 0)
    document = {"seed": seed, "points": points, "done": done, "failures": failures, "control_caught": False}

    def note() -> None:
        document["seconds"] = round(before + time.monotonic() - began, 1)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    with sweeping() as sweep:
        controls = {flaw: caught(sweep, flaw, seed=seed) for flaw in FLAWS}
        for flaw, how in controls.items():
            print(f"control {flaw}: {'NOT CAUGHT' if how is None else 'caught at ' + how}", flush=True)
        document |= {"control_caught": all(controls.values()), "controls": controls}
        for index in range(done, points):
            told, faults = sweep.point(f"{seed}/{index}")
            failures += [{"point": index, "what": told, "fault": fault} for fault in faults]
            document["done"] = index + 1
            note()
            for fault in faults:
                print(f"point {index + 1} ({told}): {fault}", flush=True)
            if (index + 1) % 10 == 0 or index + 1 == points:
                print(f"{index + 1}/{points} points, {len(failures)} failures, {document['seconds']} s", flush=True)
        note()
    print(f"wrote {result}")
    return 0 if document["control_caught"] and not failures else 1


def _interrupted(result: Path, points: int, seed: int) -> dict[str, Any]:
    """Return what an unfinished sweep of the same seed and points has left."""
    try:
        known = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = (known.get("seed"), known.get("points")) == (seed, points)
    return known if same and known.get("done", points) < points else {}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # agents that find damage say so loudly, and here all do
    return campaign(given.points, given.seed, given.result)


if __name__ == "__main__":
    sys.exit(main())
