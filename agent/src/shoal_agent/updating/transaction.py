"""The shell around the slot machine: saves each new state, then carries out what is to be done.

Owns the device's state while the agent runs; used by one thread. Saving comes first: after a crash at any point the
saved state says what to do again, and every effect can be done twice. Leaves the transitions to the slot machine, the
steps themselves to `shoal_agent.updating.work`, and the thread to `shoal_agent.updating.updater`.

When the disk takes no state: what leads on (to a switch, to a commitment) does not happen and is tried again, because a
restart would forget it; what leads back to a proven model happens from memory. A start on trial that can't be counted
is not made while there is a proven model to start instead.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from shoal_agent.domain import crash_loop
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.sampling import accepted
from shoal_agent.domain.slot import (
    Barred,
    Begun,
    Booted,
    Check,
    Cleared,
    Damaged,
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
    Postponed,
    Prepare,
    Proved,
    Record,
    Recorded,
    Refused,
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
)  # fmt: skip
from shoal_agent.domain.slot_machine import TRANSITIONS, step
from shoal_agent.domain.trial import TrialRules
from shoal_agent.errors import CancelledError, NoModelError, SpoolError, tells_of_damage
from shoal_agent.ports import BlobStore, Cancelled, Clock, Spool, StateFile
from shoal_agent.updating.boot import runnable_state
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.model_host import ModelHost
from shoal_agent.updating.room import Room
from shoal_agent.updating.shadows import MAX_STARTS, Shadows
from shoal_agent.updating.trial_watch import TrialWatch
from shoal_agent.updating.work import Work
from shoal_protocol.errors import DigestMismatchError, ShoalError
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.trust.assignment import Assignment

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel
    from shoal_protocol.mqtt.messages import ShadowReport

_ENDED = frozenset({SlotState.COMMITTED, SlotState.REJECTED, SlotState.ROLLED_BACK})
_RESTING = frozenset({SlotState.IDLE, SlotState.TRIAL})
MAX_LOOKS = 3
"""So often files that can't be loaded, but look intact, are loaded again before the bundle counts as damaged."""

_LEADING_ON = (Cleared, Fetched, Begun, Passed, Loaded, Proved)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What a transaction works with.

    Attributes:
        state_file: Where the state is saved.
        store: Where the bundles are.
        host: Loads and installs models.
        work: The steps.
        spool: Takes outcomes.
        messages: Makes outcomes.
    """

    state_file: StateFile
    store: BlobStore
    host: ModelHost
    work: Work
    spool: Spool
    messages: Messages


@dataclass(frozen=True)
class Rhythm:
    """Times and chance.

    Attributes:
        clock: Seconds UTC.
        monotonic: Seconds for durations.
        chance: Uniform draws from [0, 1).
        backoff: Bounds of the wait between tries.
        rules: Of trials.
    """

    clock: Clock
    monotonic: Clock
    chance: Callable[[], float]
    backoff: Backoff
    rules: TrialRules

    def delay_s(self, wait: Wait) -> float:
        """Return how long to wait: after a costly failure from a fifth of the usual longest wait to 72 times that.

        With the default of 300 s that is a minute at first, and six hours at most.
        """
        usual = self.backoff
        bounds = Backoff(base_s=usual.cap_s / 5, cap_s=usual.cap_s * 72) if wait.costly else usual
        return bounds.delay_s(wait.tries, self.chance())


@dataclass
class _Scratch:
    """What is known of a slot only while the process lives."""

    loaded: LoadedModel | None = None
    due_at: float | None = None
    again: SlotEffect | None = None
    """What to do when the wait is over, in states that know of no `Due`."""
    failures: int = 0
    """Tries of `again` so far."""
    progress: float = 0.0


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
        self._queue: deque[tuple[str, SlotEffect]] = deque()
        self._scratch: dict[str, _Scratch] = {}
        self._troubles: dict[str, SlotFault] = {}
        self._watch = TrialWatch(around.host, rules=rhythm.rules, monotonic=rhythm.monotonic)
        self._room = Room(around.host)
        self._shadows = Shadows(
            around.host,
            around.work,
            monotonic=rhythm.monotonic,
            chance=rhythm.chance,
            backoff=rhythm.backoff,
            cancelled=cancelled,
            changed=changed,
        )
        self._sweep_due = True
        self._unsaved = ""
        self._revoked: Mapping[str, str] = {}
        self._began = rhythm.monotonic()
        self.state = DeviceState()

    @property
    def troubles(self) -> Mapping[str, SlotFault]:
        """What keeps a slot waiting just now, by slot; not final."""
        return MappingProxyType(self._troubles)

    @property
    def revoked(self) -> Mapping[str, str]:
        """Why bundles that run here, or ran, may not be installed or returned to any more, by digest."""
        return MappingProxyType(dict(self._revoked))

    def digests(self) -> set[str]:
        """Return what runs here and what could be gone back to."""
        slots = self.state.slots.values()
        return {digest for slot in slots for digest in (slot.active, slot.previous, slot.fallback) if digest}

    def progress(self) -> dict[str, float]:
        """Return the share of each slot's download that is there."""
        return {name: scratch.progress for name, scratch in list(self._scratch.items())}

    def on_trial(self) -> bool:
        """Tell whether some slot's model is on trial."""
        return any(slot.state is SlotState.TRIAL for slot in self.state.slots.values())

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
        self.state = crash_loop.begun(crash_loop.settled(found) if suspect else found)
        for name, digest in damaged:
            self._apply(name, Damaged(digest))
        if suspect is not None and found.slots[suspect].active == self.state.slots[suspect].active:
            crashes = f"the agent crashed {found.starts} times in a row while this model was active"
            self._apply(suspect, Failed("crash_loop", crashes))
        for name in sorted(found.slots):
            self._apply(name, Booted())
        if not self._save(self.state):
            self._avoid_trials()
        for name in sorted(found.slots):
            self._start_active(name)

    def stop(self) -> None:
        """Give the starts of trials and shadows back."""
        self._shadows.stop()
        for name in sorted(self.state.slots):
            self._measure(name)
            self._apply(name, Stopped())
            slot = self.state.slots[name]
            if slot.shadow is not None and 0 < slot.shadow.starts < MAX_STARTS:
                self.state = self.state.with_slot(name, replace(slot, shadow=replace(slot.shadow, starts=0)))
        self.state = crash_loop.settled(self.state)
        self._queue.clear()
        self._save(self.state)

    def take_over(self, assignment: Assignment) -> None:
        """Make a verified, newer assignment the wish of its slots, in one save."""
        self.state = accepted(self.state, assignment)
        for name, wish in sorted(assignment.slots.items()):
            target = Target(wish.digest, wish.name or "", wish.attempt)
            slot = self.state.slots.get(name, Slot())
            shadow = None if wish.shadow is None else ShadowWish(wish.shadow, wish.attempt)
            if slot.shadow is None or shadow is None or replace(slot.shadow, starts=0) != shadow:
                slot, self._sweep_due = replace(slot, shadow=shadow), True
            self.state = self.state.with_slot(name, slot)
            if slot.target != target or slot.pending is not None:
                self._apply(name, Wanted(target))
        self._save(self.state)
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
        for name, slot in sorted(self.state.slots.items()):
            if barred & {slot.previous, slot.fallback}:
                self.handle(name, Barred(barred))
            if slot.active in news:
                self._tell_revoked(name, slot.active or "", news[slot.active or ""])
        if changed:
            self._changed()

    def roll_back(self, name: str, reason: str) -> None:
        """Go back to the previous model by an operator's word at the device.

        Raises:
            NoModelError: There is none to go back to.
        """
        slot = self.state.slots.get(name, Slot())
        if slot.active is None or not (slot.previous or slot.fallback not in {None, slot.active}):
            raise NoModelError(f"slot {name!r} has no previous model to go back to", slot=name)
        self.handle(name, Failed("local_rollback", reason))

    # Work --------------------------------------------------------------------------------------------------------

    def handle(self, name: str, event: SlotEvent) -> None:
        """Take one event: save the new state, then queue what is to be done."""
        before, queued = self.state, list(self._queue)
        self._apply(name, event)
        if self.state != before and not self._save(self.state) and isinstance(event, _LEADING_ON):
            self.state, self._queue = before, deque(queued)
            self._held_up(name)
            return
        if isinstance(event, Postponed):
            self._trouble(name, event)
        elif not isinstance(event, Measured | Barred):
            self._troubles.pop(name, None)
        if (self.state != before and not isinstance(event, Measured)) or isinstance(event, Postponed):
            self._changed()

    def work(self) -> None:
        """Carry out all that is queued, and what follows from it; returns early when something newer waits."""
        while self._queue:
            name, effect = self._queue.popleft()
            if self._is_current(name, effect):
                self._carry_out(name, effect)
            self._answer_again()
            if self._cancelled():
                break
        else:
            self._advance_shadows()
            self._collect_garbage()

    def tick(self) -> None:
        """Wake slots whose wait is over, and judge trials; a state that could not be saved is tried again."""
        now = self._rhythm.monotonic()
        if self.state.starts and now - self._began >= crash_loop.SETTLED_S:
            self.state = crash_loop.settled(self.state)
            self._save(self.state)
        elif self._unsaved:
            self._save(self.state)
        for name, scratch in list(self._scratch.items()):
            if scratch.due_at is not None and scratch.due_at <= now:
                scratch.due_at = None
                again, scratch.again = scratch.again, None
                if again is not None:
                    self._queue.append((name, again))
                elif (self.state.slots[name].state, Due) in TRANSITIONS:
                    self.handle(name, Due())
        for name in list(self.state.slots):
            self._measure(name)
            verdict = self._watch.verdict(self.state.slots[name])
            if verdict is not None:
                self.handle(name, verdict)

    def _advance_shadows(self) -> None:
        """Bring shadows on while no slot is in an update."""
        if any(slot.state is not SlotState.IDLE for slot in self.state.slots.values()):
            return
        for name, slot in sorted(self.state.slots.items()):
            try:
                self._shadows.advance(name, slot, partial(self._save_shadow, name))
            except Exception:  # noqa: BLE001 - an error of ours must not keep the updates from going on
                _log.exception("slot %s: its shadow failed", name)
            if self._cancelled():
                return

    def _save_shadow(self, name: str, wish: ShadowWish) -> bool:
        before = self.state
        self.state = before.with_slot(name, replace(before.slots[name], shadow=wish))
        if self._save(self.state):
            return True
        self.state = before
        return False

    def idle_s(self) -> float | None:
        """Return the seconds until a wait is over; none: nothing waits."""
        if self._queue:
            return 0.0
        now = self._rhythm.monotonic()
        waits = [scratch.due_at - now for scratch in self._scratch.values() if scratch.due_at is not None]
        return max(min(waits), 0.0) if waits else None

    def _measure(self, name: str) -> None:
        measured = self._watch.measure(name, self.state.slots[name])
        if measured is not None:
            self.handle(name, measured)

    def _apply(self, name: str, event: SlotEvent) -> None:
        slot, effects = step(self.state.slots.get(name, Slot()), event, self._rhythm.clock())
        self.state = self.state.with_slot(name, slot)
        self._queue.extend((name, effect) for effect in effects)
        self._sweep_due = self._sweep_due or slot.state not in _RESTING

    def _save(self, state: DeviceState) -> bool:
        """Save and return whether that worked; the next save may succeed where this one failed."""
        try:
            self._around.state_file.save(state)
        except OSError as error:
            if str(error) != self._unsaved:
                _log.error("the state can't be saved, a restart now would go back to the last saved one: %s", error)
            self._unsaved = str(error)
            return False
        if self._unsaved:
            _log.warning("the state can be saved again")
            self._unsaved = ""
        return True

    def _held_up(self, name: str) -> None:
        """A step that leads on could not be saved: wait and do it again; a trial that could end simply goes on."""
        slot = self.state.slots[name]
        self._at(name).loaded = None
        fault = Postponed("state_unsaved", f"the state can't be saved: {self._unsaved}")
        if (slot.state, Postponed) in TRANSITIONS:
            self.handle(name, fault)
        elif name not in self._troubles:
            self._trouble(name, fault)
            self._changed()

    def _avoid_trials(self) -> None:
        """A start on trial that can't be counted could be one of endlessly many: prefer a proven model."""
        for name, slot in sorted(self.state.slots.items()):
            if slot.trial is not None and any(d not in {None, slot.active} for d in (slot.previous, slot.fallback)):
                self._apply(name, Failed("state_unsaved", f"its start could not be counted: {self._unsaved}"))

    def _is_current(self, name: str, effect: SlotEffect) -> bool:
        """Tell whether an effect still belongs to the slot's state; a newer assignment makes others obsolete.

        Only the digest counts: the same bundle wanted under another name or attempt queues no second effect.
        """
        slot = self.state.slots[name]
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

    def _carry_out(self, name: str, effect: SlotEffect) -> None:
        try:
            self._dispatch(name, effect)
        except CancelledError as error:
            _log.info("slot %s: %s", name, error)
            if isinstance(effect, SelfTest):
                self.handle(name, Postponed(error.code, error.message))
            self._at(name).due_at = self._rhythm.monotonic()
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
                self.handle(name, Begun())
            case SelfTest(digest):
                self._room.make(name)
                self.handle(name, work.test(digest, cancelled=cancelled))
            case Load(digest):
                self._load(name, digest)
            case Install(wanted):
                self._install(name, wanted)
            case Record():
                self._record(name, effect)
            case Wait():
                self._at(name).due_at = self._rhythm.monotonic() + self._rhythm.delay_s(effect)

    def _answer_again(self) -> None:
        """Let a model that made room answer again, once nothing is queued that needs the room."""
        room = SelfTest | Load | Install
        needed = {name for name, one in self._queue if isinstance(one, room) and self._is_current(name, one)}
        self._queue.extend((name, Install(self.state.slots[name].active)) for name in self._room.owed(needed))

    def _load(self, name: str, digest: str) -> None:
        self._room.make(name)
        try:
            self._at(name).loaded = self._around.host.load(digest)
        except DigestMismatchError as error:
            self._put_away(name, Load(digest), error)
        except ShoalError as error:
            self.handle(name, Refused(error.code, error.message))
        except MemoryError:
            self.handle(
                name, Refused("over_budget", "there is not enough memory to load the model beside the active one")
            )
        else:
            self.handle(name, Loaded(starts=self._rhythm.rules.starts))

    def _install(self, name: str, digest: str | None) -> None:
        """Let a bundle answer; one that can't is damaged or failed, and the slot goes on to the next that may work."""
        scratch = self._at(name)
        model, scratch.loaded = scratch.loaded, None
        if digest is None:
            self._around.host.remove(name)
        else:
            try:
                if model is None or model.digest != digest:
                    self._room.make(name)
                    model = self._around.host.load(digest)
                self._around.host.install(name, model)
            except (DigestMismatchError, OSError) as error:
                if isinstance(error, OSError) and not tells_of_damage(error):
                    raise  # no descriptor or no memory just now: the same again later
                self._put_away(name, Install(digest), error)
                return
            except (ShoalError, MemoryError) as error:
                code = error.code if isinstance(error, ShoalError) else "over_budget"
                self.handle(name, Failed(code, str(error)))
                return
        scratch.again, scratch.failures = None, 0
        self._room.filled(name)
        self._watch.began(name)
        if self.state.slots[name].state is SlotState.ROLLING_BACK:
            self.handle(name, Installed())
        self._changed()

    def _do_again(self, name: str, effect: SlotEffect, fault: Postponed) -> None:
        """Do something again after a wait: by the table where it knows of one, else just so."""
        if (self.state.slots[name].state, Postponed) in TRANSITIONS and not isinstance(effect, Install):
            self.handle(name, fault)
            return
        scratch = self._at(name)
        scratch.failures, scratch.again = scratch.failures + 1, effect
        scratch.due_at = self._rhythm.monotonic() + self._rhythm.delay_s(Wait(scratch.failures))
        self._trouble(name, fault)
        self._changed()

    def _put_away(self, name: str, effect: Load | Install, error: Exception) -> None:
        """Put damaged files of a bundle away, so that they count as missing and are fetched again.

        Where a second look finds nothing wrong it is loaded again, a few times.
        """
        digest = str(effect.digest)
        _log.error("slot %s: the files of %s look damaged: %s", name, digest, error)
        if self._around.store.intact(digest) and self._at(name).failures < MAX_LOOKS:
            self._do_again(name, effect, Postponed("disk", f"its files could not be read: {error}"))
        else:
            self.handle(name, Damaged(digest))

    def _start_active(self, name: str) -> None:
        """At a start: let the active model answer before anything that may need the network."""
        if not any(at == name and isinstance(effect, Install) for at, effect in self._queue):
            self._queue.append((name, Install(self.state.slots[name].active)))
        while (entry := next((e for e in self._queue if e[0] == name and isinstance(e[1], Install)), None)) is not None:
            self._queue.remove(entry)
            if self._is_current(*entry):
                self._carry_out(*entry)

    def _record(self, name: str, record: Record) -> None:
        slot = self.state.slots[name]
        key = f"{name}/{record.kind}/{record.digest}/{int(slot.since * 1000)}"
        try:
            self._around.spool.append(Up.EVENT, self._around.messages.outcome(name, record), key=key)
        except SpoolError as error:
            _log.error("slot %s: the outcome %r could not be spooled: %s", name, record.kind, error)
        if slot.state in _ENDED and slot.state.value == record.kind:
            self.handle(name, Recorded())

    def _tell_revoked(self, name: str, digest: str, why: str) -> None:
        _log.warning("slot %s: the running bundle %s is revoked: %s", name, digest, why)
        event = self._around.messages.event("revoked", slot=name, digest=digest, data={"message": why[:500]})
        try:
            self._around.spool.append(Up.EVENT, event, key=f"revoked/{name}/{digest}/{self.state.generation}")
        except SpoolError as error:
            _log.error("slot %s: the revocation could not be spooled: %s", name, error)

    def _at(self, name: str) -> _Scratch:
        return self._scratch.setdefault(name, _Scratch())

    def _progressed(self, name: str, share: float) -> None:
        self._at(name).progress = share
        self._changed()

    def _trouble(self, name: str, event: Postponed) -> None:
        slot = self.state.slots[name]
        digest = (slot.target.digest if slot.target else None) or ""
        _log.info("slot %s waits: %s", name, event.message)
        self._troubles[name] = SlotFault(event.code, event.message, digest)

    def _collect_garbage(self) -> None:
        """Delete what no slot needs, when nothing is under way and a restart would not go back to what needed it."""
        if self._unsaved or any(slot.state not in _RESTING for slot in self.state.slots.values()):
            return
        if not self._sweep_due or self._shadows.is_fetching:
            return
        self._around.work.forget()
        try:
            self._around.store.sweep(self.state.keeps())
            self._sweep_due = False
        except OSError as error:
            _log.warning("old bundles could not be deleted: %s", error)
