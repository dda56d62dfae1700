"""A whole agent in a process that may be killed: it predicts all the time, and writes down what it did.

Each line of its journal is one fact, appended by one write: ``a N`` when a call of N rows was answered, ``w N`` when a
window of N rows was stored. It ends in good order when its input ends. Run as a program by `whole_fleet`.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from shoal_agent import Agent
from shoal_agent.adapters.judge import InProcessJudge
from shoal_agent.bootstrap import Overrides
from shoal_agent.errors import NoModelError
from shoal_agent.testing import FakePreflight

SLOT = "quality"
MOST_ROWS = 40
"""Of one call; of more rows only a sample would be counted."""

QUICK = {
    "window_s": 0.2, "trial.predictions": 5, "trial.seconds": 0.2, "resend_s": 2.0, "reconnect_max_s": 0.5,
    "retry_max_s": 0.5, "poll_s": 1.0, "listen": "none",
}  # fmt: skip


def new_agent(state: Path) -> Agent:
    """Return an agent with short windows, whose self-tests pass at once: processes would be most of the work."""
    return Agent(state, QUICK, overrides=Overrides(preflight=FakePreflight(), judge=InProcessJudge))


def rows(lots: random.Random) -> dict[str, np.ndarray]:
    """Return the inputs of a call."""
    return {"x": np.full((lots.choice((1, 1, 3, MOST_ROWS)), 2), lots.random(), np.float32)}


def main() -> None:
    """Run until the input ends."""
    state, journal = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    lots = random.Random(str(state))
    agent = new_agent(state)
    agent.start()
    assert agent._parts is not None
    windows = agent._parts.windows
    store, ended = windows.append, threading.Event()

    def noted(window: Any) -> None:
        store(window)
        os.write(journal, b"w %d\n" % window.n)

    windows.append = noted  # type: ignore[method-assign]  # before the first prediction
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        with suppress(NoModelError):
            inputs = rows(lots)
            agent.model(SLOT).predict(inputs)
            os.write(journal, b"a %d\n" % len(inputs["x"]))
        time.sleep(0.005)
    agent.stop()


if __name__ == "__main__":
    main()
