"""Word that something changed, from the rooms to whoever waits inside this process (live pages, workers).

Owns counters per topic. Carries no content: a listener asks the stores what is true now, so a lost or doubled signal
does no harm. Rooms call `bump` after their commit.
"""

import threading
from collections.abc import Iterable, Mapping


class Signals:
    """Thread-safe counters that can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counters: dict[str, int] = {}
        self._closed = False

    def bump(self, topic: str) -> None:
        """Tell everybody who waits that something under `topic` is new."""
        with self._changed:
            self._counters[topic] = self._counters.get(topic, 0) + 1
            self._changed.notify_all()

    def counters(self) -> dict[str, int]:
        """Return the present count of every topic that was ever bumped."""
        with self._changed:
            return dict(self._counters)

    def wait(
        self, since: Mapping[str, int], *, topics: Iterable[str] | None = None, timeout_s: float | None = None
    ) -> dict[str, int]:
        """Block until a counter differs from `since`, the time is over or the signals are closed.

        Args:
            since: what `counters` or an earlier `wait` returned.
            topics: only these count; all when left out.
            timeout_s: seconds to wait at most; for ever when left out.

        Returns:
            The counters that differ, empty when the time was over.
        """
        watched = None if topics is None else frozenset(topics)

        def changed() -> dict[str, int]:
            return {
                topic: count
                for topic, count in self._counters.items()
                if (watched is None or topic in watched) and since.get(topic, 0) != count
            }

        with self._changed:
            self._changed.wait_for(lambda: self._closed or changed(), timeout_s)
            return changed()

    @property
    def closed(self) -> bool:
        """Whether the program is ending and waiting is over for good."""
        return self._closed

    def close(self) -> None:
        """Wake everybody for the last time; from now on `wait` returns at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
