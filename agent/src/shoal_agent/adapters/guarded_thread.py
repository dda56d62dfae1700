"""A thread that somebody else watches: one that has ended, or hangs, is told of and replaced.

Nothing in Python ends a thread from outside. One that hangs (in a name look-up, in a library) is left behind: its
`Shift` is over, which it finds out when it comes back, and whatever it does until then is to have no effect.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shoal_agent.ports import Clock

_log = logging.getLogger(__name__)


class Shift:
    """The time in which one thread does the work.

    Args:
        monotonic: Seconds for durations.
    """

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self._beat_at = monotonic()
        self._is_over = False

    def over(self) -> bool:
        """Tell whether the work is somebody else's now, or is to end."""
        return self._is_over

    def end(self) -> None:
        """Let it be over."""
        self._is_over = True

    def beat(self) -> None:
        """Say: here I am."""
        self._beat_at = self._monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat."""
        return self._monotonic() - self._beat_at


class GuardedThread:
    """Work that always has a living thread, as long as somebody calls `tend` now and then.

    Args:
        name: Of the thread.
        work: Does the work until its shift is over.
        patience_s: So long a shift may be silent; above the longest step that can't beat.
        monotonic: Seconds for durations.
    """

    def __init__(self, name: str, work: Callable[[Shift], None], *, patience_s: float, monotonic: Clock) -> None:
        self._name, self._work = name, work
        self._patience_s, self._monotonic = patience_s, monotonic
        self._shift: Shift | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.replaced = 0
        """How often a thread was replaced since the start."""

    def start(self) -> None:
        """Begin."""
        with self._lock:
            self._begin()

    def tend(self) -> None:
        """Look after the thread; does nothing before `start` and after `stop`."""
        with self._lock:
            shift, thread = self._shift, self._thread
            if shift is None or thread is None:
                return
            hangs = shift.silent_s > self._patience_s
            if thread.is_alive() and not hangs:
                return
            why = f"was silent for {shift.silent_s:.0f} s" if hangs else "has ended"
            _log.error("the thread %s %s: another one takes over", self._name, why)
            shift.end()
            self.replaced += 1
            self._begin()

    def stop(self, *, timeout_s: float) -> None:
        """End the shift and wait for the thread, but not for ever."""
        with self._lock:
            shift, thread = self._shift, self._thread
            self._shift = self._thread = None
        if shift is not None:
            shift.end()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=timeout_s)

    def _begin(self) -> None:
        self._shift = Shift(self._monotonic)
        self._thread = threading.Thread(target=self._run, args=(self._shift,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, shift: Shift) -> None:
        try:
            self._work(shift)
        except Exception:  # noqa: BLE001 - the boundary of the thread; `tend` replaces it
            _log.exception("the thread %s ended by an error of the agent", self._name)
