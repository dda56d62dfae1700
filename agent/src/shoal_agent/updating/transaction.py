"""The shell around the slot machine: saves each new state, then carries out what is to be done.

Owns the order of things for all slots of a device; used by one thread. Saving comes first: after a crash at any point
the saved state says what to do again, and every effect can be done twice. Leaves the transitions to the slot machine,
the steps to `shoal_agent.updating.work` and `shoal_agent.updating.placing`, what waits to the agenda, saving to the
ledger, and the thread to `shoal_agent.updating.updater`.

When the disk takes no state: what leads on (to a switch, to a commitment) does not happen and is tried again, because a
restart would forget it; what leads back to a proven model happens from memory. A start on trial that can't be counted
is not made while there is a proven model to start instead.
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
    Begun,
    Booted,
    Check,
    Cleared,
    Damaged,
    Deferred,
    Due,
    Failed,
    Fetch,
    Fetched,
    Install,
    Installed,
    Load,
    Loaded,
    Measured,
    Passed,
    Pause,
    Postponed,
    Prepare,
    Proved,
    Record,
    Recorded,
    SelfTest,
    ShadowWish,
    Slot,
    SlotEffect,
    SlotEvent,
    SlotFault,
    SlotState,
    Stopped,
    Target,
    Wait,
    Wanted,
)
from shoal_agent.domain.slot_machine import TRANSITIONS
from shoal_agent.errors import CancelledError, NoModelError
from shoal_agent.ports import Cancelled
from shoal_agent.updating.agenda import Agenda, is_current
from shoal_agent.updating.boot import runnable_state
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

_ENDED = frozenset({SlotState.COMMITTED, SlotState.REJECTED, SlotState.ROLLED_BACK})
_LEADING_ON = (Cleared, Fetched, Begun, Passed, Loaded, Proved)
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
        self._changed = changed
        self._ledger = Ledger(around.state_file, rhythm.clock)
        self._agenda = Agenda(rhythm.monotonic)
        self._placing = Placing(around.host, around.store, starts=rhythm.rules.starts)
        self._outcomes = Outcomes(around.spool, around.messages, around.store)
        self._garbage = Garbage(around.store, around.work)
        self._watch = TrialWatch(around.host, rules=rhythm.rules, monotonic=rhythm.monotonic)
        self._shadows = Shadows(
            around.host,
            around.work,
            monotonic=rhythm.monotonic,
            chance=rhythm.chance,
            backoff=rhythm.backoff,
            cancelled=cancelled,
            changed=changed,
        )
        self._progress: dict[str, float] = {}
        self._troubles: dict[str, SlotFault] = {}
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
        return MappingProxyType(self._troubles)

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
        return dict(self._progress)

    def on_trial(self) -> bool:
        """Tell whether some slot's model is on trial."""
        return any(slot.state is SlotState.TRIAL for slot in self._ledger.state.slots.values())

    def variants(self) -> dict[str, str]:
        """Return the path of the variant that answers, by slot."""
        return self._around.host.variants()

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
            self._apply(name, Damaged(digest))
        if suspect is not None and found.slots[suspect].active == self._ledger.state.slots[suspect].active:
            crashes = f"the agent crashed {found.starts} times in a row while this model was active"
            self._apply(suspect, Failed("crash_loop", crashes))
        for name in sorted(found.slots):
            self._apply(name, Booted())
        if not self._ledger.save():
            self._avoid_trials()
        for name in sorted(found.slots):
            self._start_active(name)

    def stop(self) -> None:
        """Give the starts of trials and shadows back."""
        self._shadows.stop()
        for name in sorted(self._ledger.state.slots):
            self._measure(name)
            self._apply(name, Stopped())
            slot = self._ledger.slot(name)
            if slot.shadow is not None and 0 < slot.shadow.starts < MAX_STARTS:
                self._put(name, replace(slot, shadow=replace(slot.shadow, starts=0)))
        self._ledger.state = crash_loop.settled(self._ledger.state)
        self._agenda.clear()
        self._ledger.save()

    def _avoid_trials(self) -> None:
        """A start on trial that can't be counted could be one of endlessly many: prefer a proven model."""
        for name, slot in sorted(self._ledger.state.slots.items()):
            if slot.trial is not None and any(d not in {None, slot.active} for d in (slot.previous, slot.fallback)):
                fault = f"its start could not be counted: {self._ledger.unsaved}"
                self._apply(name, Failed("state_unsaved", fault))

    def _start_active(self, name: str) -> None:
        """At a start: let the active model answer before anything that may need the network."""
        entries = self._agenda.take_installs(name) or [(name, Install(self._ledger.slot(name).active))]
        while entries:
            for entry in entries:
                if self._is_current(*entry):
                    self._carry_out(*entry)
            entries = self._agenda.take_installs(name)

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
            self._put(name, slot)
            if slot.target != target or slot.pending is not None:
                self._apply(name, Wanted(target))
                self._troubles.pop(name, None)
        self._ledger.save()
        self._changed()

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
                self.handle(name, Barred(barred))
            if slot.active is not None and slot.active in news:
                self._outcomes.revoked(name, slot.active, news[slot.active], generation=self._ledger.state.generation)
        if changed:
            self._changed()

    def roll_back(self, name: str, reason: str) -> None:
        """Go back to the previous model by an operator's word at the device.

        Raises:
            NoModelError: There is none to go back to.
        """
        slot = self._ledger.slot(name)
        if slot.active is None or not (slot.previous or slot.fallback not in {None, slot.active}):
            raise NoModelError(f"slot {name!r} has no previous model to go back to", slot=name)
        self.handle(name, Failed("local_rollback", reason))

    # Events ------------------------------------------------------------------------------------------------------

    def handle(self, name: str, event: SlotEvent) -> None:
        """Take one event: save the new state, then queue what is to be done."""
        effects, after = self._ledger.outcome(name, event)
        self._garbage.changed(after.slots[name])
        changed = after != self._ledger.state
        if changed and not self._took(event, after):
            self._held_up(name)
            return
        self._agenda.add(name, effects)
        news = changed and not isinstance(event, Measured)
        if isinstance(event, Postponed | Deferred):
            news |= self._trouble(name, event)
        elif not isinstance(event, Measured | Barred | Due):
            self._troubles.pop(name, None)
        if news:
            self._changed()

    def _took(self, event: SlotEvent, after: DeviceState) -> bool:
        """Save the state after an event; one that leads on happens only if the disk took it."""
        if isinstance(event, _LEADING_ON):
            return self._ledger.change(after)
        self._ledger.keep(after)
        return True

    def _apply(self, name: str, event: SlotEvent) -> None:
        """Take one of several events that are saved together."""
        effects, self._ledger.state = self._ledger.outcome(name, event)
        self._agenda.add(name, effects)
        self._garbage.changed(self._ledger.slot(name))

    def _put(self, name: str, slot: Slot) -> None:
        self._ledger.state = self._ledger.state.with_slot(name, slot)

    def _held_up(self, name: str) -> None:
        """A step that leads on could not be saved: wait and do it again; a trial that could end simply goes on."""
        self._placing.drop(name)
        fault = Postponed("state_unsaved", f"the state can't be saved: {self._ledger.unsaved}")
        if (self._ledger.slot(name).state, Postponed) in TRANSITIONS:
            self.handle(name, fault)
        elif self._trouble(name, fault):
            self._changed()

    def _trouble(self, name: str, event: Postponed | Deferred) -> bool:
        """Note what keeps a slot waiting; tells whether that is news."""
        target = self._ledger.slot(name).target
        fault = SlotFault(event.code, event.message, (target.digest if target else None) or "")
        if self._troubles.get(name) == fault:
            return False
        _log.info("slot %s waits: %s", name, event.message)
        self._troubles[name] = fault
        return True

    # Work --------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Carry out all that is queued, and what follows from it; returns early when something newer waits."""
        while (entry := self._agenda.next()) is not None:
            if self._is_current(*entry):
                self._carry_out(*entry)
            self._answer_again()
            if self._cancelled():
                break
        else:
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
                self.handle(name, Due())
        for name in list(self._ledger.state.slots):
            self._measure(name)
            verdict = self._watch.verdict(name, self._ledger.slot(name))
            if verdict is not None:
                self.handle(name, verdict)

    def _look_at_hold(self) -> None:
        """Report that the operator's hold began, changed or ended."""
        hold = self._around.leave.hold()
        if hold != self._hold:
            _log.info("updates are on hold: %s", hold.reason) if hold else _log.info("updates are not on hold any more")
            self._hold = hold
            self._changed()

    def idle_s(self) -> float | None:
        """Return the seconds until a wait is over; none: nothing waits."""
        return self._agenda.idle_s()

    def _is_current(self, name: str, effect: SlotEffect) -> bool:
        return is_current(self._ledger.slot(name), effect)

    def _carry_out(self, name: str, effect: SlotEffect) -> None:
        try:
            self._dispatch(name, effect)
        except CancelledError as error:
            _log.info("slot %s: %s", name, error)
            if isinstance(effect, SelfTest):
                self.handle(name, Postponed(error.code, error.message))
            self._agenda.wait(name, 0.0)
        except Exception as error:  # noqa: BLE001 - an error of ours must not leave a slot stuck for ever
            _log.exception("slot %s: %s failed", name, type(effect).__name__)
            code = "disk" if isinstance(error, OSError) else "internal"
            self._do_again(name, effect, Postponed(code, f"{type(error).__name__}: {error}"))

    def _dispatch(self, name: str, effect: SlotEffect) -> None:
        work, cancelled = self._around.work, self._cancelled
        match effect:
            case Check(target):
                self.handle(name, work.check(target, cancelled=cancelled))
            case Fetch(target):
                progress = partial(self._progressed, name)
                self.handle(name, work.fetch(target, progress=progress, cancelled=cancelled))
            case Prepare():
                self.handle(name, self._around.leave.to_activate(name, self._ledger.slot(name)) or Begun())
            case SelfTest(digest):
                self._placing.make_room(name)
                self.handle(name, work.test(digest, cancelled=cancelled))
            case Load():
                self._load(name, effect)
            case Install():
                self._install(name, effect)
            case Record():
                self._record(name, effect)
            case Wait():
                self._agenda.wait(name, self._rhythm.delay_s(effect))
            case Pause(seconds):
                self._agenda.wait(name, seconds)

    def _load(self, name: str, effect: Load) -> None:
        """Load the target, unless the leave to activate was withdrawn while it was tested."""
        deferred = self._around.leave.to_activate(name, self._ledger.slot(name))
        looks = self._agenda.failures(name)
        self._go_on(name, effect, deferred or self._placing.load(name, effect.digest, looks=looks))

    def _install(self, name: str, effect: Install) -> None:
        """Let a bundle answer; one that can't is damaged or failed, and the slot goes on to the next that may work."""
        self._watch.begins(name)
        on_trial = self._ledger.slot(name).trial is not None
        fault = self._placing.install(name, effect.digest, looks=self._agenda.failures(name), on_trial=on_trial)
        if fault is not None:
            self._go_on(name, effect, fault)
            return
        if self._agenda.failures(name):
            self._troubles.pop(name, None)
        self._agenda.succeeded(name)
        self._watch.began(name)
        if self._ledger.slot(name).state is SlotState.ROLLING_BACK:
            self.handle(name, Installed())
        self._changed()

    def _record(self, name: str, record: Record) -> None:
        slot = self._ledger.slot(name)
        if self._outcomes.record(name, slot, record):
            self._around.callouts.after(name, slot, record)
        if slot.state in _ENDED and slot.state.value == record.kind:
            self.handle(name, Recorded())

    def _go_on(self, name: str, effect: SlotEffect, event: SlotEvent) -> None:
        if isinstance(event, Postponed):
            self._do_again(name, effect, event)
        else:
            self.handle(name, event)

    def _do_again(self, name: str, effect: SlotEffect, fault: Postponed) -> None:
        """Do something again after a wait: by the table where it knows of one, else just so."""
        if (self._ledger.slot(name).state, Postponed) in TRANSITIONS and not isinstance(effect, Install):
            self.handle(name, fault)
            return
        failures = self._agenda.failed(name, effect)
        self._agenda.wait(name, self._rhythm.delay_s(Wait(failures)))
        self._trouble(name, fault)
        self._changed()

    def _answer_again(self) -> None:
        """Let a model that made room answer again, once nothing is queued that needs the room."""
        room = SelfTest | Load | Install
        needed = {name for name, one in self._agenda.queued() if isinstance(one, room) and self._is_current(name, one)}
        for name in self._placing.owed(needed):
            self._agenda.add(name, (Install(self._ledger.slot(name).active),))

    def _measure(self, name: str) -> None:
        measured = self._watch.measure(name, self._ledger.state.slots[name])
        if measured is not None:
            self.handle(name, measured)

    def _progressed(self, name: str, share: float) -> None:
        self._progress[name] = share
        self._troubles.pop(name, None)
        self._changed()

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
