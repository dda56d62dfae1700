"""What one model saw and said in one window: counts of inputs and outputs, latency, errors.

A prediction leaves the bytes of the tensors that streams look at in a list (the cheapest safe capture: nobody can
change them later); a block of 1,024 rows is then counted at once. Lists are only appended to, and summing removes a
prefix, so answering threads need no lock.

Invariants: every captured row is counted in exactly one window; the profile equals
`shoal_protocol.profile.profile.summarise` of the same rows; observing never fails a prediction.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.block_counter import BLOCK_ROWS, BlockCounter, Coder, Tap, is_coded, streams_of
from shoal_agent.runtime.window_sums import Sums, Totals, WindowSummary
from shoal_protocol.bundle.contract import Rule
from shoal_protocol.profile.derivation import looks_at_whole
from shoal_protocol.profile.grid import MISSING, NumericGrid
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_protocol.profile.shadow import MAX_SHADOWS, ShadowSums

if TYPE_CHECKING:
    from shoal_agent.runtime.shadow_tally import ShadowTally

Array = npt.NDArray[Any]

COUNTING_SHARE = 0.006
"""Share of a call's own time that counting its rows may cost; of a larger batch an unbiased sample is counted."""

MIN_CALL_ROWS = 64
"""So many rows of a call are counted in any case."""

WHOLE_SHARE = 0.02
"""Share of a core's time that may be spent on digests of whole tensors and texts; calls in between aren't counted."""

MAX_CALL_ROWS = 8 * BLOCK_ROWS
_COUNT_NS = 7.0
"""What counting one number costs with warm caches (cold ones triple it); only chooses the size of samples."""

_ALIGNMENT = 16
_NUMBERS = "fiub"
_log = logging.getLogger(__name__)


class RowLayout(msgspec.Struct, frozen=True):
    """Where each tap lies in the bytes of one row: the form that a static buffer leaves behind in one copy."""

    offsets: tuple[int, ...]
    row_bytes: int

    @classmethod
    def of(cls, taps: Sequence[Tap]) -> RowLayout:
        """Lay out the taps, each aligned for onnxruntime."""
        offsets, at = [], 0
        for tap in taps:
            offsets.append(at)
            at += -(-tap.row_bytes // _ALIGNMENT) * _ALIGNMENT
        return cls(tuple(offsets), at)


class Observer:
    """Sums up the predictions of one model.

    Args:
        spec: The streams; none: only calls, errors and latency are counted.
        rules: Of the bundle's contract, each with its stream (`shoal_protocol.profile.contract`).
        numbers: Outputs in which a NaN is no answer; rows with one are counted where a stream looks at the output.
        chance: Returns numbers in [0, 1); chooses where the sample of a large batch begins.
        clock_ns: Monotonic; paces the look at whole tensors and texts.
    """

    def __init__(
        self,
        spec: ProfileSpec | None,
        *,
        rules: Sequence[tuple[Rule, Stream]] = (),
        numbers: Collection[str] = (),
        chance: random.Random | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.spec = spec or ProfileSpec(())
        self._rules = tuple(rules)
        self._counted = ProfileSpec((*self.spec.streams, *(stream for _, stream in self._rules)))
        self._nan_cells = _nan_cells(self._counted.streams, numbers)
        self.tensors = tuple(dict.fromkeys(s.tensor for s in self._counted.streams if s.is_known))
        """Names of the tensors that are looked at, in the order of `Tap`s."""
        self.whole_tensors = frozenset(s.tensor for s in self.spec.streams if looks_at_whole(s.derive))
        """Those among them of which only a digest is kept."""
        self._rows_per_ns = COUNTING_SHARE / (_COUNT_NS * max(1, len(self._counted.streams)))
        self._chance = chance or random.Random()  # noqa: S311  (a sample of rows is no secret)
        self._clock_ns = clock_ns
        self._look_again_ns = 0
        self._coders: dict[str, Coder] = {}
        self._taps: tuple[Tap, ...] = ()
        self._row_sizes: list[int] = []
        self._is_plain = False
        self._counter: BlockCounter | None = None
        self._layout = RowLayout((), 0)
        self._lock = threading.RLock()
        self._rows: list[bytes] = []
        self._batches: list[list[bytes]] = []
        self._batch_rows = 0
        self._latencies: list[int] = []
        self._state = Sums.empty(self._counted)
        self._totals = Sums.empty(ProfileSpec(()))
        self.rules_hash = ""
        """Of the rules beside the bundle's contract, as windows tell it."""
        self._tallies: tuple[ShadowTally, ...] = ()
        self._earlier: Observer | None = None

    # What answering threads call: a few hundred nanoseconds.

    def answered_row(self, row: bytes, elapsed_ns: int) -> None:
        """Take one answered row in the layout that `layout_for` gave."""
        self._rows.append(row)
        self._latencies.append(elapsed_ns)
        if len(self._rows) >= BLOCK_ROWS:
            self._drain()

    def answered(self, tensors: Sequence[Array], rows: int, elapsed_ns: int) -> None:
        """Take an answered batch.

        Args:
            tensors: Those that `tensors` names, in that order, rows first.
            rows: Number of rows.
            elapsed_ns: From input to output.
        """
        self._latencies.append(elapsed_ns)
        for tensor in tensors:
            if tensor.shape[:1] != (rows,):
                self._count_only(rows)
                return
        if rows > MIN_CALL_ROWS:
            step = self._step(rows, elapsed_ns)
            if step > 1:
                start = int(self._chance.random() * step)
                tensors = [tensor[start::step] for tensor in tensors]
        if not tensors:
            self._count_only(rows)
            return
        try:
            if self.whole_tensors:
                self._keep_paced(tensors, rows)
            else:
                self._keep(tensors, rows)
        except Exception:  # noqa: BLE001  (statistics must not cost an answer)
            _log.exception("%d rows could not be observed", rows)

    def failed(self) -> None:
        """Take a prediction that failed inside the model."""
        with self._lock:
            self._state.errors += 1

    def refused(self) -> None:
        """Take a request whose input did not fit."""
        with self._lock:
            self._state.refused += 1

    # What the window clock, the trial and /metrics call.

    def layout_for(self, tensors: Sequence[Array]) -> RowLayout:
        """Fix dtypes and row sizes by an example, and return the layout of a row of them."""
        with self._lock:
            self._adopt(tensors)
            return self._layout

    def close_window(self) -> WindowSummary:
        """Return what happened since the last call, and begin anew."""
        with self._lock:
            self._drain()
            state, self._state = self._state, Sums.empty(self._counted)
            self._totals.add(state)
        return state.summary(self.spec, self._rules)

    def close_shadows(self) -> tuple[ShadowSums, ...]:
        """Return what shadows of this model did since the last call; those to which nothing happened are left out."""
        with self._lock:
            tallies = self._tallies[:MAX_SHADOWS]
            ended = [tally for tally in tallies if tally.has_ended]  # before closing: nothing follows their sums
            self._tallies = tuple(tally for tally in self._tallies if tally not in ended)
        return tuple(sums for tally in tallies if not (sums := tally.close()).is_silent)

    def watch(self, tally: ShadowTally) -> None:
        """Tell the sums of a shadow of this model with its windows, the last ones with the first after it has ended."""
        with self._lock:
            self._tallies = (*self._tallies, tally)

    @property
    def is_watching(self) -> bool:
        """Whether sums of a shadow are still to be told."""
        return bool(self._tallies)

    def totals(self) -> Totals:
        """Return what happened since the model was loaded."""
        all_ = self.sums()
        return Totals(
            int(all_.latency.sum()), all_.rows, all_.errors, all_.refused, all_.latency, all_.latency_ns / 1e9,
            counted=all_.n, nans=all_.nans,
        )  # fmt: skip

    def continue_from(self, other: Observer) -> None:
        """Add another observer's totals to the own ones: that of the same model before it counted otherwise.

        It may still answer for a moment, so it is asked each time; what it continued from itself is long gone.
        """
        with other._lock:
            if other._earlier is not None:
                other._totals.add(other._earlier.sums())
                other._earlier = None
        self._earlier = other

    def sums(self) -> Sums:
        """Return what happened since the model was loaded, without its cells."""
        all_ = Sums.empty(ProfileSpec(()))
        with self._lock:
            self._drain()
            all_.add(self._totals)
            all_.add(self._state)
            earlier = self._earlier
        if earlier is not None:
            all_.add(earlier.sums())
        return all_

    def _step(self, rows: int, elapsed_ns: int) -> int:
        """Return every how many rows one is counted."""
        affordable = min(max(MIN_CALL_ROWS, int(elapsed_ns * self._rows_per_ns)), MAX_CALL_ROWS)
        return -(-rows // affordable)

    def _count_only(self, rows: int) -> None:
        """Take rows that no stream can look at: there is no reference, or an output has no entry a row."""
        with self._lock:
            self._state.rows += rows
            self._state.n += 0 if self.tensors else rows
            if len(self._latencies) >= BLOCK_ROWS:
                self._drain()

    def _keep_paced(self, tensors: Sequence[Array], answered: int) -> None:
        """Keep digests of whole tensors and texts unless the last look was too soon for what a look costs."""
        start = self._clock_ns()
        if start < self._look_again_ns:
            with self._lock:
                self._state.rows += answered
            return
        self._keep(tensors, answered)
        end = self._clock_ns()
        self._look_again_ns = end + int((end - start) / WHOLE_SHARE)

    def _keep(self, tensors: Sequence[Array], answered: int) -> None:
        if self._is_plain:
            kept = [tensor.tobytes() for tensor in tensors]
        else:
            kept = [self._coded(t, at) if self._must_code(t, at) else t.tobytes() for at, t in enumerate(tensors)]
        rows = len(tensors[0])
        sizes = [len(part) for part in kept]
        with self._lock:
            if sizes != [rows * size for size in self._row_sizes]:  # the first rows, or rows of another size
                self._adopt(tensors)
            self._batches.append(kept)
            self._batch_rows += rows
            self._state.rows += answered - rows
            if self._batch_rows >= BLOCK_ROWS:
                self._drain()

    def _coded(self, tensor: Array, at: int) -> bytes:
        name = self.tensors[at]
        coder = self._coders.get(name)
        if coder is None:
            coder = self._coders[name] = Coder(streams_of(self._counted, name))
        return coder.encode(tensor).tobytes()

    def _must_code(self, tensor: Array, at: int) -> bool:
        return tensor.dtype.kind not in _NUMBERS or self.tensors[at] in self.whole_tensors

    def _adopt(self, tensors: Sequence[Array]) -> None:
        taps = tuple(_tap(self._counted, name, tensor) for name, tensor in zip(self.tensors, tensors, strict=True))
        if taps == self._taps:
            return
        self._drain()
        self._taps, self._layout = taps, RowLayout.of(taps)
        self._row_sizes = [tap.row_bytes for tap in taps]
        self._is_plain = not any(tap.coded for tap in taps)  # a graph's tensors never change their types
        self._counter = BlockCounter(self._counted, taps)

    def _drain(self) -> None:
        """Count all that is pending. Appending goes on meanwhile: only the prefix seen here is removed."""
        with self._lock:
            batches, self._batches, self._batch_rows = self._batches, [], 0
            rows = self._rows[:]
            del self._rows[: len(rows)]
            latencies = self._latencies[:]
            del self._latencies[: len(latencies)]
            self._state.add_latencies(np.array(latencies, dtype=np.int64))
            if not self.tensors:
                self._state.n += len(rows)
                self._state.rows += len(rows)
                return
            if rows:
                self._count(self._split_rows(rows))
            if batches:
                self._count(
                    [
                        np.frombuffer(b"".join(parts), tap.dtype).reshape(-1, tap.elements)
                        for tap, parts in zip(self._taps, zip(*batches, strict=True), strict=True)
                    ]
                )

    def _split_rows(self, rows: list[bytes]) -> list[Array]:
        block = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        return [
            block[:, at : at + tap.row_bytes].view(tap.dtype)
            for at, tap in zip(self._layout.offsets, self._taps, strict=True)
        ]

    def _count(self, arrays: Sequence[Array]) -> None:
        assert self._counter is not None
        self._state.rows += len(arrays[0])
        fine = np.zeros_like(self._state.fine)  # all streams or none: a window whose streams differ is refused
        try:
            self._counter.count(arrays, fine)
        except Exception:  # noqa: BLE001  (statistics must not cost an answer)
            _log.exception("%d rows could not be counted", len(arrays[0]))
            return
        self._state.fine += fine
        if self._nan_cells.size:
            self._state.nans += int(fine[self._nan_cells].max())
        self._state.n += len(arrays[0])


def _nan_cells(streams: Sequence[Stream], numbers: Collection[str]) -> npt.NDArray[np.intp]:
    """Return where the fine cells count the NaN of outputs that are to be numbers."""
    ends = np.cumsum([0, *(stream.grid.cells for stream in streams)])
    plain = {"value", "row_max"}
    found = [
        int(start) + MISSING
        for start, stream in zip(ends, streams, strict=False)
        if stream.tensor in numbers and stream.derive in plain and isinstance(stream.grid, NumericGrid)
    ]
    return np.array(found, dtype=np.intp)


def _tap(spec: ProfileSpec, name: str, tensor: Array) -> Tap:
    streams = streams_of(spec, name)
    if is_coded(streams, tensor.dtype):
        return Tap(name, np.dtype(np.float32), len(streams), coded=True)
    return Tap(name, tensor.dtype, tensor[:1].size if len(tensor) else int(np.prod(tensor.shape[1:])))
