"""Digests of wide tensors: learnt of first rows they find what those fitted to data find, and count the same."""

import numpy as np
import numpy.typing as npt
import pytest

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec
from shoal_protocol.profile.learning import learn
from shoal_protocol.profile.profile import ProfileSpec, derived, summarise
from shoal_protocol.profile.sketch import first_columns, sketches_of
from shoal_protocol.profile.streams import input_streams
from shoal_protocol.profile.wide import FirstDigests
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import corrected, five_views

WIDTH, REPEATS, LEVEL = 64, 20, 0.01
FIELD = FieldSpec(name="e", dtype="float32", tensor="e")
SHAPE = (None, 1, WIDTH)
SCHEMA = ModelSchema(tensors=(TensorSpec(name="e", dtype="float32", shape=SHAPE),), inputs=(FIELD,), outputs=())
Rows = npt.NDArray[np.float32]


class Embedding:
    """Vectors whose variance falls with the number of the direction; rows of zero mean are the hardest case."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.axes = np.linalg.qr(self.random.normal(size=(WIDTH, WIDTH)))[0] / np.arange(1, WIDTH + 1)[:, None]
        self.turn = np.linalg.qr(np.eye(WIDTH) + 0.02 * self.random.normal(size=(WIDTH, WIDTH)))[0]
        direction = self.random.normal(size=WIDTH)
        self.direction = direction / np.linalg.norm(direction)

    def rows(self, n: int, *, shift: float = 0.0, turned: bool = False) -> Rows:
        x = self.random.normal(size=(n, WIDTH)) @ self.axes + shift * self.direction
        return (x @ self.turn if turned else x).astype(np.float32)[:, None, :]


def learnt(embedding: Embedding) -> ProfileSpec:
    told = [sketches_of(SCHEMA, {first_columns("e"): FirstDigests(SHAPE)(embedding.rows(600))}) for _ in range(3)]
    return learn(SCHEMA, told).spec


def packed(embedding: Embedding) -> ProfileSpec:
    return ProfileSpec(tuple(input_streams(FIELD, embedding.rows(2000))))


def power(spec: ProfileSpec, before: Rows, live: list[Rows]) -> float:
    reference, fired = summarise(spec, {"e": before}).cells.astype(float), 0
    for rows in live:
        views = five_views(Layout.of(spec), reference, summarise(spec, {"e": rows}).cells.astype(float))
        p = [float(corrected(views.p[at], views.share[at])) for at in range(len(spec.streams))]
        fired += min(p) * len(p) < LEVEL
    return fired / len(live)


@pytest.mark.parametrize(("shift", "turned"), [(0.15, False), (0.0, True)], ids=["moved", "turned"])
def test_random_directions_find_what_principal_ones_find(shift: float, *, turned: bool) -> None:
    embedding = Embedding(1)
    before = embedding.rows(4000)
    live = [embedding.rows(1000, shift=shift, turned=turned) for _ in range(REPEATS)]
    quiet = [embedding.rows(1000) for _ in range(REPEATS)]
    by_random, by_principal = learnt(embedding), packed(embedding)
    assert not any("weights" in stream.params for stream in by_random.streams)
    assert power(by_random, before, live) >= max(0.9, power(by_principal, before, live) - 0.1)
    assert power(by_random, before, quiet) <= 0.1


@pytest.mark.parametrize("factor", [1e-3, 1.0, 255.0])
def test_first_digests_are_what_is_counted_later(factor: float) -> None:
    images = np.random.default_rng(2).random((300, 3, 20, 24)) * factor
    images[::7] = 0.0  # a dark picture has no size of its own
    shape = (None, 3, None, None)
    field = FieldSpec(name="e", dtype="float32", tensor="e")
    schema = ModelSchema(tensors=(TensorSpec(name="e", dtype="float32", shape=shape),), inputs=(field,), outputs=())
    digests = FirstDigests(shape)
    seen = np.concatenate([digests(images[at : at + 3].astype(np.float32)) for at in range(0, 300, 3)])
    spec = learn(schema, [sketches_of(schema, {first_columns("e"): seen})]).spec
    assert len(spec.streams) == len(digests.names) - 1
    for at, stream in enumerate(spec.streams):
        counted = derived(stream, images.astype(np.float32))
        np.testing.assert_allclose(counted, seen[:, at], atol=0.02 * counted.std())
