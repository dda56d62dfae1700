"""Looking at the first rows of a model that came without data, so that the server can fix what is counted of it.

A learner sees answered calls as samplers do: it keeps a systematic sample of rows in memory, at most `MOST_ROWS`, until
it has seen enough over long enough. Of images and other wide tensors it keeps digests only, at a pace that spares the
answering thread. What leaves the device are the sketches of `shoal_protocol.profile.sketch`.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.observer import WHOLE_SHARE
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.profile.sketch import (
    LEAST_ROWS,
    Sketches,
    first_columns,
    is_counted_by_largest,
    sketches_of,
    wide_tensors,
)
from shoal_protocol.profile.streams import MOST_COLUMNS
from shoal_protocol.profile.wide import FirstDigests

Array = npt.NDArray[Any]

MOST_ROWS = 2048
_MOST_BYTES = 8 * 1024 * 1024
_MOST_DIGESTED = 16
"""Rows of one call whose wide tensors are looked at."""

_PATIENCE, _MOST_PATIENCE_S = 3, 3600.0
"""So many times the least time, and no longer, digests of wide tensors are waited for after it."""

_log = logging.getLogger(__name__)


class Learner:
    """Keeps a sample of one model's first rows.

    Args:
        model: Whose calls it sees, from `start` on.
        seconds: For so long it looks at least, so that what it sees is more than one moment.
        monotonic: Seconds.
    """

    def __init__(self, model: LoadedModel, *, seconds: float, monotonic: Callable[[], float]) -> None:
        self._model = weakref.ref(model)  # a swap waits until nobody holds the old model
        self._schema = model.schema
        self._plain = _Sample(_wanted(model.schema))
        shapes = wide_tensors(model.schema)
        self._digests = {first_columns(name): FirstDigests(shape) for name, shape in shapes.items()}
        self._wide = _Sample(frozenset(self._digests))
        self._tensors = {first_columns(name): name for name in shapes}
        self._monotonic = monotonic
        self._until = monotonic() + seconds
        self._patience = self._until + min(_PATIENCE * seconds, _MOST_PATIENCE_S)
        self._look_again = 0.0
        self._lock = threading.Lock()

    @property
    def is_done(self) -> bool:
        """Whether it has seen enough, or has nothing to look at; for wide tensors it has some patience."""
        now, rows = self._monotonic(), [sample.rows for sample in (self._plain, self._wide) if sample.names]
        if not rows or now < self._until:
            return not rows
        return (min(rows) if now < self._patience else max(rows)) >= LEAST_ROWS

    def is_of(self, model: LoadedModel) -> bool:
        """Tell whether it looks at this model's calls."""
        return self._model() is model

    def start(self) -> None:
        """Begin to see calls."""
        model = self._model()
        if model is not None:
            model.follow(self)

    def stop(self) -> None:
        """See no more calls, and forget what was kept."""
        model = self._model()
        if model is not None:
            model.unfollow(self)
        with self._lock:
            self._plain, self._wide = _Sample(self._plain.names), _Sample(self._wide.names)

    def sketches(self) -> Sketches:
        """Return the sketches of what was seen."""
        with self._lock:
            kept = self._plain.whole() | self._wide.whole()
        return sketches_of(self._schema, kept)

    def answered(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], elapsed_ns: int) -> None:  # noqa: ARG002 - as a follower
        """Take some rows of one answered call; called on the answering thread."""
        if not self._lock.acquire(blocking=False):  # another thread's call is looked at
            return
        try:
            tensors = {**feeds, **outputs}
            self._plain.take(tensors)
            if self._digests:
                self._look(tensors)
        except Exception:  # noqa: BLE001  (learning must not cost an answer)
            _log.exception("a call could not be looked at")
        finally:
            self._lock.release()

    def _look(self, tensors: Mapping[str, Array]) -> None:
        """Take digests of some rows, unless the last look was too soon for what a look costs."""
        started = self._monotonic()
        if started < self._look_again:
            return
        digested = {}
        for key, digest in self._digests.items():
            values = tensors.get(self._tensors[key])
            if values is not None and values.ndim > 1:
                digested[key] = digest(values[:: max(1, -(-len(values) // _MOST_DIGESTED))])
        self._wide.take(digested)
        self._look_again = started + (self._monotonic() - started) / WHOLE_SHARE


class _Sample:
    """A systematic sample of rows, thinned when it is too large.

    Args:
        names: Of the arrays that are kept.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.rows = 0
        self._kept: list[dict[str, Array]] = []
        self._bytes = 0
        self._seen = 0
        self._step = 1

    def take(self, arrays: Mapping[str, Array]) -> None:
        """Keep some of these rows."""
        mine = {name: arrays[name] for name in self.names if name in arrays and arrays[name].ndim}
        rows = max((len(array) for array in mine.values()), default=0)
        first = -self._seen % self._step
        self._seen += rows
        if first >= rows:
            return
        picked = {name: array[first :: self._step].copy() for name, array in mine.items() if len(array) == rows}
        self._kept.append(picked)
        self.rows += -(-(rows - first) // self._step)
        self._bytes += _size(picked)
        while self.rows > MOST_ROWS or (self._bytes > _MOST_BYTES and self.rows >= 2 * LEAST_ROWS):
            self._thin()

    def whole(self) -> dict[str, Array]:
        """Return what was kept; an array that some call lacked is left out."""
        names = set.intersection(*(set(one) for one in self._kept)) if self._kept else set()
        return {name: np.concatenate([one[name] for one in self._kept]) for name in names}

    def _thin(self) -> None:
        """Keep every second row, and from now on half as many."""
        self._step *= 2
        halved = {name: array[::2].copy() for name, array in self.whole().items()}
        self._kept = [halved]
        self.rows = max((len(array) for array in halved.values()), default=0)
        self._bytes = _size(halved)


def _wanted(schema: ModelSchema) -> frozenset[str]:
    """Return the tensors of which rows are kept: as wide at each call, and no wider than is told column by column."""
    whole = {field.tensor for field in schema.inputs if field.column is None}
    inputs = {one.name for one in schema.tensors if _is_at_most(one.shape, 1 if one.name in whole else None)}
    outputs = {
        one.name
        for one in schema.outputs
        if _is_at_most(one.shape, None if is_counted_by_largest(one) else MOST_COLUMNS)
    }
    return frozenset(inputs | outputs)


def _size(arrays: Mapping[str, Array]) -> int:
    """Return about how many bytes arrays hold, their texts counted too."""
    texts = [array for array in arrays.values() if array.dtype.kind == "O"]
    return sum(array.nbytes for array in arrays.values()) + sum(
        len(str(t)) for one in texts for t in one.ravel().tolist()
    )


def _is_at_most(shape: tuple[int | None, ...], columns: int | None) -> bool:
    """Tell whether each row has the same number of values, and no more than some; none: any."""
    sizes = [size for size in shape[1:] if size is not None]
    return len(sizes) == len(shape[1:]) and (columns is None or math.prod(sizes) <= columns)
