"""Joint features see what no single feature shows: correlations that change while every marginal stays the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec
from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.joint_fitting import joint_streams
from shoal_protocol.profile.learning import learn
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.sketch import sketches_of
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import corrected, five_views

WIDTH, TRAINED, LIVE, REPEATS, LEVEL = 8, 4000, 1000, 60, 0.01
Rows = npt.NDArray[np.float32]


def rows_of(random: np.random.Generator, count: int, correlation: float) -> Rows:
    """Return standard normal columns, neighbours in pairs correlated: every marginal is the same at any correlation."""
    x = random.normal(size=(count, WIDTH))
    x[:, 1::2] = correlation * x[:, ::2] + np.sqrt(1 - correlation**2) * x[:, 1::2]
    return x.astype(np.float32)


def marginals(training: Rows) -> list[Stream]:
    return [Stream(f"f{at}", "input", fit_numeric(training[:, at]), "x", at) for at in range(WIDTH)]


def power(streams: list[Stream], training: Rows, correlation: float, random: np.random.Generator) -> float:
    """Return how often any stream is called changed, Bonferroni over views and streams."""
    spec = ProfileSpec(tuple(streams))
    before = summarise(spec, {"x": training}).cells.astype(float)
    fired = 0
    for _ in range(REPEATS):
        now = summarise(spec, {"x": rows_of(random, LIVE, correlation)}).cells.astype(float)
        views = five_views(Layout.of(spec), before, now)
        p = [float(corrected(views.p[at], views.share[at])) for at in range(len(streams))]
        fired += min(p) * len(streams) < LEVEL
    return fired / REPEATS


@pytest.mark.parametrize(("correlation", "least"), [(0.75, 0.9), (0.0, 1.0), (-0.9, 1.0)])
def test_a_changed_correlation_is_found_by_joint_features_only(correlation: float, least: float) -> None:
    random = np.random.default_rng(2)
    training = rows_of(random, TRAINED, 0.9)
    single = marginals(training)
    both = [*single, *joint_streams(single, {"x": training})]
    assert power(single, training, correlation, random) <= 0.1
    assert power(both, training, correlation, random) >= least
    assert power(both, training, 0.9, random) <= 0.1


def test_learnt_joint_features_find_it_too_though_a_device_lies() -> None:
    random = np.random.default_rng(6)
    fields = tuple(FieldSpec(name=f"f{at}", dtype="float32", tensor="x", column=at) for at in range(WIDTH))
    schema = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, WIDTH)),), inputs=fields, outputs=()
    )
    told = [sketches_of(schema, {"x": rows_of(random, 600, 0.9)}) for _ in range(3)]
    liar = {name: replace(one, correlations=(-10_000,) * at) for at, (name, one) in enumerate(told[0].items())}
    broken = sketches_of(schema, {"x": np.full((600, WIDTH), 7e9, np.float32)})
    streams = list(learn(schema, [*told, liar, broken]).spec.streams)
    assert [stream.name for stream in streams if stream.derive == "joint"] == [f"joint {at}" for at in range(1, 7)]
    training = rows_of(random, TRAINED, 0.9)
    assert power(streams, training, 0.75, random) >= 0.9
    assert power(streams, training, 0.9, random) <= 0.1


def test_the_title_names_what_loads_most() -> None:
    random = np.random.default_rng(3)
    training = random.normal(size=(500, 3)).astype(np.float32)
    training[:, 1] = training[:, 0] + 0.01 * training[:, 1]
    streams = [Stream(name, "input", fit_numeric(training[:, at]), "x", at) for at, name in enumerate("abc")]
    joints = joint_streams(streams, {"x": training})
    assert [stream.name for stream in joints] == ["joint 1", "joint 2", "joint 3"]
    assert {part.removeprefix("-") for part in _loads(joints[0].title)[:2]} == {"a", "b"}
    assert {part.removeprefix("-") for part in _loads(joints[-1].title)[:2]} == {"a", "b"}


def _loads(title: str) -> list[str]:
    return title.split("(")[1].removesuffix(")").split(", ")


def test_a_later_version_keeps_the_joint_features_while_their_sources_count_the_same() -> None:
    random = np.random.default_rng(4)
    old, new = ({"x": random.normal(size=(400, 4)).astype(np.float32)} for _ in range(2))
    streams = [Stream(f"f{at}", "input", fit_numeric(old["x"][:, at]), "x", at) for at in range(4)]
    parent = ProfileSpec((*streams, *joint_streams(streams, old)))
    assert joint_streams(streams, new, parent=parent) == list(parent.streams[4:])
    other: list[Any] = [*streams[:3], Stream("f3", "input", fit_numeric(new["x"][:, 3]), "x", 3)]
    assert joint_streams(other, new, parent=parent) != list(parent.streams[4:])


def test_too_few_rows_give_no_joint_features() -> None:
    x = np.random.default_rng(5).normal(size=(49, 3)).astype(np.float32)
    streams = [Stream(f"f{at}", "input", fit_numeric(x[:, at]), "x", at) for at in range(3)]
    assert joint_streams(streams, {"x": x}) == []


def test_what_hardly_ever_leaves_one_cell_is_in_no_joint_feature() -> None:
    """One row of 900 lies in the next cell: a spread of next to nothing would give a weight beyond all bounds."""
    x = np.random.default_rng(6).normal(size=(900, 4)).astype(np.float32)
    streams = [Stream(f"f{at}", "input", fit_numeric(x[:, at]), "x", at) for at in range(4)]
    edges = np.sort(x[:, 2])[[450, 470]]
    x[:, 2] = np.where(np.arange(900) == 7, edges[1], edges[0])
    joints = joint_streams(streams, {"x": x})
    assert ProfileSpec((*streams, *joints)).streams[-1].is_known
    assert [joint.params["streams"] for joint in joints] == [["f0", "f1", "f3"]] * 3
