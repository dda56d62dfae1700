"""The observer counts exactly what the protocol's reference implementation counts, whatever comes in which batches."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal_agent.runtime.observer import MIN_CALL_ROWS, Observer
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise

RNG = np.random.default_rng(0)
SKEWED = np.concatenate([np.zeros(300), RNG.lognormal(0, 4, 3000)])

GRIDS: dict[str, NumericGrid] = {
    "linear": fit_numeric(RNG.normal(size=1000)),
    "asinh": fit_numeric(SKEWED),
    "narrow": NumericGrid(-1.0, 3.0, cells=16, coarse=(0, 1, 2, 7, 15)),
}
assert GRIDS["asinh"].transform == "asinh"

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1e-9, 3.0, np.nan])
WIDE = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1e300, -1e300])
TEXTS = st.sampled_from(["Bern", "Basel", "", "elsewhere", "3"])
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 12)

SPEC = ProfileSpec(
    (
        Stream("a", "input", GRIDS["linear"], "x", 0),
        Stream("b", "input", GRIDS["asinh"], "x", 1),
        Stream("c", "input", GRIDS["linear"], "x", 2),
        Stream("a again", "input", GRIDS["narrow"], "x", 0),
        Stream("wide", "input", GRIDS["asinh"], "wide"),
        Stream("flag", "input", CategoricalGrid(("false", "true")), "flag"),
        Stream("city", "input", CategoricalGrid(("Basel", "Bern")), "text", 0),
        Stream("other city", "input", CategoricalGrid(("3", "Bern")), "text", 1),
        Stream("code", "input", CategoricalGrid(("-2", "3", "4", "x")), "code"),
        Stream("code as number", "input", GRIDS["linear"], "code"),
        Stream("far code", "input", CategoricalGrid(("0", "9000000000")), "code"),
        Stream("rounded", "input", CategoricalGrid(("0", "3", "1e-09")), "wide"),
        Stream("label", "output", CategoricalGrid(("0", "1", "2")), "label"),
        Stream("confidence", "output", unit_interval_grid(), "scores", derive="row_max"),
        Stream("second", "output", unit_interval_grid(), "scores", 1),
    )
)


def tensors(rows: int, data: st.DataObject) -> dict[str, npt.NDArray[Any]]:
    def draw(dtype: Any, shape: tuple[int, ...], elements: st.SearchStrategy[Any]) -> npt.NDArray[Any]:
        return data.draw(hnp.arrays(dtype, shape, elements=elements, fill=st.nothing()))

    return {
        "x": draw(np.float32, (rows, 3), NUMBERS),
        "wide": draw(np.float64, (rows, 1), WIDE),
        "flag": draw(np.bool_, (rows, 1), st.booleans()),
        "text": draw(object, (rows, 2), TEXTS),
        "code": draw(np.int64, (rows,), INTEGERS),
        "label": draw(np.int64, (rows,), st.integers(0, 3)),
        "scores": draw(np.float32, (rows, 3), st.floats(0, 1, width=32) | st.just(np.nan)),
    }


@settings(max_examples=40, deadline=None)
@given(data=st.data(), batches=st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_the_profile_equals_the_reference(data: st.DataObject, batches: list[int]) -> None:
    observer = Observer(SPEC)
    parts = [tensors(rows, data) for rows in batches]
    for rows, part in zip(batches, parts, strict=True):
        observer.answered([part[name] for name in observer.tensors], rows, 1000)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with np.errstate(all="ignore"):
        expected = summarise(SPEC, whole)
    summary = observer.close_window()
    assert summary.profile == expected
    assert (summary.n, summary.rows, summary.calls) == (sum(batches), sum(batches), len(batches))


NUMERIC = ProfileSpec(tuple(stream for stream in SPEC.streams if stream.tensor in {"x", "code", "label", "scores"}))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=st.integers(1, 12))
def test_single_rows_from_a_static_buffer_count_the_same(data: st.DataObject, rows: int) -> None:
    observer = Observer(NUMERIC)
    whole = tensors(rows, data)
    arrays = [whole[name] for name in observer.tensors]
    layout = observer.layout_for([array[:1] for array in arrays])
    for at in range(rows):
        row = bytearray(layout.row_bytes)
        for offset, array in zip(layout.offsets, arrays, strict=True):
            raw = array[at : at + 1].tobytes()
            row[offset : offset + len(raw)] = raw
        observer.answered_row(bytes(row), 5)
    with np.errstate(all="ignore"):
        assert observer.close_window().profile == summarise(NUMERIC, whole)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1000, 2500), seed=st.integers(0, 2**32 - 1), split=st.integers(1, MIN_CALL_ROWS))
def test_blocks_and_windows_lose_nothing(rows: int, seed: int, split: int) -> None:
    rng = np.random.default_rng(seed)
    spec = ProfileSpec((Stream("a", "input", GRIDS["linear"], "x", 0), Stream("b", "input", GRIDS["asinh"], "x", 1)))
    x = rng.normal(size=(rows, 2)).astype(np.float32)
    x[rng.random(x.shape) < 0.01] = np.nan
    observer = Observer(spec)
    windows = []
    for start in range(0, rows, split):
        part = x[start : start + split]
        observer.answered([part], len(part), 10)
        if rng.random() < 0.05:
            windows.append(observer.close_window())
    windows.append(observer.close_window())
    total = windows[0].profile
    for window in windows[1:]:
        total = total + window.profile
    assert total == summarise(spec, {"x": x})
    assert observer.totals().rows == rows
