"""Which calls of a model are under way, and since when: what tells a model that hangs from one that nobody asks.

Costs an answering thread two stores a call: each thread has a mark of its own, which whoever watches reads.
"""

from __future__ import annotations

import threading
import weakref


class CallMark:
    """One thread's call of one model.

    Attributes:
        since_ns: When it began, by ``perf_counter_ns``; 0: there is none.
    """

    __slots__ = ("__weakref__", "since_ns")

    def __init__(self) -> None:
        self.since_ns = 0


class CallsUnderWay:
    """The marks of all threads; one goes when its thread ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: list[weakref.ref[CallMark]] = []

    def mark(self) -> CallMark:
        """Return the mark of a thread that is new here; the thread keeps it alive."""
        made = CallMark()
        with self._lock:
            self._marks = [mark for mark in self._marks if mark() is not None]
            self._marks.append(weakref.ref(made))
        return made

    def oldest_s(self, now_ns: int) -> float:
        """Return for how many seconds the oldest call is under way; 0 when there is none."""
        with self._lock:
            marks = [mark for ref in self._marks if (mark := ref()) is not None]
        began = [since for mark in marks if (since := mark.since_ns)]
        return max(now_ns - min(began), 0) / 1e9 if began else 0.0
