"""A thread that is there only while there is something to do: most devices never need it.

Invariant: what is wanted while the thread is about to end is done by it or by the next one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

_JOIN_S = 15.0


class OccasionalThread:
    """Takes turns, when woken and now and then, until a turn says that nothing is left to do.

    Args:
        name: Of the thread.
        turn: Does what is due once; returns whether something is left. Its errors are logged, and it is called again.
        every_s: Seconds between turns.
    """

    def __init__(self, name: str, turn: Callable[[], bool], *, every_s: float) -> None:
        self._name = name
        self._turn = turn
        self._every_s = every_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    def wake(self, *, needed: Callable[[], bool]) -> None:
        """Let it take its next turn now, and begin where it is needed and not there."""
        self._wake.set()
        if not needed():
            return
        with self._lock:
            if not self._stopping and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End it for good."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                if not self._turn() and self._has_ended():
                    return
            except Exception:  # noqa: BLE001 - the loop's boundary
                _log.exception("%s: a turn failed", self._name)
            self._wake.wait(self._every_s)

    def _has_ended(self) -> bool:
        """End the thread, unless something changed meanwhile."""
        with self._lock:
            if self._wake.is_set():
                return False
            self._thread = None
            return True
