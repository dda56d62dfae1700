"""Learning what to count: sketches of columns, pooled into one set of cells for the fleet."""

import json

import msgspec
import numpy as np
import pytest

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid
from shoal_protocol.profile.learning import (
    MAX_SKETCH_BYTES,
    Sketch,
    is_learnt,
    learn,
    parse_sketches,
    sketch,
    sketches_of,
)
from shoal_protocol.profile.reference import encode_reference, parse_reference

SCHEMA = ModelSchema(
    tensors=(
        TensorSpec(name="x", dtype="float32", shape=(None, 3)),
        TensorSpec(name="count", dtype="int64", shape=(None, 1)),
        TensorSpec(name="site", dtype="string", shape=(None, 1)),
        TensorSpec(name="note", dtype="string", shape=(None, 1)),
        TensorSpec(name="image", dtype="float32", shape=(None, 3, 8, 8)),
    ),
    inputs=(
        *(FieldSpec(name=name, dtype="float32", tensor="x", column=at) for at, name in enumerate(("p", "t", "z"))),
        *(FieldSpec(name=name, dtype="string", tensor=name) for name in ("site", "note")),
        FieldSpec(name="count", dtype="int64", tensor="count"),
        FieldSpec(name="image", dtype="float32", tensor="image"),
    ),
    outputs=(
        OutputSpec(name="label", dtype="int64", shape=(None,), role="label"),
        OutputSpec(name="probabilities", dtype="float32", shape=(None, 2), role="probabilities"),
        OutputSpec(name="value", dtype="float32", shape=(None, 1), role="value"),
    ),
)


def rows(seed: int, n: int = 600, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.random(n).astype(np.float32)
    x = np.stack(
        [
            random.normal(101_325 + 40 * shift, 40, n),
            np.where(random.random(n) < 0.1, np.nan, random.normal(20 + shift, 2, n)),
            np.where(random.random(n) < 0.7, 0.0, random.exponential(2, n)),
        ],
        axis=1,
    )
    notes = [" ".join(random.choice(list("abcdefghijkl"), 6)) for _ in range(n)]
    return {
        "x": x.astype(np.float32),
        "count": random.integers(0, 9, (n, 1)),
        "site": random.choice(["bern", "basel"], (n, 1)).astype(object),
        "note": np.array(notes, dtype=object)[:, None],
        "image": random.normal(size=(n, 3, 8, 8)).astype(np.float32),
        "label": (score > 0.5).astype(np.int64),
        "probabilities": np.stack([1 - score, score], axis=1),
        "value": random.normal(size=(n, 1)).astype(np.float32),
    }


def told(*seeds: int) -> list[dict[str, Sketch]]:
    return [sketches_of(SCHEMA, rows(seed)) for seed in seeds]


def test_every_column_gets_cells_that_show_how_the_fleet_looks() -> None:
    reference = learn(SCHEMA, told(1, 2, 3))
    streams = {stream.name: stream for stream in reference.spec.streams}
    assert set(streams) == {
        "p", "t", "z", "count", "site", "note.length", "note.letters", "note.digits", "note.non_ascii",
        "label", "confidence", "score", "value",
    }  # fmt: skip
    assert is_learnt(reference)
    assert streams["site"].grid == CategoricalGrid(("basel", "bern"))
    assert streams["count"].grid == CategoricalGrid(tuple("012345678"))
    assert (streams["t"].tensor, streams["t"].column) == ("x", 1)
    # a narrow range far from zero is resolved, and zeros have a cell of their own
    grid = streams["p"].grid
    assert isinstance(grid, NumericGrid)
    counts = np.bincount(grid.cells_of(rows(9, 4000)["x"][:, 0]), minlength=256)
    assert (counts > 0).sum() > 60
    assert counts[[1, 255]].sum() < 8
    zeros = reference.profile.cells[reference.spec.slice("z")]
    assert zeros.max() == pytest.approx(0.7 * reference.profile.n, rel=0.1)
    missing = reference.profile.cells[reference.spec.slice("t")][0]
    assert missing == pytest.approx(0.1 * reference.profile.n, rel=0.3)
    assert sum(reference.profile.cells[reference.spec.slice("score")]) == reference.profile.n


def test_the_order_of_the_devices_does_not_matter_and_all_weigh_the_same() -> None:
    first, second, third = told(1, 2, 3)
    assert learn(SCHEMA, [first, second, third]) == learn(SCHEMA, [third, first, second])
    warm = sketches_of(SCHEMA, rows(4, 600, shift=8.0))
    both = learn(SCHEMA, [first, warm]).spec.streams[1].grid
    assert isinstance(both, NumericGrid)
    assert all(2 < cell < 255 for cell in both.cells_of([20.0, 28.0]))


def test_an_earlier_versions_cells_are_kept() -> None:
    parent = learn(SCHEMA, told(1)).spec
    child = learn(SCHEMA, told(5), parent=parent).spec
    assert child == parent


def test_what_a_device_tells_is_small_and_names_nobody() -> None:
    seen = rows(1)
    seen["note"][0] = "Jane Doe, 12 Main Street"
    raw = msgspec.json.encode(sketches_of(SCHEMA, seen))
    assert len(raw) < 6000
    assert b"Jane" not in raw
    assert parse_sketches(json.loads(raw)) == sketches_of(SCHEMA, seen)
    wide = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2000)),),
        inputs=tuple(FieldSpec(name=f"f{at}", dtype="float32", tensor="x", column=at) for at in range(2000)),
        outputs=(),
    )
    many = sketches_of(wide, {"x": np.random.default_rng(0).normal(size=(300, 2000)).astype(np.float32)})
    assert len(msgspec.json.encode(many)) < MAX_SKETCH_BYTES + 1000


def test_columns_with_nothing_in_them_are_counted_as_missing() -> None:
    empty = rows(1)
    empty["x"][:, 1] = np.nan
    empty["site"][:] = None
    reference = learn(SCHEMA, [sketches_of(SCHEMA, empty)])
    for name in ("t", "site"):
        assert reference.profile.cells[reference.spec.slice(name)][0] == reference.profile.n


@pytest.mark.parametrize(
    "hostile",
    [
        [],
        {"in:p": {"n": -1}},
        {"in:p": {"n": 5, "missing": 9}},
        {"in:p": {"n": 5, "values": [[1.0, 9]]}},
        {"in:p": {"n": 500, "quantiles": [1.0]}},
        {"in:p": {"n": 500, "values": [[1e300, 500]]}},
        {"in:p": {"n": 500, "quantiles": [float(-at) for at in range(33)]}},
        {f"in:{at}": {"n": 1} for at in range(300)},
    ],
)
def test_hostile_sketches_are_refused(hostile: object) -> None:
    with pytest.raises(ContentError):
        parse_sketches(hostile)


LEVELS = 33
HOSTILE = {
    "texts a million characters long": {"in:note": {"n": 500, "prose": True, "quantiles": [1e7] * LEVELS}},
    "texts of a length without bounds": {"in:note": {"n": 500, "prose": True, "quantiles": [1e30] * LEVELS}},
    "numbers where texts are": {"in:site": {"n": 500, "quantiles": [float(at) for at in range(LEVELS)]}},
    "texts in the first column of numbers": {"in:p": {"n": 500, "values": [["high", 400]]}},
    "texts in the second column of numbers": {"in:t": {"n": 500, "values": [["warm", 400]]}},
    "prose in a column of numbers": {"in:z": {"n": 500, "prose": True, "quantiles": [9.0] * LEVELS}},
    "a text for a class": {"out:label:0": {"n": 500, "values": [["yes", 400]]}},
    "a text for a score": {"out:probabilities": {"n": 500, "values": [["sure", 400]]}},
    "a column that an output lacks": {"out:value:2": {"n": 500, "values": [[1.0, 400]]}},
}


@pytest.mark.parametrize("lie", list(HOSTILE))
def test_what_a_column_is_the_schema_says_and_no_device(lie: str) -> None:
    honest = told(1, 2, 3)
    expected = {stream.name: type(stream.grid) for stream in learn(SCHEMA, honest).spec.streams}
    sketches = parse_sketches(HOSTILE[lie])
    among_others = learn(SCHEMA, [*honest, honest[0] | sketches])
    assert {stream.name: type(stream.grid) for stream in among_others.spec.streams} == expected
    learn(SCHEMA, [sketches])  # alone it decides, but breaks nothing


def test_long_texts_are_told_as_long_as_they_are_believed() -> None:
    long = rows(1)
    long["note"] = np.array([f"{at}" * 20_000 for at in range(600)], dtype=object)[:, None]
    names = {stream.name for stream in learn(SCHEMA, [sketches_of(SCHEMA, long)]).spec.streams}
    assert "note.length" in names


def test_numbers_that_recur_are_told_apart_from_the_rest() -> None:
    one = sketch(np.array([7.0] * 50 + [np.inf, np.nan] + list(range(100, 148))))
    assert one.values == ((7.0, 50),)
    assert (one.n, one.missing, one.whole) == (100, 2, True)
    assert 100 <= one.quantiles[0] < one.quantiles[-1] <= 147


def test_a_liars_extremes_give_cells_all_the_same() -> None:
    liar = {
        "in:p": Sketch(n=400, whole=True, values=((-1e30, 200), (1e30, 200))),
        "in:t": Sketch(n=400, quantiles=tuple(np.linspace(-1e30, 1e30, 33).tolist())),
        "in:z": Sketch(n=400, values=((5e-324, 400),)),
        "in:site": Sketch(n=400, values=(("x", 400),)),
        "in:count": Sketch(n=400, whole=True, values=(("nine", 400),)),
    }
    reference = learn(SCHEMA, [parse_sketches(msgspec.to_builtins(liar)), *told(1, 2)])
    assert {"p", "t", "z", "site", "label"} <= set(reference.spec.index)
    grid = reference.spec.streams[reference.spec.index["t"]].grid
    assert len(set(grid.cells_of([14.0, 17.0, 20.0, 23.0, 26.0]).tolist())) == 5, "the others' values are told apart"
    assert parse_reference(encode_reference(reference)) == reference
