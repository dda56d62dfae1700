"""A shadow model: runs on a share of the active model's inputs, beside the answering path, and answers nobody.

The answering thread copies a chosen call's tensors into a bounded queue, or counts it as dropped; a thread of lowest
priority runs the shadow on them. Leaves comparing to `shadow_tally`, and which bundle it is to the updating half.

Invariants: an answer never waits for the shadow, and never fails through it; no more than `QUEUE_ROWS` rows wait.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.errors import UnfitError
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.shadow_tally import Comparison, ShadowTally
from shoal_protocol.bundle.schema import ModelSchema

Array = npt.NDArray[Any]
_Call = tuple[dict[str, Array], dict[str, Array], int, int]

QUEUE_ROWS = 512
CALL_ROWS = 128
"""Of a larger call so many rows are compared, taken at equal steps."""

_NICE = 19
_STOP_S = 10.0
_log = logging.getLogger(__name__)


def check_alike(active: ModelSchema, shadow: ModelSchema) -> None:
    """Check that two models take the same inputs.

    Raises:
        UnfitError: They don't; names the first tensor or feature that differs.
    """
    mine = {tensor.name: (tensor.dtype, tensor.shape) for tensor in active.tensors}
    other = {tensor.name: (tensor.dtype, tensor.shape) for tensor in shadow.tensors}
    features = [(f.name, f.tensor, f.column) for f in active.inputs]
    if mine == other and features == [(f.name, f.tensor, f.column) for f in shadow.inputs]:
        return
    names = [f.name for f in active.inputs if f.name not in {o.name for o in shadow.inputs}]
    names += [f.name for f in shadow.inputs if f.name not in {o.name for o in active.inputs}]
    raise UnfitError(
        f"the shadow takes other inputs than the active model: {other} instead of {mine}"
        + (f"; only one of the two has the features {', '.join(names[:8])}" if names else ""),
        hint="a shadow must take the same features in the same tensors, in the same order",
    )


class Shadow:
    """A shadow beside one active model, from `start` to `stop`.

    Args:
        active: Whose inputs it sees.
        model: The shadow.
        share: Of the calls, 0 to 1.
        chance: Returns numbers in [0, 1).

    Raises:
        UnfitError: The two take different inputs.
    """

    def __init__(
        self, active: LoadedModel, model: LoadedModel, *, share: float, chance: random.Random | None = None
    ) -> None:
        check_alike(active.schema, model.schema)
        self._active = weakref.ref(active)  # a swap waits until nobody holds the old model
        self.model = model
        self.tally = ShadowTally(model.digest, Comparison(active.schema, model.schema))
        self._share = share
        self._chance = (chance or random.Random()).random  # noqa: S311  (a sample of rows is no secret)
        self._calls: deque[_Call] = deque()
        self._waiting_rows = 0
        self._work = threading.Condition()
        self._stopping = False
        self._began_ns = 0
        self._thread = threading.Thread(target=self._run, name=f"shadow-{model.name}", daemon=True)

    def start(self) -> None:
        """Begin to see calls."""
        active = self._active()
        self._thread.start()
        if active is not None:
            active.observer.watch(self.tally)
            active.follow(self)

    def is_beside(self, model: LoadedModel) -> bool:
        """Tell whether it sees this model's calls."""
        return self._active() is model

    def stop(self) -> None:
        """See no more calls, and end when the call at hand does; what waits counts as dropped."""
        active = self._active()
        if active is not None:
            active.unfollow(self)
        del active
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join(_STOP_S)
        with self._work:
            self.tally.dropped(self._waiting_rows)
            self._calls.clear()
        self.tally.has_ended = True

    def running_s(self) -> float:
        """Return for how many seconds the call at hand is compared; 0 when there is none."""
        began_ns = self._began_ns
        return (perf_counter_ns() - began_ns) / 1e9 if began_ns else 0.0

    def cut_off(self) -> None:
        """End the call at hand, and stop; the model answers nothing any more."""
        self.model.engine.cut_off()
        self.stop()

    def answered(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], elapsed_ns: int) -> None:
        """Take one answered call of the active model, or don't; called on the answering thread."""
        if self._chance() >= self._share:
            return
        try:
            self._take(feeds, outputs, elapsed_ns)
        except Exception:  # noqa: BLE001  (a shadow must not cost an answer)
            self.tally.failed()
            _log.exception("a call could not be shown to the shadow %s", self.model.name)

    def _take(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], elapsed_ns: int) -> None:
        rows = len(next(iter(feeds.values())))
        step = max(1, -(-rows // CALL_ROWS))
        kept = -(-rows // step)
        if self._waiting_rows + kept > QUEUE_ROWS:  # looked at again below: a full queue must not cost the copies
            self._drop(kept)
            return
        call = (
            {name: np.array(array[::step]) for name, array in feeds.items()},
            {name: np.array(array[::step]) for name, array in outputs.items()},
            kept,
            elapsed_ns,
        )
        with self._work:
            has_room = not self._stopping and self._waiting_rows + kept <= QUEUE_ROWS
            if has_room:
                self._calls.append(call)
                self._waiting_rows += kept
                self._work.notify()
        if not has_room:
            self._drop(kept)

    def _drop(self, rows: int) -> None:
        """Count rows that nobody compares; whoever was answered while the shadow ended was not shown to it."""
        with self._work:
            if not self._stopping:
                self.tally.dropped(rows)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # where a thread has no priority of its own, it shares
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._work:
                self._work.wait_for(lambda: self._stopping or self._calls)
                if self._stopping:
                    return
                call = self._calls.popleft()
                self._waiting_rows -= call[2]
            self._compare(call)

    def _compare(self, call: _Call) -> None:
        feeds, said, rows, elapsed_ns = call
        start = self._began_ns = perf_counter_ns()
        try:
            shadow_said = self.model.run(feeds)
            elapsed = (elapsed_ns, perf_counter_ns() - start)
            self.tally.compared(said, shadow_said, rows=rows, elapsed_ns=elapsed)
        except Exception as error:  # noqa: BLE001  (whatever it does, it may only be counted)
            self.tally.failed()
            _log.debug("the shadow %s failed: %s", self.model.name, error)
        finally:
            self._began_ns = 0
