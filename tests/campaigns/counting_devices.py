"""Devices that know what they answered: an agent in this process, asked by two threads; and one that can be killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from counting_agent import SLOT, new_agent, rows

from shoal_agent.errors import NoModelError

PATIENCE_S = 180.0
_THREADS = 2


class Device:
    """An agent in this process, and what it answered.

    Args:
        name: Of the device.
        state: Its folder; it has joined.
        seed: Decides its calls.
    """

    def __init__(self, name: str, state: Path, seed: str) -> None:
        self.name, self.agent = name, new_agent(state)
        self.rows = [0] * _THREADS
        self.labels = [0] * _THREADS
        self._running = False
        self._ended = threading.Event()
        self._turns = [threading.Lock() for _ in range(_THREADS)]
        lots = [random.Random(f"{seed}/{name}/{at}") for at in range(_THREADS)]
        self._threads = [threading.Thread(target=self._ask, args=each) for each in enumerate(lots)]
        self.begin()
        for thread in self._threads:
            thread.start()

    @property
    def is_settled(self) -> bool:
        """Whether the server has all that it has to say."""
        spool = self.agent.status()["spool"]
        parts = self.agent._parts
        return not spool["windows"] and parts is not None and not parts.labels.waiting and not parts.spool.waiting(1)

    def begin(self) -> None:
        """Start the agent, and let it be asked."""
        self.agent.start()
        self._running = True

    def end(self) -> None:
        """Stop the agent, between two calls of each thread."""
        with ExitStack() as calm:
            for turn in self._turns:
                calm.enter_context(turn)
            self._running = False
        self.agent.stop()

    def ask_no_more(self) -> None:
        """End the asking threads."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, at: int, lots: random.Random) -> None:
        while not self._ended.wait(lots.uniform(0.0, 0.01)):
            with self._turns[at], suppress(NoModelError):
                if self._running:
                    self._call(at, lots)

    def _call(self, at: int, lots: random.Random) -> None:
        inputs = rows(lots)
        said = self.agent.model(SLOT).predict(inputs)
        self.rows[at] += len(inputs["x"])
        if len(inputs["x"]) == 1 and lots.random() < 0.2:
            for _ in range(lots.choice((1, 1, 2))):  # told twice it counts once
                self.labels[at] += self.agent.feedback(said.prediction_id, lots.random())


class Mortal:
    """An agent in a process of its own, and its journal.

    Args:
        name: Of the device.
        state: Its folder; it has joined.
    """

    def __init__(self, name: str, state: Path) -> None:
        self.name, self._state, self._journal = name, state, state.with_suffix(".journal")
        self.kills = 0
        self.begin()

    def begin(self) -> None:
        """Start the process."""
        program = Path(__file__).with_name("counting_agent.py")
        self._process = subprocess.Popen(
            [sys.executable, program, self._state, self._journal], stdin=subprocess.PIPE, cwd=self._state.parent
        )

    def kill(self) -> None:
        """Kill it at whatever it is doing, and start it again."""
        self._process.kill()
        self.end()
        self.kills += 1
        self.begin()

    def end(self) -> None:
        """Let it end in good order, if it lives."""
        self._process.communicate(timeout=PATIENCE_S)

    def told(self) -> tuple[int, int]:
        """Return the rows answered, and those in windows that were stored on the device."""
        sums = Counter[str]()
        for line in self._journal.read_text().splitlines():
            what, n = line.split()
            sums[what] += int(n)
        return sums["a"], sums["w"]
