"""Windows: closed on the clock, all slots at once, and handed to the spool.

Windows lie on multiples of their length on the wall clock, so that windows of different devices can be compared; the
first after a start is shorter. Wall time only labels them: a window's length is measured on the monotonic clock where
the two disagree (the clock was set, or the machine slept).

Invariant: every counted row is in exactly one window that was handed over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from shoal_agent.runtime.memory import resident_bytes
from shoal_agent.runtime.slots import Observed
from shoal_agent.runtime.window_sums import WindowSummary
from shoal_protocol.profile.profile import Profile
from shoal_protocol.profile.shadow import ShadowSums

_CLOCK_TOLERANCE_MS = 1000
_SNAP_MS = 250


class ClosedWindow(msgspec.Struct, frozen=True):
    """What one model saw in one window.

    Attributes:
        slot: The slot that predicted.
        digest: Of the bundle that predicted.
        spec_hash: Of the profile's spec.
        start_ms: Milliseconds since the epoch by the device's clock.
        length_ms: At least 1.
        n: Rows counted.
        errors: Predictions that failed inside the model.
        latency: Counts of predictions by ``LATENCY_EDGES_US``.
        resources: ``cpu_s`` and ``rss_bytes`` of the agent, ``rows`` answered, ``refused`` requests.
        profile: The counts.
        shadows: How far shadows agreed with this model.
        violations: Rows that break each rule of the bundle's contract, then of rules beside it.
        rules: Hash of the rules beside it; empty: there are none.
        variant: Path of the form of the model that predicted; empty: the canonical one.
    """

    slot: str
    digest: str
    spec_hash: str
    start_ms: int
    length_ms: int
    n: int
    errors: int
    latency: tuple[int, ...]
    resources: dict[str, float]
    profile: Profile
    shadows: tuple[ShadowSums, ...] = ()
    violations: tuple[int, ...] = ()
    rules: str = ""
    variant: str = ""


class WindowSink(Protocol):
    """Where closed windows go; persisted when `append` returns."""

    def append(self, window: ClosedWindow) -> None:
        """Take one window."""


class Watched(Protocol):
    """Whose windows are closed; the slot table."""

    def observed(self) -> list[Observed]:
        """Return the observers of active models and of those on their way out."""

    def forget(self, observed: Observed) -> None:
        """Drop a gone model's observer, whose last window was closed."""


class Clocks(msgspec.Struct, frozen=True):
    """The clocks of windows, in seconds.

    Attributes:
        wall: Since the epoch, UTC; may jump.
        monotonic: Never jumps.
        cpu: CPU time of this process.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.process_time


class WindowClock:
    """Closes the windows of all slots.

    Args:
        slots: Whose observers to close.
        sink: Takes the windows.
        window_s: Length in seconds; half a second is fine.
        clocks: Injected by tests.
        labels_wait: Whether labels wait for a message that takes them: then a window is handed over also of a model to
            which nothing happened.
        resident: Returns the resident memory in bytes.
    """

    def __init__(
        self,
        slots: Watched,
        sink: WindowSink,
        *,
        window_s: float,
        clocks: Clocks | None = None,
        labels_wait: Callable[[], bool] = lambda: False,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._slots = slots
        self._sink = sink
        self._window_ms = max(1, round(window_s * 1000))
        self._clocks = clocks or Clocks()
        self._resident = resident
        self._labels_wait = labels_wait
        self._lock = threading.Lock()
        self._begin()

    def due_in_s(self) -> float:
        """Return the seconds until `tick` has something to do; 0 when it has now."""
        return max(0.0, self._ends_at - self._clocks.monotonic())

    def tick(self) -> int:
        """Close the windows when their time has come.

        Returns:
            How many were handed over; models to which nothing happened leave none.
        """
        return self.close_all() if self.due_in_s() == 0.0 else 0

    def close_all(self) -> int:
        """Close the windows now, as at a clean stop; returns how many were handed over."""
        with self._lock:
            start_ms, length_ms = self._bounds()
            cpu_s = self._clocks.cpu() - self._began_cpu
            self._begin()
            return sum(self._close(observed, start_ms, length_ms, cpu_s) for observed in self._slots.observed())

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop, then close what is open; for a thread of its own."""
        while not stop.wait(self.due_in_s()):
            self.tick()
        self.close_all()

    def _begin(self) -> None:
        wall_ms = int(self._clocks.wall() * 1000)
        self._began_ms = wall_ms
        self._began = self._clocks.monotonic()
        self._began_cpu = self._clocks.cpu()
        self._ends_at = self._began + (self._window_ms - wall_ms % self._window_ms) / 1000

    def _bounds(self) -> tuple[int, int]:
        """Return start and length of the open window in milliseconds, snapped to the multiples where it is near."""
        now_ms = int(self._clocks.wall() * 1000)
        lasted_ms = max(1, round((self._clocks.monotonic() - self._began) * 1000))
        start_ms = (
            self._began_ms if abs(now_ms - self._began_ms - lasted_ms) <= _CLOCK_TOLERANCE_MS else now_ms - lasted_ms
        )
        tolerance = min(_SNAP_MS, self._window_ms // 10)
        start_ms = _snapped(start_ms, self._window_ms, tolerance)
        end_ms = _snapped(start_ms + lasted_ms, self._window_ms, tolerance)
        return max(0, start_ms), max(1, end_ms - start_ms)

    def _close(self, observed: Observed, start_ms: int, length_ms: int, cpu_s: float) -> int:
        summary = observed.observer.close_window()
        shadows = observed.observer.close_shadows()
        is_told = bool(shadows) or not summary.is_silent or (observed.is_active and self._labels_wait())
        if is_told:
            window = self._window(observed, summary, (start_ms, length_ms), cpu_s)
            self._sink.append(msgspec.structs.replace(window, shadows=shadows))
        if observed.is_gone:
            self._slots.forget(observed)
        return 1 if is_told else 0

    def _window(
        self, observed: Observed, summary: WindowSummary, bounds: tuple[int, int], cpu_s: float
    ) -> ClosedWindow:
        return ClosedWindow(
            slot=observed.slot,
            digest=observed.digest,
            spec_hash=observed.observer.spec.hash,
            start_ms=bounds[0],
            length_ms=bounds[1],
            n=summary.n,
            errors=summary.errors,
            latency=tuple(summary.latency.tolist()),
            resources={
                "cpu_s": round(max(0.0, cpu_s), 6),
                "rss_bytes": float(self._resident()),
                "rows": float(summary.rows),
                "refused": float(summary.refused),
            },
            profile=summary.profile,
            violations=summary.violations,
            rules=observed.observer.rules_hash,
            variant=observed.variant,
        )


def _snapped(at_ms: int, window_ms: int, tolerance_ms: int) -> int:
    nearest = round(at_ms / window_ms) * window_ms
    return nearest if abs(at_ms - nearest) <= tolerance_ms else at_ms
