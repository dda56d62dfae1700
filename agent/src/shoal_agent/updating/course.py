"""The course of a device's slots: each event is taken by the slot machine, the new state saved, and the work queued.

Owns the order: saving comes first, so that after a crash at any point the saved state says what to do again. Leaves the
transitions to the slot machine, saving to the ledger, what waits to the agenda, and carrying it out to
`shoal_agent.updating.execution`.

When the disk takes no state: what leads on (to a switch, to a commitment) does not happen and is tried again, because a
restart would forget it; what leads back to a proven model happens from memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import (
    Barred,
    Begun,
    Cleared,
    Deferred,
    Due,
    Fetched,
    Loaded,
    Measured,
    Passed,
    Postponed,
    Proved,
    Slot,
    SlotEvent,
    SlotFault,
)
from shoal_agent.domain.slot_machine import TRANSITIONS
from shoal_agent.updating.agenda import Agenda
from shoal_agent.updating.garbage import Garbage
from shoal_agent.updating.ledger import Ledger

_LEADING_ON = (Cleared, Fetched, Begun, Passed, Loaded, Proved)
_log = logging.getLogger(__name__)


class Course:
    """What happened to the slots, and what is to be done; used by one thread.

    Args:
        ledger: Holds the state, and saves it.
        agenda: Holds what is to be done.
        garbage: Told which bundles a slot still needs.
        drop: Told of a slot whose step could not be saved, so that nothing loaded for it stays.
        changed: Called after every change worth reporting.

    Attributes:
        troubles: What keeps a slot waiting just now, by slot; not final.
    """

    def __init__(
        self,
        ledger: Ledger,
        agenda: Agenda,
        garbage: Garbage,
        *,
        drop: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self.agenda = agenda
        self.changed = changed
        self.troubles: dict[str, SlotFault] = {}
        self._garbage = garbage
        self._drop = drop

    def handle(self, name: str, event: SlotEvent) -> None:
        """Take one event: save the new state, then queue what is to be done."""
        effects, after = self.ledger.outcome(name, event)
        self._garbage.changed(after.slots[name])
        changed = after != self.ledger.state
        if changed and not self._took(event, after):
            self._held_up(name)
            return
        self.agenda.add(name, effects)
        news = changed and not isinstance(event, Measured)
        if isinstance(event, Postponed | Deferred):
            news |= self.trouble(name, event)
        elif not isinstance(event, Measured | Barred | Due):
            self.troubles.pop(name, None)
        if news:
            self.changed()

    def _took(self, event: SlotEvent, after: DeviceState) -> bool:
        """Save the state after an event; one that leads on happens only if the disk took it."""
        if isinstance(event, _LEADING_ON):
            return self.ledger.change(after)
        self.ledger.keep(after)
        return True

    def apply(self, name: str, event: SlotEvent) -> None:
        """Take one of several events that are saved together."""
        effects, self.ledger.state = self.ledger.outcome(name, event)
        self.agenda.add(name, effects)
        self._garbage.changed(self.ledger.slot(name))

    def put(self, name: str, slot: Slot) -> None:
        """Change a slot beside the table; saved with what comes next."""
        self.ledger.state = self.ledger.state.with_slot(name, slot)

    def _held_up(self, name: str) -> None:
        """A step that leads on could not be saved: wait and do it again; a trial that could end simply goes on."""
        self._drop(name)
        fault = Postponed("state_unsaved", f"the state can't be saved: {self.ledger.unsaved}")
        if (self.ledger.slot(name).state, Postponed) in TRANSITIONS:
            self.handle(name, fault)
        elif self.trouble(name, fault):
            self.changed()

    def trouble(self, name: str, event: Postponed | Deferred) -> bool:
        """Note what keeps a slot waiting; tells whether that is news."""
        target = self.ledger.slot(name).target
        fault = SlotFault(event.code, event.message, (target.digest if target else None) or "")
        if self.troubles.get(name) == fault:
            return False
        _log.info("slot %s waits: %s", name, event.message)
        self.troubles[name] = fault
        return True
