"""Looking at the first rows of a model that came without data, so that the server can fix what is counted of it.

A learner sees answered calls as samplers do: it keeps a systematic sample of rows in memory, at most `MOST_ROWS`, until
it has seen enough over long enough. What leaves the device are the sketches of `shoal_protocol.profile.learning`.
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
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.profile.learning import LEAST_ROWS, Sketches, sketches_of
from shoal_protocol.profile.streams import MOST_COLUMNS

Array = npt.NDArray[Any]

MOST_ROWS = 2048
_MOST_BYTES = 8 * 1024 * 1024
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
        self._wanted = _wanted(model.schema)
        self._monotonic = monotonic
        self._until = monotonic() + seconds
        self._lock = threading.Lock()
        self._kept: list[dict[str, Array]] = []
        self._rows = 0
        self._seen = 0
        self._step = 1

    @property
    def is_done(self) -> bool:
        """Whether it has seen enough."""
        return self._rows >= LEAST_ROWS and self._monotonic() >= self._until

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
            self._kept, self._rows = [], 0

    def sketches(self) -> Sketches:
        """Return the sketches of what was seen."""
        with self._lock:
            kept = list(self._kept)
        names = set.intersection(*(set(one) for one in kept)) if kept else set()
        return sketches_of(self._schema, {name: np.concatenate([one[name] for one in kept]) for name in names})

    def answered(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], elapsed_ns: int) -> None:  # noqa: ARG002 - as a follower
        """Take some rows of one answered call; called on the answering thread."""
        try:
            self._take({**feeds, **outputs})
        except Exception:  # noqa: BLE001  (learning must not cost an answer)
            _log.exception("a call could not be looked at")

    def _take(self, tensors: Mapping[str, Array]) -> None:
        arrays = {name: array for name, array in tensors.items() if name in self._wanted and array.ndim}
        rows = max((len(array) for array in arrays.values()), default=0)
        with self._lock:
            first = -self._seen % self._step
            self._seen += rows
            if first >= rows:
                return
            picked = {name: array[first :: self._step].copy() for name, array in arrays.items() if len(array) == rows}
            self._kept.append(picked)
            self._rows += -(-(rows - first) // self._step)
            if self._rows > MOST_ROWS or sum(a.nbytes for a in picked.values()) * len(self._kept) > _MOST_BYTES:
                self._thin()

    def _thin(self) -> None:
        """Keep every second row, and from now on half as many."""
        self._step *= 2
        names = set.intersection(*(set(one) for one in self._kept))
        halved = {name: np.concatenate([one[name] for one in self._kept])[::2] for name in names}
        self._kept = [halved]
        self._rows = max((len(array) for array in halved.values()), default=0)


def _wanted(schema: ModelSchema) -> frozenset[str]:
    """Return the tensors of which something is learnt: as wide at each call, and no wider than is looked at."""
    whole = {field.tensor for field in schema.inputs if field.column is None}
    inputs = {one.name for one in schema.tensors if _is_at_most(one.shape, 1 if one.name in whole else None)}
    outputs = {
        one.name
        for one in schema.outputs
        if _is_at_most(one.shape, None if one.role == "probabilities" else MOST_COLUMNS)
    }
    return frozenset(inputs | outputs)


def _is_at_most(shape: tuple[int | None, ...], columns: int | None) -> bool:
    """Tell whether each row has the same number of values, and no more than some; none: any."""
    sizes = [size for size in shape[1:] if size is not None]
    return len(sizes) == len(shape[1:]) and (columns is None or math.prod(sizes) <= columns)
