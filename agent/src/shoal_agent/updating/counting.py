"""What is counted beyond the bundle: brought from the server, put under the model that answers, learnt where missing.

A thread that lives while something is to be done, as that of samples. The document is named by the signed assignment,
kept in the state folder, and applied by exchanging the model for itself with another observer: no update, and never an
error of the slot. A model that came without data has its first rows looked at, and the server is told; again after a
day, should nothing have come of it (the bundle was not assigned when it heard, or it was set up anew).

Invariants: only a document whose digest was signed, and that is for the very bundle that answers, is ever applied; one
that can't be applied is not fetched again while the same is wanted under the same model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shoal_agent.adapters.durable import put
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.device import DeviceState
from shoal_agent.errors import TransportError
from shoal_agent.ports import Clock
from shoal_agent.updating.occasional import OccasionalThread
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, ShoalError

if TYPE_CHECKING:
    from shoal_agent.runtime.learner import Learner
    from shoal_agent.runtime.model import LoadedModel
    from shoal_protocol.profile.counting import Counting as Document

SEEN_EVENT = "first_rows"
"""Kind of the event that carries sketches of a bundle's first rows."""

AGAIN_S = 86_400.0
"""So long after it told of first rows a device tells again where nothing was fixed yet."""

_LOOK_S = 1.0
_log = logging.getLogger(__name__)


class CountingSource(Protocol):
    """HTTP to the server."""

    def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = ...,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and read the whole answer, of at most `limit` bytes."""


class CountingHost(Protocol):
    """The slots."""

    def get(self, slot: str) -> LoadedModel | None:
        """Return the model that answers."""

    def exchange(self, slot: str, before: LoadedModel, after: LoadedModel) -> bool:
        """Let `after` answer if `before` does; returns whether it did."""


class _Place(msgspec.Struct):
    """What became of one slot.

    Attributes:
        wish: The document that is wanted, and the bundle under which; what follows is about it.
        is_hopeless: Whether that document can't be applied, however often it is fetched.
        tries: How often in a row it could not be had.
        due_at: Until then nothing is tried, monotonic seconds.
        fault: Why it is not applied.
        learner: Of the model's first rows.
    """

    wish: tuple[str | None, str] | None = None
    is_hopeless: bool = False
    tries: int = 0
    due_at: float = 0.0
    fault: str = ""
    learner: Learner | None = None

    def turn_to(self, wish: tuple[str | None, str]) -> None:
        """Forget what became of another wish."""
        if self.wish != wish:
            self.wish, self.is_hopeless, self.tries, self.due_at, self.fault = wish, False, 0, 0.0, ""


class Counting:
    """What one device counts beyond its bundles.

    Args:
        folder: Where documents are kept.
        state: Returns the device's state, which holds what is wanted.
        slots: The models that answer.
        source: To the server.
        learner: Makes a learner of a model's first rows; not started.
        tell: Puts an event into the spool: slot, digest, data.
        clock: Seconds since the epoch.
        monotonic: Seconds.
        backoff: Bounds of the wait between tries.
        chance: Returns numbers in [0, 1).
    """

    def __init__(
        self,
        folder: Path,
        *,
        state: Callable[[], DeviceState],
        slots: CountingHost,
        source: CountingSource,
        learner: Callable[[LoadedModel], Learner],
        tell: Callable[[str, str, Mapping[str, Any]], None],
        clock: Clock,
        monotonic: Clock,
        backoff: Backoff,
        chance: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._state = state
        self._slots = slots
        self._source = source
        self._learner = learner
        self._tell = tell
        self._clock = clock
        self._monotonic = monotonic
        self._backoff, self._chance = backoff, chance
        self._places: dict[str, _Place] = {}
        self._thread = OccasionalThread("counting", self.turn, every_s=_LOOK_S)

    def look(self) -> None:
        """See to it that what is wanted now is counted; cheap, called after every change."""
        self._thread.wake(needed=lambda: bool(self._places) or any(self._is_due(name) for name in self._state().slots))

    def stop(self) -> None:
        """End the thread."""
        self._thread.stop()
        for place in self._places.values():
            if place.learner is not None:
                place.learner.stop()

    def reports(self) -> dict[str, dict[str, Any]]:
        """Return what is counted beyond the bundle by slot, for `shoal-agent status`."""
        told = {}
        for name in self._state().slots:
            model, place = self._slots.get(name), self._places.get(name, _Place())
            if model is None:
                continue
            told[name] = {
                "streams": len(model.observer.spec.streams),
                "rules": len(model.counting.rules) if model.counting is not None else 0,
                "learning": place.learner is not None,
                "fault": place.fault or None,
            }
        return told

    def turn(self) -> bool:
        """Do what is due once; returns whether something is left to do."""
        slots = self._state().slots
        for name in [name for name in self._places if name not in slots]:
            self._end(name)
        for name in slots:
            if self._is_due(name):
                self._advance(name, self._places.setdefault(name, _Place()))
            else:
                self._end(name)
        return any(not place.is_hopeless or place.learner is not None for place in self._places.values())

    def _is_due(self, name: str) -> bool:
        """Tell whether a slot's model counts something else than wanted, or has first rows to look at."""
        model = self._slots.get(name)
        if model is None:
            return False
        return self._wanted(name, model) != model.counted_by or self._must_learn(model)

    def _wanted(self, name: str, model: LoadedModel) -> str | None:
        """Return the digest of the document that is wanted under a model; while another is assigned: what it has."""
        slot = self._state().slots[name]
        return slot.counting if slot.target is not None and slot.target.digest == model.digest else model.counted_by

    def _must_learn(self, model: LoadedModel) -> bool:
        return model.is_unlearnt and abs(self._clock() - self._told_at(model.digest)) >= AGAIN_S

    def _advance(self, name: str, place: _Place) -> None:
        model = self._slots.get(name)
        if model is None:
            return
        wanted = self._wanted(name, model)
        place.turn_to((wanted, model.digest))
        if self._monotonic() < place.due_at:
            return
        try:
            if wanted != model.counted_by and not place.is_hopeless:
                model = self._applied(name, place, model, wanted)
            if self._must_learn(model):
                self._learn(name, place, model)
        except (ShoalError, OSError) as error:
            place.tries += 1
            place.due_at = self._monotonic() + self._backoff.delay_s(place.tries, self._chance())
            _note(name, place, error)
            return
        place.tries = 0
        if not place.is_hopeless:
            place.fault = ""

    def _applied(self, name: str, place: _Place, model: LoadedModel, wanted: str | None) -> LoadedModel:
        """Return the model that answers then; the same where what is wanted can't be counted under it."""
        try:
            return self._apply(name, model, wanted)
        except ContentError as error:
            place.is_hopeless = True
            _note(name, place, error)
            return model

    def _apply(self, name: str, model: LoadedModel, digest: str | None) -> LoadedModel:
        document = None if digest is None else self._document(digest)
        if document is not None and document.bundle != model.digest:
            raise ContentError(f"what to count is of the bundle {document.bundle:.20}…, not of the one that answers")
        other = model.counting_also(document, digest)
        if self._slots.exchange(name, model, other):
            _log.info("slot %s: counts by %s", name, digest or "its bundle alone")
            return other
        return self._slots.get(name) or model

    def _document(self, digest: str) -> Document:
        """Return a document, from the state folder or the server.

        Raises:
            ContentError: It is the one that was signed, and of no use here.
            TransportError: The server can't be asked now, refuses, or gives other bytes than those that were signed.
        """
        from shoal_protocol.profile.counting import (  # noqa: PLC0415 - numpy comes with it
            COUNTING_PATH,
            MAX_BYTES,
            parse_counting,
        )

        path = self._folder / f"{digest.removeprefix('sha256:')}.json"
        try:
            return parse_counting(path.read_bytes(), digest=digest)
        except (OSError, ContentError):
            _log.debug("%s is fetched", path.name)
        status, _, raw = self._source.exchange("GET", COUNTING_PATH + digest, limit=MAX_BYTES)
        if status != 200:
            raise TransportError(f"the server answered {status} to what is to be counted")
        if sha256_digest(raw) != digest:
            raise TransportError("the server gave another document about what to count than the one that was signed")
        document = parse_counting(raw, digest=digest)
        self._folder.mkdir(exist_ok=True)
        wanted = {slot.counting for slot in self._state().slots.values()}
        for old in self._folder.glob("*.json"):
            if f"sha256:{old.stem}" not in wanted:
                old.unlink(missing_ok=True)
        put(path, raw)
        return document

    def _learn(self, name: str, place: _Place, model: LoadedModel) -> None:
        """Look at a model's first rows; once they are enough, tell the server and remember that."""
        learner = place.learner
        if learner is not None and not learner.is_of(model):
            learner.stop()
            learner = None
        if learner is None:
            learner = place.learner = self._learner(model)
            learner.start()
        if not learner.is_done:
            return
        self._tell(name, model.digest, {"columns": msgspec.to_builtins(learner.sketches())})
        self._folder.mkdir(exist_ok=True)
        put(self._told_mark(model.digest), str(round(self._clock())).encode())
        learner.stop()
        place.learner = None

    def _told_at(self, digest: str) -> float:
        """Return when the server was told, in seconds since the epoch; minus infinity: never."""
        try:
            return float(self._told_mark(digest).read_bytes() or 0)
        except (OSError, ValueError):
            return -math.inf

    def _told_mark(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.told"

    def _end(self, name: str) -> None:
        place = self._places.pop(name, None)
        if place is not None and place.learner is not None:
            place.learner.stop()


def _note(name: str, place: _Place, error: Exception) -> None:
    message = str(error)
    if message != place.fault:
        _log.warning("slot %s: what is counted stays as it was: %s", name, message)
    place.fault = message
