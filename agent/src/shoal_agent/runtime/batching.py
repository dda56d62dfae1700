"""Micro-batching: calls that come at the same time are answered by one run of the graph.

Only for concurrent callers: a call that finds no other under way runs at once. One that does opens a group, or joins
the open one; the group runs when the call under way ends, when it is full, or when its first call has waited as long as
it may. Each call is observed, checked and answered by itself; a group whose run fails is run call by call, so that only
the guilty one is told.

Invariant: a call gets the bytes that it would get alone, as far as the golden rows show (`is_exact_together`): a graph
whose rows depend on their neighbours, or whose kernels sum in another order in a batch, is never batched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.engine import Engine

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
_Key = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


class Batching(msgspec.Struct, frozen=True):
    """How far calls are gathered.

    Attributes:
        max_rows: Of one run; a larger call runs by itself.
        max_delay_s: So long the first call of a group waits for the call under way at most.
    """

    max_rows: int
    max_delay_s: float


class _Call(msgspec.Struct):
    feeds: Feeds
    rows: int
    outputs: Sequence[Array] | None = None
    error: Exception | None = None


class _Group(msgspec.Struct):
    key: _Key
    calls: list[_Call] = msgspec.field(default_factory=list)
    rows: int = 0
    is_answered: bool = False

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        self.rows += call.rows


class Batcher:
    """Runs a graph for several threads.

    Args:
        run: Runs it: feeds to outputs, rows first.
        limits: Of a group.
    """

    def __init__(self, run: Callable[[Feeds], Sequence[Array]], limits: Batching) -> None:
        self.limits = limits
        self._run = run
        self._changed = threading.Condition()
        self._under_way = 0
        self._open: _Group | None = None

    def run(self, feeds: Feeds, rows: int) -> Sequence[Array]:
        """Return the outputs of one call.

        Args:
            feeds: Of the graph, rows first.
            rows: Of the first tensor.

        Raises:
            Exception: What the graph's run raises for this call.
        """
        key = self._key(feeds, rows)
        call, group = _Call(feeds, rows), None
        with self._changed:
            if key is not None and self._under_way:
                group = self._joined(call, key)
                if group is None:
                    group = self._opened(call, key)
                else:
                    self._changed.wait_for(lambda: group.is_answered)
                    return _outcome(call)
            self._under_way += 1
        try:
            if group is None:
                return self._run(feeds)
            self._answer(group.calls)
        finally:
            with self._changed:
                self._under_way -= 1
                if group is not None:
                    group.is_answered = True
                self._changed.notify_all()
        return _outcome(call)

    def _key(self, feeds: Feeds, rows: int) -> _Key | None:
        """Return what calls must share to run together; none: this one runs alone."""
        if not 0 < rows < self.limits.max_rows or any(a.ndim == 0 or len(a) != rows for a in feeds.values()):
            return None
        return tuple(sorted((name, array.dtype, array.shape[1:]) for name, array in feeds.items()))

    def _joined(self, call: _Call, key: _Key) -> _Group | None:
        """Join the open group, if there is one that takes this call; the lock is held."""
        group = self._open
        if group is None or group.key != key or group.rows + call.rows > self.limits.max_rows:
            return None
        group.add(call)
        if group.rows == self.limits.max_rows:
            self._changed.notify_all()
        return group

    def _opened(self, call: _Call, key: _Key) -> _Group:
        """Open a group and wait until it is to run; the lock is held, but for the wait."""
        group = self._open = _Group(key)
        group.add(call)
        try:
            self._changed.wait_for(
                lambda: not self._under_way or group.rows >= self.limits.max_rows, timeout=self.limits.max_delay_s
            )
        except BaseException:  # this thread is interrupted: who has joined must not wait for ever
            group.is_answered = True
            self._changed.notify_all()
            raise
        finally:
            if self._open is group:
                self._open = None
        return group

    def _answer(self, calls: Sequence[_Call]) -> None:
        if len(calls) > 1:
            with suppress(Exception):  # one of them is to blame: each alone tells which
                self._answer_together(calls)
                return
        for call in calls:
            try:
                call.outputs = self._run(call.feeds)
            except Exception as error:  # noqa: BLE001  (raised again on the caller's own thread)
                call.error = error

    def _answer_together(self, calls: Sequence[_Call]) -> None:
        feeds = {name: np.concatenate([call.feeds[name] for call in calls]) for name in calls[0].feeds}
        ends = np.cumsum([call.rows for call in calls]).tolist()
        outputs = self._run(feeds)
        if any(not output.ndim or len(output) != ends[-1] for output in outputs):
            raise ValueError("an output has not one entry a row")
        for call, end in zip(calls, ends, strict=True):
            call.outputs = [output[end - call.rows : end].copy() for output in outputs]


def _outcome(call: _Call) -> Sequence[Array]:
    if call.error is not None:
        raise call.error
    if call.outputs is None:
        raise InterruptedError("the thread that was to answer this call was interrupted")
    return call.outputs


def is_exact_together(engine: Engine, rows_of: Feeds, *, rows: int) -> bool:
    """Tell whether rows come out of a batch byte for byte as they do alone.

    Args:
        engine: The session.
        rows_of: Inputs to try, rows first; repeated in turn up to the size of a batch.
        rows: Most rows of a batch; tried are 2, 3, this many, and some sizes between.
    """
    count = min((len(array) for array in rows_of.values()), default=0)
    if not count or any(tensor.shape[:1] != (None,) for tensor in engine.inputs):
        return False
    few = min(count, rows)
    alone = [engine.run({name: array[at : at + 1] for name, array in rows_of.items()}) for at in range(few)]
    return all(_is_exact(engine, rows_of, alone, size) for size in sorted({2, 3, 5, 8, 17, rows // 2, rows}) if
               1 < size <= rows)  # fmt: skip


def _is_exact(engine: Engine, rows_of: Feeds, alone: Sequence[Sequence[Array]], size: int) -> bool:
    picks = [at % len(alone) for at in range(size)]
    together = engine.run({name: np.ascontiguousarray(array[picks]) for name, array in rows_of.items()})
    return all(
        output.ndim > 0
        and len(output) == size
        and all(_exactly(output[at : at + 1]) == _exactly(alone[pick][which]) for at, pick in enumerate(picks))
        for which, output in enumerate(together)
    )


def _exactly(array: Array) -> tuple[tuple[int, ...], bytes | list[Any]]:
    return array.shape, array.tolist() if array.dtype.kind == "O" else array.tobytes()
