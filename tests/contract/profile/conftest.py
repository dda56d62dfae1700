"""Specs with every kind of stream, made as `pack` makes it and as a fleet learns it, and rows for them."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from shoal_agent.runtime.followers import Followed
from shoal_agent.runtime.learner import Learner
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.profile.joint_fitting import joint_streams
from shoal_protocol.profile.learning import learn
from shoal_protocol.profile.profile import ProfileSpec
from shoal_protocol.profile.sketch import parse_sketches
from shoal_protocol.profile.streams import input_streams, output_streams, uniquely_named

Rows = dict[str, npt.NDArray[Any]]

FIELDS = (
    *(FieldSpec(name=name, dtype="float32", tensor="x", column=at) for at, name in enumerate(("a", "b", "c", "count"))),
    FieldSpec(name="flag", dtype="bool", tensor="flag"),
    FieldSpec(name="city", dtype="string", tensor="city"),
    FieldSpec(name="number", dtype="int64", tensor="number"),
    FieldSpec(name="at", dtype="int64", tensor="at"),
    FieldSpec(name="embedding", dtype="float32", tensor="embedding"),
    FieldSpec(name="image", dtype="float32", tensor="image"),
    FieldSpec(name="picture", dtype="uint8", tensor="picture"),
    FieldSpec(name="note", dtype="string", tensor="note"),
)
OUTPUTS = (
    OutputSpec(name="label", dtype="string", shape=(None,), role="label", classes=("no", "yes")),
    OutputSpec(name="probabilities", dtype="float32", shape=(None, 2), role="probabilities"),
    OutputSpec(name="labels", dtype="int64", shape=(None, 3), role="label"),
    OutputSpec(name="scores", dtype="float32", shape=(None, 1), role="scores"),
    OutputSpec(name="value", dtype="float32", shape=(None, 2), role="value"),
    OutputSpec(name="features", dtype="float32", shape=(None, 24), role="other"),
)
WORDS = ("pump", "valve", "läuft", "noisy", "7", "42", "bearing", "不良", "again", "since", "monday", "oil")


def draw_rows(n: int, seed: int, *, hostile: bool = False) -> Rows:
    """Return rows of all tensors; hostile ones have NaN, infinities and the ends of types among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[:, 1] += 2 * x[:, 0]
    x[:, 3] = rng.poisson(4, n)
    rows: Rows = {
        "x": x,
        "flag": rng.random((n, 1)) < 0.3,
        "city": rng.choice(np.array(["Bern", "Basel", "", "elsewhere"], dtype=object), (n, 1)),
        "number": rng.integers(-400, 4000, (n, 1)),
        "at": rng.integers(1_600_000_000, 1_700_000_000, (n, 1)),
        "embedding": rng.normal(size=(n, 48)).astype(np.float32) * np.linspace(3, 0.1, 48, dtype=np.float32),
        "image": rng.random((n, 3, 40, 50)).astype(np.float32),
        "picture": rng.integers(0, 256, (n, 36, 20, 1)).astype(np.uint8),
        "note": np.array([[" ".join(rng.choice(WORDS, rng.integers(0, 14)))] for _ in range(n)], dtype=object),
        "label": rng.choice(np.array(["no", "yes"], dtype=object), n),
        "probabilities": rng.random((n, 2)).astype(np.float32),
        "labels": rng.integers(0, 2, (n, 3)),
        "scores": rng.normal(size=(n, 1)).astype(np.float32),
        "value": rng.normal(size=(n, 2)).astype(np.float32) * 100,
        "features": rng.normal(size=(n, 24)).astype(np.float32),
    }
    if hostile:
        odd = np.array([np.nan, np.inf, -np.inf, 3.4e38, -0.0, 1e-45], dtype=np.float32)
        for values in rows.values():
            if values.dtype.kind == "f":
                hit = rng.random(values.shape) < 0.05
                values[hit] = rng.choice(odd, int(hit.sum()))
        ends = np.array([-(2**63), 2**63 - 1, 0])
        for name in ("number", "at", "labels"):
            hit = rng.random(rows[name].shape) < 0.1
            rows[name][hit] = rng.choice(ends, int(hit.sum()))
        rows["note"][rng.random((n, 1)) < 0.2] = "\x00\ud800 ﷽" * 900
    return rows


def packed() -> ProfileSpec:
    """Fit streams to a sample, as packing does."""
    sample = draw_rows(400, 0)
    streams = [stream for field in FIELDS for stream in input_streams(field, sample[field.tensor])]
    streams = uniquely_named(streams + output_streams(OUTPUTS, sample, rows=400))
    return ProfileSpec((*streams, *joint_streams(streams, sample)))


class Model(Followed):
    """What a learner sees of a model that came without data."""

    def __init__(self, schema: ModelSchema) -> None:
        super().__init__()
        self.schema = schema


def learnt() -> ProfileSpec:
    """Fit streams to what three devices tell of their first rows."""
    shapes = {name: (None, *values.shape[1:]) for name, values in draw_rows(1, 0).items()}
    inputs = {field.tensor: field.dtype for field in FIELDS}
    tensors = tuple(TensorSpec(name=name, dtype=dtype, shape=shapes[name]) for name, dtype in inputs.items())
    model: Any = Model(ModelSchema(tensors=tensors, inputs=FIELDS, outputs=OUTPUTS))
    told = []
    for device in range(3):
        learner, rows = Learner(model, seconds=0.0, monotonic=lambda: 0.0), draw_rows(400, device)
        for first in range(0, 400, 16):
            learner.answered({name: values[first : first + 16] for name, values in rows.items()}, {}, 1)
        told.append(parse_sketches(msgspec.json.decode(msgspec.json.encode(learner.sketches()))))
    return learn(model.schema, told).spec


@pytest.fixture(scope="session", params=[packed, learnt], ids=lambda made: made.__name__)
def spec(request: pytest.FixtureRequest) -> ProfileSpec:
    """Every kind of stream, on cells of either origin."""
    made: ProfileSpec = request.param()
    return made


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Rows]:
    return draw_rows
