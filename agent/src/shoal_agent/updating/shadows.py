"""Shadows of slots: brought in like any bundle, then run beside the active model; the active one is never touched.

A light transaction of its own: check, fetch, self-test, load, run. It works only while no slot is in an update, and
gives up at every chance for newer wishes. What is wanted is the slot's (`Slot.shadow`); what became of it is known only
while the process lives, except for the count of starts: a shadow that may have ended the agent three times in a row is
given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.slot import (
    MEMORY_SHORT,
    Cleared,
    Deferred,
    Fetched,
    Passed,
    Postponed,
    Refused,
    ShadowWish,
    Slot,
    SlotEvent,
    Target,
)
from shoal_agent.errors import CancelledError
from shoal_agent.ports import Cancelled, Clock
from shoal_agent.updating.bundle_names import shown
from shoal_protocol.errors import LocalError, ShoalError
from shoal_protocol.mqtt.messages import Fault, ShadowReport

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel
    from shoal_agent.runtime.shadow import Shadow

MAX_STARTS = 3
STEADY_S = 600.0
"""After so long beside the active model a shadow is no longer suspected of ending the agent."""

HANG_S = 60.0
"""A call of a shadow that is under way for longer will not end."""

_log = logging.getLogger(__name__)


class ShadowWork(Protocol):
    """The steps of an update, which a shadow takes too."""

    def check(self, target: Target, *, cancelled: Cancelled) -> SlotEvent:
        """Check trust and fit."""

    def fetch(self, target: Target, *, progress: Callable[[float], None], cancelled: Cancelled) -> SlotEvent:
        """Fetch what is missing."""

    def test(self, digest: str, *, cancelled: Cancelled) -> SlotEvent:
        """Run the self-test in a child process."""


class ShadowHost(Protocol):
    """Loads models, and knows which ones answer."""

    def load(self, digest: str) -> LoadedModel:
        """Load a stored bundle."""

    @property
    def holds_one(self) -> bool:
        """Whether this device can't hold two models."""

    def active(self, slot: str) -> LoadedModel | None:
        """Return the model that answers."""

    def beside(self, active: LoadedModel, shadow: LoadedModel) -> Shadow:
        """Put a shadow beside a model, not started yet."""

    def release(self) -> None:
        """Hand the memory of a dropped model back."""


class _Place(msgspec.Struct):
    """What became of one slot's wish."""

    digest: str
    attempt: int
    model: LoadedModel | None = None
    shadow: Shadow | None = None
    fault: Fault | None = None
    trouble: Fault | None = None
    tries: int = 0
    due_at: float = 0.0
    since: float = 0.0

    def report(self) -> ShadowReport:
        state = "failed" if self.fault else "running" if self.shadow else "waiting"
        return ShadowReport(digest=self.digest, state=state, error=self.fault or self.trouble)


class Shadows:
    """The shadows of one device; used by the updating thread.

    Args:
        host: Loads models.
        work: The steps.
        monotonic: Seconds for durations.
        chance: Uniform draws from [0, 1).
        backoff: Of steps that failed for now.
        cancelled: Tells that something newer waits.
        changed: Called after every change worth reporting.
    """

    def __init__(
        self,
        host: ShadowHost,
        work: ShadowWork,
        *,
        monotonic: Clock,
        chance: Callable[[], float],
        backoff: Backoff,
        cancelled: Cancelled,
        changed: Callable[[], None],
    ) -> None:
        self._host = host
        self._work = work
        self._monotonic = monotonic
        self._chance = chance
        self._backoff = backoff
        self._cancelled = cancelled
        self._changed = changed
        self._places: dict[str, _Place] = {}

    def reports(self) -> dict[str, ShadowReport]:
        """Return what became of the shadows, by slot."""
        return {name: place.report() for name, place in list(self._places.items())}

    @property
    def is_fetching(self) -> bool:
        """Whether files of a shadow may be on their way, so that none must be deleted now."""
        return any(place.model is None and place.fault is None for place in self._places.values())

    def advance(self, name: str, slot: Slot, save: Callable[[ShadowWish], bool]) -> None:
        """Bring one slot's shadow on as far as it goes now.

        Args:
            name: Of the slot.
            slot: As it is.
            save: Persists the wish with another count of starts; returns whether that worked.
        """
        active, wish = self._host.active(name), slot.shadow
        if active is None or wish is None or wish.digest == active.digest:
            self.end(name)
            return
        place = self._places.get(name)
        if place is None or (place.digest, place.attempt) != (wish.digest, wish.attempt):
            self.end(name)
            place = self._places[name] = _Place(wish.digest, wish.attempt)
            self._changed()
        if place.fault is None and place.model is None and self._monotonic() >= place.due_at:
            self._bring(place, wish, save)
        if place.fault is None and place.model is not None:
            self._put_beside(name, place, active)
            self._end_hanging(place)
            if wish.starts and place.shadow and self._monotonic() - place.since >= STEADY_S:
                save(replace(wish, starts=0))

    def end(self, name: str) -> None:
        """End a slot's shadow and drop its model."""
        place = self._places.pop(name, None)
        if place is None:
            return
        if place.shadow is not None:
            place.shadow.stop()
        had_model, place.model, place.shadow = place.model is not None, None, None
        if had_model:
            self._host.release()
        self._changed()

    def stop(self) -> None:
        """End all shadows, as at the end of the agent."""
        for name in list(self._places):
            self.end(name)

    def _bring(self, place: _Place, wish: ShadowWish, save: Callable[[ShadowWish], bool]) -> None:
        if self._host.holds_one:
            self._fail(place, "one_model", "this device holds one model at a time (activation.mode = stop-then-load)")
            return
        if wish.starts >= MAX_STARTS:
            self._fail(place, "shadow_crashes", f"the agent ended {wish.starts} times in a row while it ran")
            return
        try:
            if self._is_ready(place):
                if save(replace(wish, starts=wish.starts + 1)):
                    place.model = self._host.load(place.digest)
                    place.trouble = None
                else:
                    self._postpone(place, "state_unsaved", "the state can't be saved")
        except CancelledError:
            place.due_at = self._monotonic()
        except (LocalError, OSError) as error:
            self._postpone(place, getattr(error, "code", "disk"), str(error))
        except ShoalError as error:
            self._fail(place, error.code, error.message)
        except MemoryError:
            self._postpone(place, MEMORY_SHORT, "there is not enough memory now for it beside the active model")

    def _is_ready(self, place: _Place) -> bool:
        """Take the steps up to the self-test; return whether it passed them all."""
        target, cancelled = Target(place.digest), self._cancelled
        steps: Mapping[type, Callable[[], SlotEvent]] = {
            Cleared: lambda: self._work.check(target, cancelled=cancelled),
            Fetched: lambda: self._work.fetch(target, progress=lambda _share: None, cancelled=cancelled),
            Passed: lambda: self._work.test(place.digest, cancelled=cancelled),
        }
        for passed, step in steps.items():
            match step():
                case Refused(code, message):
                    self._fail(place, code, message)
                    return False
                case Postponed(code, message) | Deferred(code, message):
                    self._postpone(place, code, message)
                    return False
                case event if not isinstance(event, passed):  # damaged files, which are put away and fetched again
                    self._postpone(place, "damaged", "its stored files were damaged and are fetched again")
                    return False
        return True

    def _put_beside(self, name: str, place: _Place, active: LoadedModel) -> None:
        """Let it see the inputs of the model that answers now; after a swap that is another one."""
        if place.shadow is not None and place.shadow.is_beside(active):
            return
        if place.shadow is not None:
            place.shadow.stop()
            place.shadow = None
        assert place.model is not None
        try:
            shadow = self._host.beside(active, place.model)
        except ShoalError as error:
            place.model = None
            self._host.release()
            self._fail(place, "shadow_inputs", error.message)
            return
        shadow.start()
        place.shadow, place.since = shadow, self._monotonic()
        names = [shown(one.digest, f"{one.name}:{one.version}") for one in (place.model, active)]
        _log.info("slot %s: %s runs as a shadow of %s", name, *names)
        self._changed()

    def _end_hanging(self, place: _Place) -> None:
        """Give a shadow up whose call does not end: it would take a processor for good."""
        if place.shadow is None or (running_s := place.shadow.running_s()) <= HANG_S:
            return
        self._fail(place, "shadow_hang", f"a call has been under way for {running_s:.0f} s; it was cut off")
        place.shadow.cut_off()
        place.model = place.shadow = None
        self._host.release()

    def _fail(self, place: _Place, code: str, message: str) -> None:
        name = None if place.model is None else f"{place.model.name}:{place.model.version}"
        _log.warning("the shadow %s is given up: %s", shown(place.digest, name), message)
        place.fault, place.trouble = Fault(code=code, message=message[:500], digest=place.digest), None
        self._changed()

    def _postpone(self, place: _Place, code: str, message: str) -> None:
        place.tries += 1
        place.due_at = self._monotonic() + self._backoff.delay_s(place.tries, self._chance())
        place.trouble = Fault(code=code, message=message[:500], digest=place.digest)
        self._changed()
