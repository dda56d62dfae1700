"""Worker loops: one piece of work done again and again in a thread of its own, until it is told to stop.

Owns the thread, the pause between two turns, and what happens when a turn fails. Knows nothing about the work, so each
loop can as well run alone in another process. A failure is logged with its traceback and tried again, with growing
pauses; it never ends the loop.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from shoal_server.signals import Signals
from shoal_server.storage.database import Clock

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class LoopHealth:
    """How a loop is doing."""

    name: str
    alive: bool
    turns: int
    failures: int
    """Turns that raised, since the start."""
    failing: int
    """Turns that raised one after the other, up to now."""
    last_success_at: float | None


class Loop:
    """Calls `turn` every `every_s` seconds, and at once when one of `topics` is signalled.

    Args:
        name: for the thread, the log and the metrics.
        turn: the work; it must be safe to do twice.
        every_s: longest pause between two turns.
        clock: for `LoopHealth`.
        signals: by which it is woken.
        topics: signals for which the next turn doesn't wait.
        niceness: how far its thread stands back for the others, 0 to 19, where the system can do that (Linux).
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], object],
        *,
        every_s: float,
        clock: Clock,
        signals: Signals,
        topics: Collection[str] = (),
        niceness: int = 0,
    ) -> None:
        self.name = name
        self._turn = turn
        self._every_s = every_s
        self._clock = clock
        self._signals = signals
        self._wake = f"loop.{name}"
        self._topics = frozenset({*topics, self._wake})
        self._niceness = niceness
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._turns = self._failures = self._failing = 0
        self._last_success_at: float | None = None

    def start(self) -> None:
        """Begin; the first turn is done at once."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"shoal-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the turn that is being done; returns when the thread is gone."""
        self._stopping.set()
        self._signals.bump(self._wake)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def health(self) -> LoopHealth:
        """How it is doing now."""
        alive = self._thread is not None and self._thread.is_alive()
        return LoopHealth(self.name, alive, self._turns, self._failures, self._failing, self._last_success_at)

    def _run(self) -> None:
        if self._niceness and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while not self._stopping.is_set():
            seen = self._signals.counters()
            self._once()
            pause = self._every_s if not self._failing else min(_LONGEST_PAUSE_S, self._every_s * 2**self._failing)
            if self._signals.closed:  # the program is ending: signals no longer make anybody wait
                self._stopping.wait(pause)
            elif not self._stopping.is_set():
                self._signals.wait(seen, topics=self._topics, timeout_s=pause)

    def _once(self) -> None:
        self._turns += 1
        try:
            self._turn()
        except Exception:  # noqa: BLE001 - the loop's boundary: logged with its traceback, then tried again
            self._failures += 1
            self._failing = min(self._failing + 1, 16)
            _log.exception("the %s loop failed, %d times in a row", self.name, self._failing)
        else:
            self._failing = 0
            self._last_success_at = self._clock()
