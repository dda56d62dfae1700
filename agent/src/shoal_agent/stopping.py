"""How a program that serves comes to its end: a signal asks for it, the main thread waits for it."""

from __future__ import annotations

import signal
import threading
import time

_LOOK_S = 1.0


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def wait_for(stop: threading.Event, *, within_s: float | None = None) -> bool:
    """Wait until the event is set, or the time is over; return whether it is set.

    The main thread wakes every second for it: handlers run only there, and a signal that the kernel gave to another
    thread just leaves a mark, which a main thread that waits in a lock would never find
    (https://docs.python.org/3/library/signal.html#execution-of-python-signal-handlers).
    """
    until = None if within_s is None else time.monotonic() + within_s
    while not stop.wait(_LOOK_S if until is None else max(min(_LOOK_S, until - time.monotonic()), 0.0)):
        if until is not None and time.monotonic() >= until:
            return False
    return True
