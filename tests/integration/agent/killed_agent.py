"""A real agent that kills itself at its n-th durable step; run as a program by `test_power_cuts.py`.

Every step is one of the calls that make something durable: syncing a file, renaming, syncing a folder, committing to
the spool. The agent's own code knows nothing of this: the calls are wrapped from outside, before it starts.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from shoal_agent import Agent
from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import FakePreflight


class Countdown:
    """Ends the process by SIGKILL at the n-th step."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = threading.Lock()
        self.count = 0

    def step(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call):
        def wrapped(*arguments, **named):
            self.step()
            return call(*arguments, **named)

        return wrapped


def main(state: Path, wanted: str, steps: int) -> None:
    countdown = Countdown(steps)
    os.fsync = countdown.before(os.fsync)
    Path.replace = countdown.before(Path.replace)
    SqliteSpool.append = countdown.before(SqliteSpool.append)
    settings = Settings(
        window_s=3600.0, poll_s=0.05, trial_predictions=10, trial_seconds=0.1, retry_max_s=0.1, listen="none"
    )
    agent = Agent(state, settings, overrides=Overrides(preflight=FakePreflight()))
    agent.start()
    slot = agent.status()["slots"].get("quality", {})
    print(f"started with {slot.get('active')}", flush=True)
    for _ in range(1500):
        slot = agent.status()["slots"].get("quality", {})
        if slot.get("active") == wanted and slot["state"] == "idle" and slot["trial"] is None:
            break
        time.sleep(0.02)
    print(f"settled after {countdown.count} steps", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
