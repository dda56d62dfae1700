"""The fast path of a single row: inputs and outputs bound once to memory that stays.

onnxruntime's ``run`` makes new feeds and outputs at each call; a binding of one thread's own buffers measured
0.69–0.78 of its time at batch 1 (a new binding a call: 1.8x). Tapped tensors lie in one stretch of memory in the
observer's `RowLayout`, so that observing costs one copy.

Invariant: one binding is used by one thread only; what it returns are copies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.engine import Engine, GraphTensor, import_onnxruntime
from shoal_agent.runtime.nan_screen import nan_screen
from shoal_agent.runtime.observer import RowLayout

Array = npt.NDArray[Any]

_TRIES = 25
_FEW_TRIES = 3
_MOST_TRIES = 200
"""On a busy machine: a hasty no would slow every prediction until the next load."""

_WORTHWHILE_NS = 200_000
"""A slower model gains nothing that could be measured."""


def is_eligible(engine: Engine) -> bool:
    """Tell whether every input and output is numbers of a fixed count a row, any number of rows in front."""
    tensors = (*engine.inputs, *engine.outputs)
    return bool(engine.inputs) and all(tensor.is_static and tensor.shape[0] in {None, 1} for tensor in tensors)


class StaticBinding:
    """One thread's buffers, bound to the session.

    Args:
        engine: Must be eligible.
        tapped: Names of the tensors that are observed, in the layout's order.
        layout: Where they lie.
        no_nan: Inputs whose missing values the caller wants to see.
    """

    def __init__(
        self, engine: Engine, tapped: tuple[str, ...], layout: RowLayout, *, no_nan: frozenset[str] = frozenset()
    ) -> None:
        runtime = import_onnxruntime()
        self._binding = engine.session.io_binding()
        self._run = engine.bound(self._binding)
        self._memory = np.zeros(layout.row_bytes, np.uint8)
        places = dict(zip(tapped, layout.offsets, strict=True))
        self._inputs: list[tuple[str, Array, np.dtype[Any], tuple[int, ...]]] = []
        self._no_nan: list[Callable[[], Any]] = []
        self._outputs: list[tuple[str, Callable[[], Array]]] = []
        self.observed_row: Callable[[], bytes] = self._memory.tobytes
        """Returns the tapped tensors of the last run in the layout of one row."""
        for tensor in engine.inputs:
            buffer = self._buffer(tensor, places)
            self._binding.bind_ortvalue_input(tensor.name, runtime.OrtValue.ortvalue_from_numpy(buffer))
            self._inputs.append((tensor.name, buffer, buffer.dtype, buffer.shape))
            if tensor.name in no_nan:
                row = buffer.reshape(-1)
                self._no_nan.append(nan_screen(row))
        for tensor in engine.outputs:
            buffer = self._buffer(tensor, places)
            self._binding.bind_ortvalue_output(tensor.name, runtime.OrtValue.ortvalue_from_numpy(buffer))
            self._outputs.append((tensor.name, buffer.copy))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
        """Return copies of the outputs by name; or none, when the inputs are not exactly one row of the right dtypes.

        None too when there is a NaN where none may be: the plain path names it.
        """
        for name, buffer, dtype, shape in self._inputs:
            array = inputs.get(name)
            if type(array) is not np.ndarray or array.shape != shape:
                return None
            if array.dtype is not dtype and array.dtype != dtype:  # the same by another name: the array was unpickled
                return None
            buffer[...] = array
        if len(inputs) != len(self._inputs):
            return None
        for screen in self._no_nan:
            seen = screen()
            if seen != seen:  # noqa: PLR0124
                return None
        self._run()
        return {name: copy() for name, copy in self._outputs}

    def _buffer(self, tensor: GraphTensor, places: Mapping[str, int]) -> Array:
        shape = (1, *(size or 1 for size in tensor.shape[1:]))
        dtype = np.dtype(tensor.dtype)
        at = places.get(tensor.name)
        if at is None:
            return np.zeros(shape, dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return self._memory[at : at + size].view(dtype).reshape(shape)


def is_worthwhile(
    plain: Callable[[Mapping[str, Array]], Sequence[Array]], binding: StaticBinding, example: Mapping[str, Array]
) -> bool:
    """Tell whether the binding gives the same bytes as a plain run, and sooner.

    Args:
        plain: A run with what the binding's does besides: the look for missing values.
        binding: Bound to the session of `plain`.
        example: Feeds of one row.
    """
    got = binding.run(example)
    if got is None or [_exactly(a) for a in plain(example)] != [_exactly(a) for a in got.values()]:
        return False
    plain_ns = bound_ns = sys.maxsize  # the fastest of each: the others were disturbed
    for at in range(_MOST_TRIES):
        start = time.perf_counter_ns()
        plain(example)
        middle = time.perf_counter_ns()
        binding.run(example)
        plain_ns = min(plain_ns, middle - start)
        bound_ns = min(bound_ns, time.perf_counter_ns() - middle)
        if plain_ns > _WORTHWHILE_NS and (at == _TRIES or (at >= _FEW_TRIES and plain_ns > 10 * _WORTHWHILE_NS)):
            return False
        if at >= _TRIES and bound_ns < plain_ns:
            return True
    return False


def _exactly(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()
