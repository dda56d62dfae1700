"""What holds of the statistics whatever the counts are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.drift.effects import deployment_gap
from shoal_server.drift.pooling import capped, trimmed_mean
from shoal_server.drift.scores import COMPONENTS, Basis
from shoal_server.drift.sequential import e_value, shiryaev_roberts
from shoal_server.statistics.divergence import jensen_shannon, psi
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import five_views

SPEC = ProfileSpec(
    (
        Stream("x", "input", fit_numeric(np.linspace(-1, 1, 200)), "x"),
        Stream("label", "output", CategoricalGrid(("a", "b", "c")), "y"),
    )
)
LAYOUT = Layout.of(SPEC)
COUNTS = st.one_of(st.integers(0, 5), st.integers(0, 10**12))
CELLS = arrays(np.int64, LAYOUT.size, elements=COUNTS)
FLOATS = st.floats(-1e9, 1e9, allow_nan=False)


@given(CELLS, CELLS)
def test_p_values_are_probabilities_and_the_order_of_the_samples_does_not_matter(a: np.ndarray, b: np.ndarray) -> None:
    there, back = five_views(LAYOUT, a, b), five_views(LAYOUT, b, a)
    assert np.isfinite(there.z).all()
    assert ((there.p >= 0) & (there.p <= 1)).all()
    assert (there.p_value <= 1).all()
    assert there.p == pytest.approx(back.p, rel=1e-3, abs=1e-6)
    assert there.effect == pytest.approx(-back.effect, abs=1e-6)


@given(CELLS)
def test_a_sample_does_not_differ_from_itself(a: np.ndarray) -> None:
    assert five_views(LAYOUT, a, a).p_value == pytest.approx(np.ones(2))
    assert psi(LAYOUT, a, a) == pytest.approx(np.zeros(2))
    assert not deployment_gap(LAYOUT, a, a).beyond.any()


@given(CELLS, CELLS)
def test_js_is_symmetric_and_bounded(a: np.ndarray, b: np.ndarray) -> None:
    js = jensen_shannon(LAYOUT, a, b)
    assert ((js >= -1e-12) & (js <= np.log(2) + 1e-12)).all()
    assert js == pytest.approx(jensen_shannon(LAYOUT, b, a), abs=1e-12)


@given(CELLS, CELLS)
def test_scores_are_bounded_whatever_is_counted(reference: np.ndarray, cells: np.ndarray) -> None:
    basis = Basis.of(LAYOUT, reference)
    scores = basis.scores(cells[None])
    assert scores.shape == (1, 2, COMPONENTS)
    assert (np.abs(scores[..., :4]) <= 3.0 + 1e-9).all()
    assert ((scores[..., 4:] >= 0) & (scores[..., 4:] <= 1)).all()
    assert (basis.variance > 0).all()


@given(arrays(np.float64, st.integers(3, 20), elements=FLOATS), FLOATS, st.data())
def test_one_device_moves_a_trimmed_mean_no_further_than_the_others_reach(
    values: np.ndarray, forged: float, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(values) - 1))
    others = np.delete(values, at)
    values[at] = forged
    rows = np.full(len(values), 20)
    rows[at] = 10**12
    assert others.min() - 1e-6 <= trimmed_mean(values, capped(rows)) <= others.max() + 1e-6


@given(st.floats(0, 1e12), st.floats(allow_nan=False), st.floats(0, 10))
def test_evidence_stays_finite_and_positive(r: float, z: float, tolerance: float) -> None:
    e = e_value(np.array(z), tolerance=tolerance, clip=8.0)
    assert 0 < e < 1e11
    assert 0 <= shiryaev_roberts(np.array(r), e, most=1e12) <= 1e12
