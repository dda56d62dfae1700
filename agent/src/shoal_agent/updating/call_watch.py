"""Watching calls that do not come back, of models that are not on trial (any more), or were replaced meanwhile.

Owns when such a call is cut off, and what becomes of its model: it is loaded again, because the cut session answers
nothing any more; at the third such call within an hour the slot goes back to the model before, if there is one. Leaves
models on trial to `shoal_agent.updating.trial_watch`, and the cutting to the engine. Used by the updating thread; only
`faults` by others.

A single operator that never returns heeds no cut. Its thread is lost to this process, which `faults` says, so that the
service manager restarts the agent.
"""

from __future__ import annotations

import logging

from shoal_agent.domain.slot import Failed, Install, Slot, SlotState
from shoal_agent.ports import Clock
from shoal_agent.updating.model_host import ModelHost

HANGS = 3
"""So many calls that were cut off, within `WITHIN_S`, make a model go."""

WITHIN_S = 3600.0

HEEDED_S = 60.0
"""Within so long a call that was cut off has ended, if it ever does."""

_log = logging.getLogger(__name__)


class CallWatch:
    """Looks at the calls of all slots.

    Args:
        host: Where models answer.
        longest_s: A call that is under way for longer will not end, seconds; 0: none is ever cut off.
        monotonic: Seconds for durations.
    """

    def __init__(self, host: ModelHost, *, longest_s: float, monotonic: Clock) -> None:
        self._host = host
        self._longest_s = longest_s
        self._monotonic = monotonic
        self._hangs: dict[str, list[tuple[str, float]]] = {}
        self._oldest_left_s = 0.0

    def look(self, name: str, slot: Slot) -> Install | Failed | None:
        """Return what is to become of a slot one of whose calls was cut off; none: there was no such call.

        Args:
            name: Of the slot.
            slot: As it is.
        """
        on_trial = slot.trial is not None or slot.state is SlotState.TRIAL
        if not self._longest_s or on_trial or slot.active is None:
            return None
        running_s = self._host.running_s(name)
        if running_s <= self._longest_s or not self._host.cut_off(name):
            return None
        told = f"a call has been under way for {running_s:.0f} s; it was cut off"
        _log.error("slot %s: %s", name, told)
        now = self._monotonic()
        recent = [(d, at) for d, at in self._hangs.get(name, ()) if d == slot.active and now - at < WITHIN_S]
        self._hangs[name] = recent = [*recent, (slot.active, now)]
        others = {slot.previous, slot.fallback} - {None, slot.active, *slot.bad}
        if len(recent) >= HANGS and others:
            return Failed("hangs", f"{told}, as {len(recent) - 1} before it within an hour")
        return Install(slot.active)

    def look_at_replaced(self) -> None:
        """Cut off calls of models that answer no more; nobody else would."""
        if self._longest_s:
            self._oldest_left_s = self._host.cut_off_replaced(self._longest_s)

    def faults(self) -> list[str]:
        """Name what only a restart of the process mends; any thread may ask."""
        if self._oldest_left_s <= self._longest_s + HEEDED_S:
            return []
        return [f"a call has been under way for {self._oldest_left_s:.0f} s and does not heed that it was cut off"]
