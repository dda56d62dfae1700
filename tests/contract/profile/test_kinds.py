"""What every kind of stream must hold: exact sums on the device, merging free of order, bounded size, old meets new."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shoal_agent.runtime.observer import Observer
from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.codec import decode_counts, encode_counts
from shoal_protocol.profile.derivation import KNOWN
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid
from shoal_protocol.profile.profile import ProfileSpec, check_profile, derived, merge, parse_spec, summarise, zero
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference
from shoal_protocol.profile.sketch import SHARES

Rows = dict[str, npt.NDArray[Any]]
MOST_BYTES_A_STREAM = 60


class Clock:
    """Gives so long a time between two looks that no call is left out."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def __call__(self) -> int:
        return next(self._looks) // 2 * 10**9


def observed(spec: ProfileSpec, parts: list[Rows]) -> Observer:
    observer = Observer(spec, clock_ns=Clock())
    for part in parts:
        observer.answered([part[name] for name in observer.tensors], len(part["x"]), 10**9)
    return observer


def cut(rows: Rows, *places: int) -> list[Rows]:
    edges = [0, *places, len(rows["x"])]
    return [{name: values[a:b] for name, values in rows.items()} for a, b in itertools.pairwise(edges)]


def test_the_spec_has_every_kind(spec: ProfileSpec) -> None:
    assert {stream.derive for stream in spec.streams} == KNOWN
    names = {stream.name for stream in spec.streams}
    assert {
        "a",
        "flag",
        "city",
        "at.hour",
        "at.weekday",
        "embedding.norm",
        "image.sharpness",
        "image.channel 3",
    } <= names
    assert {"picture.contrast", "note.unknown_tokens", "label", "label0", "label2", "score", "value1"} <= names
    assert {"features.projection 8", "confidence", "joint 1", "joint 5"} <= names


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("places", [(), (1, 2, 3, 40), (150,)])
def test_the_device_counts_what_the_reference_implementation_counts(
    spec: ProfileSpec, rows_of: Callable[..., Rows], places: tuple[int, ...], *, hostile: bool
) -> None:
    rows = rows_of(200, 5, hostile=hostile)
    with np.errstate(all="ignore"):
        assert observed(spec, cut(rows, *places)).close_window().profile == summarise(spec, rows)


def test_values_are_what_numpy_says(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    rows = rows_of(300, 6)
    streams = {stream.name: stream for stream in spec.streams}

    def values(name: str) -> npt.NDArray[Any]:
        return derived(streams[name], rows[streams[name].tensor])

    np.testing.assert_allclose(values("embedding.norm"), np.linalg.norm(rows["embedding"], axis=1), rtol=1e-3)
    step = rows["image"][:, :, ::2, ::2]
    np.testing.assert_allclose(values("image.brightness"), step.mean(axis=(1, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(values("image.contrast"), step.std(axis=(1, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(values("image.channel 2"), step[:, 1].mean(axis=(1, 2)), atol=1e-3)
    picture = rows["picture"][:, ::2].astype(float)
    np.testing.assert_allclose(values("picture.contrast"), picture.std(axis=(1, 2, 3)), rtol=1e-2)
    sharp = np.abs(rows["picture"][:, ::2, 1:].astype(float) - rows["picture"][:, ::2, :-1]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(values("picture.sharpness"), sharp, rtol=1e-2)
    seconds = rows["at"][:, 0].astype("datetime64[s]")
    assert (values("at.hour") == seconds.astype("datetime64[h]").astype(int) % 24).all()
    assert [values("at.weekday")[k] for k in range(9)] == [moment.item().weekday() for moment in seconds[:9]]
    assert values("note.length").tolist() == [len(text) for text in rows["note"][:, 0]]


def test_the_cells_hold_what_comes(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    profile = summarise(spec, rows_of(2000, 13))
    for stream in spec.streams:
        cells = profile.cells[spec.slice(stream.name)]
        outer = cells[1] if isinstance(stream.grid, CategoricalGrid) else cells[1] + cells[-1]
        assert outer < 0.02 * profile.n or stream.derive in SHARES, stream.name
        assert cells.max() < 0.95 * profile.n, stream.name


def test_merging_is_exact_in_any_order_and_grouping(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    rows = rows_of(90, 7, hostile=True)
    with np.errstate(all="ignore"):
        whole = summarise(spec, rows)
        a, b, c = (summarise(spec, part) for part in cut(rows, 20, 21))
    wire = {encode_counts(m.cells, m.moments) for m in (merge([c, a, b]), (a + b) + c, a + (b + c), whole)}
    assert len(wire) == 1
    assert whole + zero(spec) == whole == check_profile(whole, spec)


def test_counts_and_spec_survive_their_wire_forms(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    profile = summarise(spec, rows_of(50, 8))
    reference = parse_reference(encode_reference(Reference(spec, profile)))
    assert reference.spec.hash == spec.hash
    assert reference.spec == spec
    assert reference.profile == profile
    cells, moments = decode_counts(encode_counts(profile.cells, profile.moments))
    assert (cells == profile.cells).all()
    assert (moments == profile.moments).all()


def test_a_window_stays_small(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    profile = summarise(spec, rows_of(1000, 9))
    assert len(encode_counts(profile.cells, profile.moments)) < MOST_BYTES_A_STREAM * len(spec.streams)


def test_an_old_agent_leaves_new_kinds_uncounted_and_counts_the_rest(
    spec: ProfileSpec, rows_of: Callable[..., Rows]
) -> None:
    document = spec.as_json()
    document[1] |= {"derive": "entropy", "params": {"base": 2}}
    document[3] |= {"grid": {"kind": "spiral", "size": 9, "turns": 3}}
    future = parse_spec([entry for entry in document if entry["derive"] != "joint"])
    assert canonical_bytes(future.as_json()) == canonical_bytes([e for e in document if e["derive"] != "joint"])
    rows = rows_of(30, 10)
    window = observed(future, cut(rows, 12)).close_window()
    assert window.profile == summarise(future, rows) == check_profile(window.profile, future)
    counted = np.add.reduceat(window.profile.cells, future.offsets[:-1])
    assert counted[[1, 3]].tolist() == [0, 0]
    assert set(np.delete(counted, [1, 3])) == {30}


def test_a_stream_of_old_kind_may_not_be_left_out(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    profile = summarise(spec, rows_of(30, 11))
    for name, is_fine in (("image.contrast", True), ("a", False)):
        other = profile + zero(spec)
        other.cells[spec.slice(name)] = 0
        other.moments[spec.index[name]] = 0
        if is_fine:
            check_profile(other, spec)
        else:
            with pytest.raises(ContentError, match="'a'"):
                check_profile(other, spec)


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("embedding.norm", {"scale": float("nan")}),
    ("embedding.norm", {"scale": -1.0}),
    ("embedding.norm", {}),
    ("embedding.projection 1", {"weights": [1] * 5000}),
    ("embedding.projection 1", {"weights": [0.5]}),
    ("embedding.projection 1", {"divisor": 0}),
    ("at.hour", {"per_s": 7}),
    ("note.unknown_tokens", {"sketch": "AAAA"}),
    ("note.unknown_tokens", {"sketch": "§"}),
    ("joint 1", {"streams": ["nobody"], "weights": [1], "centers": [2]}),
    ("joint 1", {"streams": ["joint 2"], "weights": [1], "centers": [2]}),
    ("joint 1", {"streams": ["a"], "weights": [1, 2], "centers": [2]}),
    ("joint 1", {"streams": ["a"], "weights": [10**12], "centers": [2]}),
    ("joint 1", {"streams": ["a"], "weights": [1], "centers": [9]}),
]


@pytest.mark.parametrize(("name", "params"), HOSTILE)
def test_hostile_parameters_are_refused(spec: ProfileSpec, name: str, params: dict[str, Any]) -> None:
    document = spec.as_json()
    entry = document[spec.index[name]]
    entry["params"] = {**entry["params"], **params} if params else {}
    with pytest.raises(ContentError, match=name.removesuffix(" 1")):
        parse_spec(document)


def test_no_kind_takes_a_grid_of_the_other_sort(spec: ProfileSpec) -> None:
    grids = {True: CategoricalGrid(("a",)).as_json(), False: NumericGrid(0.0, 1.0).as_json()}
    for stream in spec.streams:
        if stream.derive in {"value", "row_max"}:
            continue
        document = [entry for entry in spec.as_json() if entry["derive"] != "joint" or entry["name"] == stream.name]
        at = next(at for at, entry in enumerate(document) if entry["name"] == stream.name)
        document[at]["grid"] = grids[isinstance(stream.grid, NumericGrid)]
        with pytest.raises(ContentError, match=stream.name):
            parse_spec(document)


def test_looking_at_whole_tensors_is_paced(spec: ProfileSpec, rows_of: Callable[..., Rows]) -> None:
    moments = iter([0, 100, 200, 5_099, 5_100, 5_101])  # a look that took 100 ns allows the next after 5,000
    observer = Observer(spec, clock_ns=lambda: next(moments))
    row = rows_of(1, 12)
    for _ in range(4):
        observer.answered([row[name] for name in observer.tensors], 1, 10)
    window = observer.close_window()
    assert (window.n, window.rows, window.calls) == (2, 4, 4)
