"""Choosing rows of an active model's calls to be looked at by people: at random, unsure ones, unusual ones.

Runs on the answering thread, only while sampling is permitted. Leaves the permission and the sending to
`shoal_agent.updating.sampling`. Of the permitted share half goes to random rows, each row with the same chance whatever
it holds; the other half to rows that are notable: an input outside the range of the training data, or two classes
almost as likely. At a share of 1 every row is taken.

Invariants: no more rows and bytes are kept than a `Budget` allows; what finds no room is counted; an answer never fails
or waits through it.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.ports import Clock
from shoal_agent.runtime.model import LoadedModel
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema
from shoal_protocol.samples import MAX_ROW_BYTES, Reason, SampledRow

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

UNSURE_MARGIN = 0.2
"""Two classes whose probabilities differ by less are almost as likely."""

_MAX_ELEMENTS = 4096
_LOOKED_AT = 256
_SAVED_UP = 16.0
_log = logging.getLogger(__name__)


class Budget(msgspec.Struct, frozen=True):
    """How much is kept between two calls of `Sampler.take`, or in one window, whichever comes first.

    Attributes:
        rows: At most.
        size_bytes: At most, as encoded.
    """

    rows: int = 512
    size_bytes: int = 1 << 20


class Taken(msgspec.Struct, frozen=True):
    """What was kept since the last time.

    Attributes:
        rows: Encoded `SampledRow`s.
        seen: Rows that were answered.
        dropped: Rows that were chosen, but found no room.
    """

    rows: tuple[bytes, ...]
    seen: int
    dropped: int


class Sampler:
    """Samples the calls of one active model, from `start` to `stop`.

    Args:
        active: Whose calls.
        share: Of the rows, above 0, up to 1.
        clock: Seconds UTC.
        budget: Of one window.
        chance: Draws.
    """

    def __init__(
        self, active: LoadedModel, *, share: float, clock: Clock, budget: Budget, chance: random.Random | None = None
    ) -> None:
        self.digest = active.digest
        self.share = share
        self._active = weakref.ref(active)  # a swap waits until nobody holds the old model
        self._schema = active.schema
        self._ranges = _ranges(active.schema)
        probabilities = active.schema.output("probabilities")
        self._probabilities = None if probabilities is None else probabilities.name
        is_notable = bool(self._ranges) or self._probabilities is not None
        self._random_share = max(share / 2, 2 * share - 1) if is_notable else share
        self._clock = clock
        self._budget = budget
        self._chance = chance or random.Random()  # noqa: S311  (a sample of rows is no secret)
        self._lock = threading.Lock()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._seen = self._dropped = 0
        self._window_rows = self._window_bytes = 0
        self._credit = 0.0

    def start(self) -> None:
        """Begin to see calls."""
        active = self._active()
        if active is not None:
            active.follow(self)

    def stop(self) -> None:
        """See no more calls, and forget what was kept."""
        active = self._active()
        if active is not None:
            active.unfollow(self)
        with self._lock:
            self._kept.clear()

    def is_of(self, model: LoadedModel) -> bool:
        """Tell whether it samples this model's calls."""
        return self._active() is model

    def take(self) -> Taken:
        """Return what was kept, and keep it no longer."""
        with self._lock:
            taken = Taken(tuple(self._kept), self._seen, self._dropped)
            self._kept.clear()
            self._kept_bytes = self._seen = self._dropped = 0
        return taken

    def begin_window(self) -> None:
        """Give the budget of a new window."""
        with self._lock:
            self._window_rows = self._window_bytes = 0

    def answered(self, feeds: Tensors, outputs: Tensors, elapsed_ns: int) -> None:  # noqa: ARG002 - as a follower
        """Take what is worth it of one answered call; called on the answering thread."""
        try:
            self._look(feeds, outputs)
        except Exception:  # noqa: BLE001  (sampling must not cost an answer)
            _log.exception("a call could not be sampled")

    def _look(self, feeds: Tensors, outputs: Tensors) -> None:
        rows = len(next(iter(feeds.values())))
        picked: dict[int, Reason] = dict.fromkeys(self._random_rows(rows), "random")
        with self._lock:
            self._seen += rows
            self._credit = min(self._credit + rows * (self.share - self._random_share), _SAVED_UP)
            allowed = int(self._credit)
        if allowed:
            notable = [(at, why) for at, why in self._notable(feeds, outputs) if at not in picked][:allowed]
            picked.update(notable)
            with self._lock:
                self._credit -= len(notable)
        for at, reason in picked.items():
            self._keep(at, reason, feeds, outputs)

    def _random_rows(self, rows: int) -> list[int]:
        chance, share = self._chance.random, self._random_share
        if rows == 1:
            return [0] if chance() < share else []
        count = int(np.random.default_rng(self._chance.getrandbits(64)).binomial(rows, share))
        return self._chance.sample(range(rows), count)

    def _notable(self, feeds: Tensors, outputs: Tensors) -> list[tuple[int, Reason]]:
        found: dict[int, Reason] = {}
        said = outputs.get(self._probabilities or "")
        if said is not None and said.ndim == 2 and said.shape[1] > 1:
            best = np.partition(said[:_LOOKED_AT], -2, axis=1)[:, -2:]
            found.update(
                dict.fromkeys(np.nonzero(best[:, 1] - best[:, 0] < UNSURE_MARGIN)[0].tolist(), "low_confidence")
            )
        for name, (low, high) in self._ranges.items():
            values = feeds[name][:_LOOKED_AT].reshape(-1, len(low))
            outside = ((values < low) | (values > high)).any(axis=1)
            found.update(dict.fromkeys(np.nonzero(outside)[0].tolist(), "out_of_range"))
        return sorted(found.items())

    def _keep(self, at: int, reason: Reason, feeds: Tensors, outputs: Tensors) -> None:
        raw = self._encoded(at, reason, feeds, outputs)
        with self._lock:
            if raw is None or self._is_over(len(raw)):
                self._dropped += 1
                return
            self._kept.append(raw)
            self._kept_bytes += len(raw)
            self._window_rows += 1
            self._window_bytes += len(raw)

    def _is_over(self, size: int) -> bool:
        """Tell whether one more row has no room; what was not taken for long counts as much as what a window brings."""
        rows = max(self._window_rows, len(self._kept))
        return rows >= self._budget.rows or max(self._window_bytes, self._kept_bytes) + size > self._budget.size_bytes

    def _encoded(self, at: int, reason: Reason, feeds: Tensors, outputs: Tensors) -> bytes | None:
        """Return the row; none where it is too large."""
        if sum(array[:1].size for array in (*feeds.values(), *outputs.values())) > _MAX_ELEMENTS:
            return None
        row = SampledRow(
            at=int(self._clock() * 1000),
            reason=reason,
            inputs={field.name: _value(feeds[field.tensor], at, field.column) for field in self._schema.inputs},
            outputs={name: _value(array, at, None) for name, array in outputs.items() if len(array) > at},
        )
        raw = msgspec.json.encode(row)
        return raw if len(raw) <= MAX_ROW_BYTES else None


def _value(array: Array, at: int, column: int | None) -> Any:
    row = array[at]
    if column is not None:
        return row.reshape(-1)[column].item() if row.dtype != object else row.reshape(-1)[column]
    value = row.tolist() if isinstance(row, (np.ndarray, np.generic)) else row
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _ranges(schema: ModelSchema) -> dict[str, tuple[Array, Array]]:
    """Return the lowest and highest value of each column, by tensor; tensors without any known range are left out."""
    found = {}
    for tensor in schema.tensors:
        fields = [one for one in schema.inputs if one.tensor == tensor.name and _has_range(one)]
        width = int(np.prod([size or 0 for size in tensor.shape[1:]])) if len(tensor.shape) > 1 else 1
        if tensor.dtype in {"string", "bool"} or not fields or not width:
            continue
        low, high = np.full(width, -np.inf), np.full(width, np.inf)
        for one in fields:
            at: Sequence[int] | slice = slice(None) if one.column is None else [one.column]
            low[at] = -np.inf if one.low is None else one.low
            high[at] = np.inf if one.high is None else one.high
        found[tensor.name] = (low, high)
    return found


def _has_range(field: FieldSpec) -> bool:
    return field.low is not None or field.high is not None
