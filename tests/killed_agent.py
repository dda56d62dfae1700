"""A real agent that ends itself at its n-th durable step, by SIGKILL or as by a power cut; and how to run it.

Every step is one of the calls that make something durable: syncing a file, renaming, syncing a folder, committing to
the spool. The agent's own code knows nothing of this: the calls are wrapped from outside, before it starts. Run as a
program by `run_killed`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

NEVER = 10**9


@dataclass(frozen=True)
class Fate:
    """What an agent does, and its end.

    Attributes:
        wanted: The bundle whose commitment is waited for.
        steps: The step at which it ends.
        roll_back: Whether it goes back by an operator's word first.
        power_cut: The seed of what unsynced files are left as; none: all writes stay.
        flaw: A mistake to be found: ``unsynced`` (nothing is ever synced), ``late`` (the state is saved after acting).
    """

    wanted: str
    steps: int = NEVER
    roll_back: bool = False
    power_cut: int | None = None
    flaw: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: -9: killed at the step; 0: it settled before.
        told: What it printed.
    """

    status: int
    told: str

    @property
    def steps(self) -> int:
        """Durable steps of a run that settled."""
        found = re.search(r"settled after (\d+) steps", self.told)
        return int(found[1]) if found else 0


def run_killed(state: Path, fate: Fate) -> Ended:
    """Run an agent on a state folder until its end."""
    done = subprocess.run(
        [sys.executable, __file__, str(state), json.dumps(asdict(fate))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout + done.stderr)


class Countdown:
    """Ends the process at the n-th step."""

    def __init__(self, steps: int, strike) -> None:
        self._left, self._strike = steps, strike
        self._lock = threading.Lock()
        self.count = 0

    def step(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._left:
                self._strike()
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call):
        def wrapped(*arguments, **named):
            self.step()
            return call(*arguments, **named)

        return wrapped


def _wrap(state: Path, fate: Fate) -> Countdown:
    """Count the durable steps, and let each do what the fate wants."""
    from power_cut import PowerCut, lot
    from shoal_agent.adapters.spool import SqliteSpool
    from shoal_agent.adapters.state_file import StateFile

    cut = None
    if fate.power_cut is not None:
        cut = PowerCut(state, state.with_name(state.name + ".cut"), chance=lot(fate.power_cut))
    countdown = Countdown(fate.steps, cut.strike if cut else lambda: None)
    sync, rename, save = os.fsync, Path.replace, StateFile.save

    def synced(descriptor: int) -> None:
        if fate.flaw != "unsynced":
            sync(descriptor)
            if cut is not None:
                cut.synced(descriptor)

    def renamed(source: Path, target) -> Path:
        return cut.rename(rename, source, Path(target)) if cut else rename(source, target)

    os.fsync = countdown.before(synced)
    Path.replace = countdown.before(renamed)
    SqliteSpool.append = countdown.before(SqliteSpool.append)
    if fate.flaw == "late":
        StateFile.save = lambda self, state: threading.Timer(1.0, save, (self, state)).start()
    return countdown


def main(state: Path, fate: Fate) -> None:
    """Run the agent until it has settled, or ended itself."""
    from shoal_agent import Agent
    from shoal_agent.bootstrap import Overrides
    from shoal_agent.settings import Settings
    from shoal_agent.testing import FakePreflight

    countdown = _wrap(state, fate)
    settings = Settings(
        window_s=3600.0, poll_s=0.05, trial_predictions=10, trial_seconds=0.1, retry_max_s=0.1, listen="none"
    )
    agent = Agent(state, settings, overrides=Overrides(preflight=FakePreflight()))
    agent.start()
    slot = agent.status()["slots"].get("quality", {})
    print(f"started with {slot.get('active')}", flush=True)
    if fate.roll_back and slot.get("active") not in {None, fate.wanted}:
        agent.roll_back("quality")
    for _ in range(750):
        slot = agent.status()["slots"].get("quality", {})
        if slot.get("active") == fate.wanted and slot["state"] == "idle" and slot["trial"] is None:
            break
        time.sleep(0.02)
    time.sleep(0.2)  # until the server was told
    print(f"settled after {countdown.count} steps", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Fate(**json.loads(sys.argv[2])))
