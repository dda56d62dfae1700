"""Sums within streams of different sizes, against plain loops."""

import numpy as np
import pytest

from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.statistics.layout import Layout, legendre


@pytest.fixture(scope="module")
def spec() -> ProfileSpec:
    values = np.random.default_rng(0).normal(size=500)
    return ProfileSpec(
        (
            Stream("number", "input", fit_numeric(values), "x"),
            Stream("label", "output", CategoricalGrid(("a", "b", "c")), "y"),
            Stream("short", "input", NumericGrid(0.0, 1.0), "z"),
        )
    )


def test_sums_running_sums_and_spread_stay_within_a_stream(spec: ProfileSpec) -> None:
    layout = Layout.of(spec)
    cells = np.random.default_rng(1).integers(0, 9, size=(4, layout.size)).astype(float)
    parts = [slice(int(a), int(b)) for a, b in zip(spec.offsets, spec.offsets[1:], strict=False)]
    assert np.array_equal(layout.sums(cells), np.stack([cells[:, part].sum(axis=1) for part in parts], axis=1))
    assert np.array_equal(layout.running(cells), np.concatenate([cells[:, p].cumsum(axis=1) for p in parts], axis=1))
    assert layout.spread(np.array([1.0, 2.0, 3.0])).tolist() == [
        value for value, part in zip((1.0, 2.0, 3.0), parts, strict=True) for _ in range(part.stop - part.start)
    ]


def test_the_outer_cells_are_known_only_where_a_grid_has_them(spec: ProfileSpec) -> None:
    layout = Layout.of(spec)
    number, label, short = (spec.slice(name) for name in ("number", "label", "short"))
    assert np.flatnonzero(layout.outside[number]).tolist() == [1, spec.streams[0].grid.size - 1]
    assert np.flatnonzero(layout.outside[label]).tolist() == [1]
    assert np.flatnonzero(layout.outside[short]).tolist() == [1]  # its last coarse cell holds more than what is above
    assert layout.missing.sum() == 3
    assert layout.categorical.tolist() == [False, True, False]


def test_mid_ranks_leave_out_missing_values(spec: ProfileSpec) -> None:
    layout = Layout.of(spec)
    cells = np.zeros(layout.size)
    start = spec.slice("label").start
    cells[start : start + 5] = (90, 0, 10, 20, 70)
    ranks = layout.mid_ranks(cells)[start : start + 5]
    assert ranks[2:] == pytest.approx([0.05, 0.2, 0.65])


def test_legendre_polynomials_are_orthonormal() -> None:
    at, weights = np.polynomial.legendre.leggauss(20)
    values = legendre((at + 1) / 2)
    assert values @ np.diag(weights / 2) @ values.T == pytest.approx(np.eye(4), abs=1e-12)
    assert values @ weights == pytest.approx(np.zeros(4), abs=1e-12)
