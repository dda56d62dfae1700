"""What is to be done for the slots: effects in their order, and waits.

Known only while the process lives; after a restart the saved states say again what is to be done. Owns which effects
are still current: a newer assignment makes those of an older one obsolete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from shoal_agent.domain.slot import (
    Check,
    Fetch,
    Install,
    Load,
    Prepare,
    SelfTest,
    Slot,
    SlotEffect,
    SlotState,
)
from shoal_agent.ports import Clock

Entry: TypeAlias = tuple[str, SlotEffect]
"""The name of a slot, and what is to be done for it."""


class _Wait(msgspec.Struct):
    """What one slot waits for.

    Attributes:
        due_at: When the wait is over, monotonic seconds; none: it does not wait.
        again: What to do then, in states whose table knows of no `Due`.
        failures: Tries of `again` so far.
    """

    due_at: float | None = None
    again: SlotEffect | None = None
    failures: int = 0


def is_current(slot: Slot, effect: SlotEffect) -> bool:
    """Tell whether an effect still belongs to the slot's state.

    Only the digest counts: the same bundle wanted under another name or attempt queues no second effect.
    """
    digest = slot.target.digest if slot.target else None
    match effect:
        case Check(target):
            return slot.state is SlotState.ASSIGNED and target.digest == digest
        case Fetch(target):
            return slot.state is SlotState.DOWNLOADING and target.digest == digest
        case Prepare():
            return slot.state is SlotState.VERIFIED
        case SelfTest(wanted):
            return slot.state is SlotState.PREFLIGHT and wanted == digest
        case Load(wanted):
            return slot.state is SlotState.ACTIVATING and wanted == digest
        case Install(digest):
            return digest == slot.active
    return True


class Agenda:
    """The effects and waits of all slots; used by one thread.

    Args:
        monotonic: Seconds for durations.
    """

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self._queue: deque[Entry] = deque()
        self._waits: dict[str, _Wait] = {}

    def add(self, name: str, effects: Iterable[SlotEffect]) -> None:
        """Queue effects, in their order."""
        self._queue.extend((name, effect) for effect in effects)

    def next(self) -> Entry | None:
        """Take the next effect; none: nothing is queued."""
        return self._queue.popleft() if self._queue else None

    def take_installs(self, name: str) -> list[Entry]:
        """Take out of turn what says which model of a slot should answer."""
        found = [entry for entry in self._queue if entry[0] == name and isinstance(entry[1], Install)]
        for entry in found:
            self._queue.remove(entry)
        return found

    def queued(self) -> list[Entry]:
        """Return all that is queued."""
        return list(self._queue)

    def clear(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    # Waits -------------------------------------------------------------------------------------------------------

    def wait(self, name: str, seconds: float) -> None:
        """Let a slot wait; with 0 it is due at the next look."""
        self._at(name).due_at = self._monotonic() + seconds

    def failures(self, name: str) -> int:
        """Return how often the effect that is to be done again has failed in a row."""
        return self._at(name).failures

    def failed(self, name: str, effect: SlotEffect) -> int:
        """Note that an effect failed and is to be done again after a wait; returns how often that was so in a row."""
        wait = self._at(name)
        wait.failures, wait.again = wait.failures + 1, effect
        return wait.failures

    def succeeded(self, name: str) -> None:
        """Note that nothing is to be done again."""
        wait = self._at(name)
        wait.again, wait.failures = None, 0

    def due(self) -> list[tuple[str, SlotEffect | None]]:
        """End the waits that are over; returns their slots, each with what is to be done again, if anything is."""
        now = self._monotonic()
        over = []
        for name, wait in list(self._waits.items()):
            if wait.due_at is not None and wait.due_at <= now:
                wait.due_at = None
                again, wait.again = wait.again, None
                over.append((name, again))
        return over

    def idle_s(self) -> float | None:
        """Return the seconds until something is to be done; none: nothing waits."""
        if self._queue:
            return 0.0
        now = self._monotonic()
        waits = [wait.due_at - now for wait in self._waits.values() if wait.due_at is not None]
        return max(min(waits), 0.0) if waits else None

    def _at(self, name: str) -> _Wait:
        return self._waits.setdefault(name, _Wait())
