"""Learning what to count: sketches of columns, pooled into one set of cells for the fleet."""

import json

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.derivation import packed_bits, vocabulary_sketch
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid
from shoal_protocol.profile.learning import is_learnt, learn
from shoal_protocol.profile.reference import encode_reference, parse_reference
from shoal_protocol.profile.sketch import MAX_SKETCH_BYTES, Sketch, first_columns, parse_sketches, sketch, sketches_of
from shoal_protocol.profile.sketch_pool import Pool
from shoal_protocol.profile.wide import FirstDigests

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
        first_columns("image"): FirstDigests((None, 3, 8, 8))(random.normal(size=(n, 3, 8, 8))),
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
        "note.unknown_tokens", "image.brightness", "image.contrast", "image.sharpness",
        *(f"image.channel {at}" for at in (1, 2, 3)), *(f"image.projection {at}" for at in range(1, 9)),
        "label", "confidence", "score", "value", "joint 1", "joint 2", "joint 3",
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
    assert len(raw) < 16_000
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
        {"in:t": {"n": 500, "correlations": [10_001]}},
        {"in:t": {"n": 500, "correlations": [0] * 64}},
        {"in:t": {"n": 500, "correlations": ["high"]}},
        {"in:note": {"n": 500, "prose": True, "vocabulary": "AAAA"}},
        {"in:note": {"n": 500, "prose": True, "vocabulary": "§"}},
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


def test_booleans_are_counted_under_their_own_names() -> None:
    schema = ModelSchema(
        tensors=(TensorSpec(name="flag", dtype="bool", shape=(None, 1)),),
        inputs=(FieldSpec(name="flag", dtype="bool", tensor="flag"),),
        outputs=(OutputSpec(name="faulty", dtype="bool", shape=(None,), role="label"),),
    )
    flag = np.random.default_rng(1).random(400) < 0.3
    reference = learn(schema, [sketches_of(schema, {"flag": flag[:, None], "faulty": flag})])
    assert [stream.grid for stream in reference.spec.streams] == [CategoricalGrid(("false", "true"))] * 2


def test_numbers_too_rare_to_be_told_are_not_taken_for_missing_ones() -> None:
    seen = rows(1)
    seen["count"] = np.array([0] * 300 + [1] * 297 + [7, 8, 9])[:, None]
    reference = learn(SCHEMA, [sketches_of(SCHEMA, seen)])
    assert reference.spec.streams[reference.spec.index["count"]].grid == CategoricalGrid(("0", "1"))
    assert reference.profile.cells[reference.spec.slice("count")].tolist()[:2] == [0, 0]


def test_one_device_alone_decides_which_words_are_known_only_in_a_fleet_of_two() -> None:
    def knows(*words: str) -> Sketch:
        return Sketch(n=400, prose=True, quantiles=(9.0,) * LEVELS, vocabulary=vocabulary_sketch(words))

    def known(*told: Sketch) -> str:
        return Pool([{"in:note": one} for one in told]).vocabulary("in:note")

    liar = Sketch(n=400, prose=True, quantiles=(9.0,) * LEVELS, vocabulary=packed_bits(np.ones(1 << 14, np.uint8)))
    assert known(knows("oil", "pump"), knows("oil"), knows("leak")) == vocabulary_sketch(["oil"])
    assert known(knows("oil"), knows("leak")) == vocabulary_sketch(["oil", "leak"])
    assert known(knows("oil", "pump"), knows("oil", "leak"), liar) == vocabulary_sketch(["oil", "pump", "leak"])
    assert known(knows("a"), knows("b"), knows("c")) == ""


def test_of_many_columns_the_first_are_told_and_the_whole_by_digests() -> None:
    wide = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 400)),),
        inputs=tuple(FieldSpec(name=f"f{at}", dtype="float32", tensor="x", column=at) for at in range(400)),
        outputs=(OutputSpec(name="value", dtype="float32", shape=(None, 1), role="value"),),
    )
    x = np.random.default_rng(0).normal(1e5, 1, size=(400, 400)).astype(np.float32)
    seen = {"x": x, "value": x[:, :1], first_columns("x"): FirstDigests((None, 400))(x)}
    told = sketches_of(wide, seen)
    assert len(msgspec.json.encode(told)) <= MAX_SKETCH_BYTES
    names = {stream.name for stream in learn(wide, [told]).spec.streams}
    assert {"value", "x.norm", "x.projection 8", "f0", "f120"} <= names
    assert "f399" not in names


def test_an_agent_that_tells_columns_only_adds_what_it_tells() -> None:
    def columns_only(sketches: dict[str, Sketch]) -> dict[str, Sketch]:
        kept = {key: one for key, one in sketches.items() if key.split(":")[0] in {"in", "out"}}
        return {key: replace(one, correlations=(), vocabulary="") for key, one in kept.items()}

    first, second, third = told(1, 2, 3)
    mixed = learn(SCHEMA, [first, columns_only(second), columns_only(third)])
    assert set(mixed.spec.index) == set(learn(SCHEMA, [first, second, third]).spec.index)
    old = set(learn(SCHEMA, [columns_only(one) for one in (first, second, third)]).spec.index)
    assert {"p", "t", "note.length", "score"} <= old
    assert not any(name.startswith(("image.", "joint", "note.unknown")) for name in old)


def test_a_liar_changes_neither_scale_nor_cells_of_a_wide_tensor() -> None:
    honest = told(1, 2, 3)
    liar = {key: Sketch(n=400, quantiles=(-1e30,) * 16 + (1e30,) * 17) for key in honest[0] if key.startswith("wide:")}
    streams = {stream.name: stream for stream in learn(SCHEMA, [*honest, liar]).spec.streams}
    expected = {stream.name: stream for stream in learn(SCHEMA, honest).spec.streams}
    for name in ("image.brightness", "image.projection 5"):
        assert streams[name].params["scale"] == expected[name].params["scale"]
        lied, found = streams[name].grid, expected[name].grid
        assert isinstance(lied, NumericGrid)
        assert isinstance(found, NumericGrid)
        assert lied.inverse_step == pytest.approx(found.inverse_step, rel=0.1)
