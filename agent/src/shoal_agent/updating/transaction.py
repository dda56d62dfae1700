"""All slots of a device: their start and stop, what is wished of them, and what the passing of time brings.

The shell around the slot machine; used by one thread. Events go through `shoal_agent.updating.course`, which saves
before anything is done, and what is to be done through `shoal_agent.updating.execution`. The thread is
`shoal_agent.updating.updater`'s.

A start on trial that can't be counted, on a disk that takes nothing, is not made while there is a proven model to start
instead: it could be one of endlessly many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shoal_agent.domain import crash_loop
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.sampling import accepted
from shoal_agent.domain.slot import (
    Barred,
    Booted,
    Damaged,
    Due,
    Failed,
    ShadowWish,
    SlotFault,
    SlotState,
    Stopped,
    Target,
    Wanted,
)
from shoal_agent.domain.slot_machine import TRANSITIONS
from shoal_agent.errors import NoModelError
from shoal_agent.ports import Cancelled
from shoal_agent.updating.agenda import Agenda
from shoal_agent.updating.boot import runnable_state
from shoal_agent.updating.call_watch import CallWatch
from shoal_agent.updating.course import Course
from shoal_agent.updating.execution import Execution
from shoal_agent.updating.garbage import Garbage
from shoal_agent.updating.ledger import Ledger
from shoal_agent.updating.outcomes import Outcomes
from shoal_agent.updating.placing import Placing
from shoal_agent.updating.shadows import MAX_STARTS, Shadows
from shoal_agent.updating.surroundings import Rhythm, Surroundings
from shoal_agent.updating.trial_watch import TrialWatch

if TYPE_CHECKING:
    from shoal_protocol.mqtt.messages import ShadowReport
    from shoal_protocol.trust.assignment import Assignment

_log = logging.getLogger(__name__)


class Transactions:
    """All slots of a device.

    Args:
        around: What to work with.
        rhythm: Times and chance.
        cancelled: Tells a long step that something newer waits, or that the agent stops.
        changed: Called after every change worth reporting.
    """

    def __init__(
        self, around: Surroundings, *, rhythm: Rhythm, cancelled: Cancelled, changed: Callable[[], None]
    ) -> None:
        self._around = around
        self._rhythm = rhythm
        self._cancelled = cancelled
        self._ledger = Ledger(around.state_file, rhythm.clock)
        self._agenda = Agenda(rhythm.monotonic)
        self._outcomes = Outcomes(around.spool, around.messages, around.store)
        self._garbage = Garbage(around.store, around.work)
        placing = Placing(around.host, around.store, starts=rhythm.rules.starts)
        self._course = Course(self._ledger, self._agenda, self._garbage, drop=placing.drop, changed=changed)
        self._watch = TrialWatch(around.host, rules=rhythm.rules, monotonic=rhythm.monotonic)
        self._calls = CallWatch(around.host, longest_s=rhythm.longest_call_s, monotonic=rhythm.monotonic)
        self._shadows = Shadows(
            around.host,
            around.work,
            monotonic=rhythm.monotonic,
            chance=rhythm.chance,
            backoff=rhythm.backoff,
            cancelled=cancelled,
            changed=changed,
        )
        self._execution = Execution(
            self._course,
            around,
            rhythm,
            placing=placing,
            outcomes=self._outcomes,
            watch=self._watch,
            cancelled=cancelled,
        )
        self._revoked: Mapping[str, str] = {}
        self._hold: Hold | None = None
        self._began = rhythm.monotonic()

    # What there is to see ----------------------------------------------------------------------------------------

    @property
    def state(self) -> DeviceState:
        """The device's state, as far as others may be told it; any thread may ask."""
        return self._ledger.told

    @property
    def troubles(self) -> Mapping[str, SlotFault]:
        """What keeps a slot waiting just now, by slot; not final."""
        return MappingProxyType(self._course.troubles)

    @property
    def revoked(self) -> Mapping[str, str]:
        """Why bundles that run here, or ran, may not be installed or returned to any more, by digest."""
        return MappingProxyType(dict(self._revoked))

    @property
    def hold(self) -> Hold | None:
        """The hold of an operator at the device, as it was seen last."""
        return self._hold

    def digests(self) -> set[str]:
        """Return what runs here and what could be gone back to."""
        slots = self._ledger.state.slots.values()
        return {digest for slot in slots for digest in (slot.active, slot.previous, slot.fallback) if digest}

    def progress(self) -> dict[str, float]:
        """Return the share of each slot's download that is there."""
        return dict(self._execution.progress)

    def on_trial(self) -> bool:
        """Tell whether some slot's model is on trial."""
        return any(slot.state is SlotState.TRIAL for slot in self._ledger.state.slots.values())

    def variants(self) -> dict[str, str]:
        """Return the path of the variant that answers, by slot."""
        return self._around.host.variants()

    def faults(self) -> list[str]:
        """Name what only a restart of the process mends; any thread may ask."""
        return self._calls.faults()

    def shadows(self) -> dict[str, ShadowReport]:
        """Return what runs beside the active models, by slot."""
        return self._shadows.reports()

    # From start to stop ------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Find what can run, count the start, and let every slot's model answer; needs no network."""
        found, damaged = runnable_state(self._around.state_file, self._around.store)
        suspect = crash_loop.suspect(found)
        self._ledger.state = crash_loop.begun(crash_loop.settled(found) if suspect else found)
        for name, digest in damaged:
            self._course.apply(name, Damaged(digest))
        if suspect is not None and found.slots[suspect].active == self._ledger.state.slots[suspect].active:
            crashes = f"the agent crashed {found.starts} times in a row while this model was active"
            self._course.apply(suspect, Failed("crash_loop", crashes))
        for name in sorted(found.slots):
            self._course.apply(name, Booted())
        if not self._ledger.save():
            self._avoid_trials()
        for name in sorted(found.slots):
            self._execution.start(name)

    def stop(self) -> None:
        """Give the starts of trials and shadows back."""
        self._shadows.stop()
        for name in sorted(self._ledger.state.slots):
            self._measure(name)
            self._course.apply(name, Stopped())
            slot = self._ledger.slot(name)
            if slot.shadow is not None and 0 < slot.shadow.starts < MAX_STARTS:
                self._course.put(name, replace(slot, shadow=replace(slot.shadow, starts=0)))
        self._ledger.state = crash_loop.settled(self._ledger.state)
        self._agenda.clear()
        self._ledger.save()

    def _avoid_trials(self) -> None:
        """A start on trial that can't be counted could be one of endlessly many: prefer a proven model."""
        for name, slot in sorted(self._ledger.state.slots.items()):
            if slot.trial is not None and any(d not in {None, slot.active} for d in (slot.previous, slot.fallback)):
                fault = f"its start could not be counted: {self._ledger.unsaved}"
                self._course.apply(name, Failed("state_unsaved", fault))

    # Wishes ------------------------------------------------------------------------------------------------------

    def take_over(self, assignment: Assignment) -> None:
        """Make a verified, newer assignment the wish of its slots, in one save."""
        self._ledger.state = accepted(self._ledger.state, assignment)
        for name, wish in sorted(assignment.slots.items()):
            target = Target(wish.digest, wish.name or "", wish.attempt, wish.windows or ())
            slot = self._ledger.slot(name)
            shadow = None if wish.shadow is None else ShadowWish(wish.shadow, wish.attempt)
            if slot.shadow is None or shadow is None or replace(slot.shadow, starts=0) != shadow:
                slot = replace(slot, shadow=shadow)
                self._garbage.look_soon()
            self._course.put(name, slot)
            if slot.target != target or slot.pending is not None:
                self._course.apply(name, Wanted(target))
                self._course.troubles.pop(name, None)
        self._ledger.save()
        self._course.changed()

    def bar(self, revoked: Mapping[str, str]) -> None:
        """Go back to none of these bundles, and tell it; what runs, runs on.

        Args:
            revoked: Why each of `digests` is revoked, of those that are.
        """
        news = {digest: why for digest, why in revoked.items() if digest not in self._revoked}
        changed = dict(revoked) != dict(self._revoked)
        self._revoked = dict(revoked)
        barred = frozenset(revoked)
        for name, slot in sorted(self._ledger.state.slots.items()):
            if barred & {slot.previous, slot.fallback}:
                self._course.handle(name, Barred(barred))
            if slot.active is not None and slot.active in news:
                self._outcomes.revoked(name, slot.active, news[slot.active], generation=self._ledger.state.generation)
        if changed:
            self._course.changed()

    def roll_back(self, name: str, reason: str) -> None:
        """Go back to the previous model by an operator's word at the device.

        Raises:
            NoModelError: There is none to go back to.
        """
        slot = self._ledger.slot(name)
        if slot.active is None or not (slot.previous or slot.fallback not in {None, slot.active}):
            barred = "".join(f"; {d[:19]}… is barred: {why}" for d, why in self._revoked.items() if d != slot.active)
            raise NoModelError(f"slot {name!r} has no previous model to go back to{barred}", slot=name)
        self._course.handle(name, Failed("local_rollback", reason))

    # Turns -------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Carry out all that is queued, and what follows from it; returns early when something newer waits."""
        if self._execution.work_off():
            self._advance_shadows()
            if not self._ledger.unsaved and not self._shadows.is_fetching:
                self._garbage.collect(self._ledger.state)

    def tick(self) -> None:
        """Wake slots whose wait is over, and judge trials; a state that could not be saved is tried again."""
        now = self._rhythm.monotonic()
        if self._ledger.state.starts and now - self._began >= crash_loop.SETTLED_S:
            self._ledger.state = crash_loop.settled(self._ledger.state)
            self._ledger.save()
        elif self._ledger.unsaved:
            self._ledger.save()
        self._look_at_hold()
        for name, again in self._agenda.due():
            if again is not None:
                self._agenda.add(name, (again,))
            elif (self._ledger.slot(name).state, Due) in TRANSITIONS:
                self._course.handle(name, Due())
        for name in list(self._ledger.state.slots):
            self._measure(name)
            verdict = self._watch.verdict(name, self._ledger.slot(name))
            if verdict is not None:
                self._course.handle(name, verdict)
            self._look_at_calls(name)
        self._calls.look_at_replaced()

    def _look_at_calls(self, name: str) -> None:
        """Do what a call that had to be cut off asks for."""
        slot = self._ledger.slot(name)
        found = self._calls.look(name, slot)
        if found is None:
            return
        self._outcomes.cut_off(name, str(slot.active))
        if isinstance(found, Failed):
            self._course.handle(name, found)
        else:
            self._agenda.add(name, (found,))

    def _look_at_hold(self) -> None:
        """Report that the operator's hold began, changed or ended."""
        hold = self._around.leave.hold()
        if hold != self._hold:
            _log.info("updates are on hold: %s", hold.reason) if hold else _log.info("updates are not on hold any more")
            self._hold = hold
            self._course.changed()

    def idle_s(self) -> float | None:
        """Return the seconds until a wait is over; none: nothing waits."""
        return self._agenda.idle_s()

    def _measure(self, name: str) -> None:
        measured = self._watch.measure(name, self._ledger.state.slots[name])
        if measured is not None:
            self._course.handle(name, measured)

    # Shadows -----------------------------------------------------------------------------------------------------

    def _advance_shadows(self) -> None:
        """Bring shadows on while no slot is in an update."""
        if any(slot.state is not SlotState.IDLE for slot in self._ledger.state.slots.values()):
            return
        for name, slot in sorted(self._ledger.state.slots.items()):
            try:
                self._shadows.advance(name, slot, partial(self._save_shadow, name))
            except Exception:  # noqa: BLE001 - an error of ours must not keep the updates from going on
                _log.exception("slot %s: its shadow failed", name)
            if self._cancelled():
                return

    def _save_shadow(self, name: str, wish: ShadowWish) -> bool:
        slot = self._ledger.slot(name)
        return self._ledger.change(self._ledger.state.with_slot(name, replace(slot, shadow=wish)))
