"""Which model answers in which slot, swapped while predictions run.

A swap is one assignment: a prediction reads its slot's model once and answers from that one alone. The old model is
kept until the calls in flight have ended, then dropped, and its memory handed back, by the thread that swapped.

Invariants: no prediction is dropped, or answered by halves of two models; an observer's rows are counted although its
model is gone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import msgspec

from shoal_agent.errors import NoModelError
from shoal_agent.runtime.memory import release_free_memory
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.observer import Observer
from shoal_agent.runtime.prediction import Prediction
from shoal_protocol.bundle.layout import MODEL_ONNX

_LOOKS_EVERY_S = 0.05


class Observed(msgspec.Struct, frozen=True):
    """A model's observer, whether the model is active or on its way out.

    Attributes:
        slot: Where it answers or answered.
        name: The bundle's.
        version: The bundle's.
        digest: The bundle's.
        observer: What it saw.
        is_active: Whether it answers now.
        is_gone: Whether no call can be answered by it any more: the window that is closed next is its last.
        variant: Path of the form of the model that answers; empty: the canonical one.
    """

    slot: str
    name: str
    version: str
    digest: str
    observer: Observer
    is_active: bool
    is_gone: bool = False
    variant: str = ""


class SlotHandle:
    """Answers from whatever model is active in a slot at the moment of the call."""

    __slots__ = ("_cell", "_names", "slot")

    def __init__(self, slot: str, cell: _Cell, names: Callable[[], tuple[str, ...]]) -> None:
        self.slot = slot
        self._cell = cell
        self._names = names

    def predict(self, inputs: Mapping[str, Any]) -> Prediction:
        """Answer; as `LoadedModel.predict`.

        Raises:
            NoModelError: The slot has no model.
        """
        return self._active().predict(inputs)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> Prediction:
        """Answer rows of plain values; as `LoadedModel.predict_rows`.

        Raises:
            NoModelError: The slot has no model.
        """
        return self._active().predict_rows(rows)

    def wait(self, timeout_s: float) -> None:
        """Wait until the slot has a model: on a new device until its first rollout has arrived.

        Args:
            timeout_s: For how long at most, seconds; 0 only looks.

        Raises:
            NoModelError: It has none by then.
        """
        deadline = monotonic() + timeout_s
        while self._cell.model is None and monotonic() < deadline:
            sleep(_LOOKS_EVERY_S)
        self._active()

    def __repr__(self) -> str:
        """Say what answers now."""
        model = self._cell.model
        return f"<slot {self.slot}: {'no model' if model is None else f'{model.name}:{model.version}'}>"

    def _active(self) -> LoadedModel:
        model = self._cell.model
        if model is None:
            wait = "wait for its first rollout: model.wait(60); `shoal-agent status` tells what it is at"
            others = ", ".join(repr(name) for name in sorted(self._names()))
            raise NoModelError(
                f"slot {self.slot!r} has no model" + (f"; the slots that have one: {others}" if others else ""),
                hint=f"is one of those meant? else {wait}" if others else wait,
                slot=self.slot,
            )
        return model


class SlotTable:
    """The device's slots.

    Args:
        drain_s: How long a swap waits for calls in flight; what lasts longer is dropped at a later look.
        release: Hands free memory back to the system.
    """

    def __init__(self, *, drain_s: float = 5.0, release: Callable[[], None] = release_free_memory) -> None:
        self._cells: dict[str, _Cell] = {}
        self._leaving: list[_Leaving] = []
        self._lock = threading.Lock()
        self._drain_s = drain_s
        self._release = release

    def install(self, slot: str, model: LoadedModel) -> None:
        """Make a model answer in a slot, from the next prediction on."""
        self._exchange(slot, model)

    def exchange(self, slot: str, before: LoadedModel, after: LoadedModel) -> bool:
        """Let a model answer in the place of another, if that still answers; returns whether it did."""
        return self._exchange(slot, after, before=before)

    def remove(self, slot: str) -> None:
        """Leave a slot without a model (also the first half of stop-then-load)."""
        if slot in self._cells:
            self._exchange(slot, None)

    def get(self, slot: str) -> LoadedModel | None:
        """Return the active model; who keeps it keeps its memory."""
        cell = self._cells.get(slot)
        return None if cell is None else cell.model

    def names(self) -> tuple[str, ...]:
        """Return the slots that have a model."""
        return tuple(slot for slot, cell in list(self._cells.items()) if cell.model is not None)

    def model(self, slot: str) -> SlotHandle:
        """Return a handle that stays valid over swaps; the slot need not have a model yet."""
        with self._lock:
            return SlotHandle(slot, self._cells.setdefault(slot, _Cell()), self.names)

    def observed(self) -> list[Observed]:
        """Return the observers of active models, then of those on their way out."""
        active = [
            _observed(slot, model, is_active=True)
            for slot, cell in list(self._cells.items())
            if (model := cell.model) is not None
        ]
        self._sweep()
        with self._lock:
            return active + [leaving.seen() for leaving in self._leaving]

    def cut_off_replaced(self, longest_s: float) -> float:
        """End calls of replaced models that take too long; return for how long the oldest of all theirs is under way.

        Args:
            longest_s: Seconds that a call may take.
        """
        with self._lock:
            leaving = list(self._leaving)
        return max((one.cut_off(longest_s) for one in leaving), default=0.0)

    def forget(self, observed: Observed) -> None:
        """Drop the observer of a model that was gone when it was asked for, after its last window was closed.

        One that still answered then stays, even if it is gone by now: it may have counted rows since its window closed.
        """
        if observed.is_gone:
            with self._lock:
                self._leaving = [one for one in self._leaving if one.observer is not observed.observer]

    def _exchange(self, slot: str, model: LoadedModel | None, *, before: LoadedModel | None = None) -> bool:
        with self._lock:
            cell = self._cells.setdefault(slot, _Cell())
            if before is not None and cell.model is not before:
                return False
            old, cell.model = cell.model, model
            if old is None or old is model:
                return True
            leaving = _Leaving(slot, old)
            self._leaving.append(leaving)
        del old
        if before is None:  # else the session answers on
            leaving.gone.wait(self._drain_s)
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Drop the sessions of models that nobody uses any more."""
        with self._lock:
            ready = [one for one in self._leaving if one.gone.is_set() and not one.is_released]
            for one in ready:
                one.release()
        if ready:
            self._release()


class _Cell:
    """One slot's one reference; reading and writing it is atomic."""

    __slots__ = ("model",)

    def __init__(self) -> None:
        self.model: LoadedModel | None = None


def _observed(slot: str, model: LoadedModel, *, is_active: bool) -> Observed:
    form = model.engine.form
    return Observed(
        slot,
        model.name,
        model.version,
        model.digest,
        model.observer,
        is_active,
        variant="" if form == MODEL_ONNX else form,
    )


class _Leaving:
    """A replaced model: its session is kept here, so that it is freed by the swapping thread, not an answering one."""

    def __init__(self, slot: str, model: LoadedModel) -> None:
        self._observed = _observed(slot, model, is_active=False)
        self.observer = model.observer
        self.gone = threading.Event()
        self._engine: object | None = model.engine
        gone = self.gone
        self._watch = weakref.ref(model, lambda _: gone.set())

    @property
    def is_released(self) -> bool:
        """Whether the session was dropped."""
        return self._engine is None

    def seen(self) -> Observed:
        """Return its observer, and whether the next window is the last: a shadow beside it may end later than it."""
        return msgspec.structs.replace(self._observed, is_gone=self.is_released and not self.observer.is_watching)

    def cut_off(self, longest_s: float) -> float:
        """End its calls once one takes too long; return for how long the oldest is under way, seconds."""
        model = self._watch()
        if model is None:
            return 0.0
        running_s = model.running_s()
        if running_s > longest_s:
            model.engine.cut_off()
        return running_s

    def release(self) -> None:
        """Drop the session."""
        self._engine = None
