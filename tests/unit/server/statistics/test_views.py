"""Real level and power of the five views, against Kolmogorov-Smirnov on the raw rows."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream
from shoal_server.statistics import samples
from shoal_server.statistics.contrasts import Pair, both_beyond, location_p
from shoal_server.statistics.layout import Layout
from shoal_server.statistics.views import NUMERIC_SHARE, VIEWS, View, Views, dispersion, five_views, rate_p, rate_z

Rows = npt.NDArray[np.float64]
REFERENCE, ROWS, REPEATS, ALPHA = 10_000, 1000, 200, 0.01
GRID = fit_numeric(np.random.default_rng(7).normal(size=REFERENCE))
LAYOUT = Layout.of(ProfileSpec((Stream("x", "input", GRID, "x"),)))


def count(rows: Rows) -> npt.NDArray[np.int64]:
    """Count samples, shape (repeats, rows), on the coarse grid."""
    coarse = np.searchsorted(np.array(GRID.coarse), GRID.cells_of(rows), side="right") - 1
    flat = coarse + np.arange(len(rows))[:, None] * GRID.size
    return np.bincount(flat.ravel(), minlength=len(rows) * GRID.size).reshape(len(rows), GRID.size)


def experiment(change: Callable[[np.random.Generator, Rows], Rows]) -> tuple[Views, float]:
    """Return the views of many repeats, and the share in which KS on the raw rows rejects."""
    random = np.random.default_rng(11)
    before = random.normal(size=(1, REFERENCE))
    after = change(random, random.normal(size=(REPEATS, ROWS)))
    truth = count(random.normal(size=(1, 400_000)))[0] / 400_000
    views = five_views(LAYOUT, random.multinomial(REFERENCE, truth, size=REPEATS), count(after))
    p = [stats.ks_2samp(before[0], rows[~np.isnan(rows)], method="asymp").pvalue for rows in after[:80]]
    return views, float((np.array(p) < ALPHA).mean())


def outliers(random: np.random.Generator, rows: Rows) -> Rows:
    return np.where(random.random(rows.shape) < 0.05, 8 * rows, rows)


def stuck(random: np.random.Generator, rows: Rows) -> Rows:
    return np.where(random.random(rows.shape) < 0.03, 0.3, rows)


def missing(random: np.random.Generator, rows: Rows) -> Rows:
    return np.where(random.random(rows.shape) < 0.02, np.nan, rows)


def test_real_level_of_every_view_and_of_all_together() -> None:
    random = np.random.default_rng(3)
    repeats = 2000
    before = np.tile(count(random.normal(size=(1, REFERENCE))), (repeats, 1))
    probabilities = before[0] / before[0].sum()
    after = random.multinomial(ROWS, probabilities, size=repeats)
    before = random.multinomial(REFERENCE, probabilities, size=repeats)
    views = five_views(LAYOUT, before, after)
    rejected = (views.p[:, 0] < ALPHA).mean(axis=0)
    assert (rejected <= 0.018).all(), dict(zip(VIEWS, rejected, strict=True))
    assert 0.003 <= (views.p_value < ALPHA).mean() <= 0.0115
    assert np.abs(views.z.mean(axis=0)).max() < 0.08
    assert views.z.std(axis=0) == pytest.approx(1.0, abs=0.06)


def test_real_level_where_most_rows_have_one_value() -> None:
    random = np.random.default_rng(4)
    probabilities = np.full(GRID.size, 0.08 / (GRID.size - 5))
    probabilities[[0, 1, -1]] = 0
    probabilities[[5, 20]] = 0.7, 0.22
    before = random.multinomial(REFERENCE, probabilities / probabilities.sum(), size=2000)
    after = random.multinomial(ROWS, probabilities / probabilities.sum(), size=2000)
    views = five_views(LAYOUT, before, after)
    assert 0.003 <= (views.p[:, 0, VIEWS.index(View.SHAPE)] < ALPHA).mean() <= 0.018
    assert np.abs(np.corrcoef(views.z[:, 0].T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize(
    ("change", "at_least", "fires"),
    [
        (lambda _random, rows: rows * 1.1, 0.40, View.SHAPE),
        (outliers, 0.98, View.RANGE),
        (stuck, 0.30, View.CELLS),
        (missing, 0.98, View.MISSING),
    ],
    ids=["scale x 1.1", "5 % outliers", "3 % stuck", "2 % missing"],
)
def test_power_above_kolmogorov_smirnov_on_raw_rows(
    change: Callable[[np.random.Generator, Rows], Rows], at_least: float, fires: View
) -> None:
    views, raw = experiment(change)
    power = float((views.p_value[:, 0] < ALPHA).mean())
    assert power >= max(at_least, raw + 0.2)
    rejected = views.p_value[:, 0] < ALPHA
    which = np.bincount(views.firing[rejected, 0], minlength=len(VIEWS))
    assert VIEWS[int(which.argmax())] is fires


def test_power_for_a_shift_of_a_tenth_of_a_standard_deviation() -> None:
    views, _raw = experiment(lambda _random, rows: rows + 0.1)
    assert (views.p[:, 0, 0] < ALPHA).mean() >= 0.45
    assert 0.30 <= (views.p_value[:, 0] < ALPHA).mean() <= 0.60
    assert views.effect[:, 0, 0].mean() == pytest.approx(0.098, abs=0.01)


def test_a_shift_of_sharply_peaked_values_is_found_as_often_as_by_raw_rows() -> None:
    random = np.random.default_rng(12)
    repeats, shift = 400, 0.085
    before, after = random.laplace(size=REFERENCE), random.laplace(size=(repeats, ROWS)) + shift
    raw = [stats.ks_2samp(before, rows, method="asymp").pvalue < ALPHA for rows in after]
    views = five_views(LAYOUT, count(before[None]), count(after))
    alone = 2 * stats.norm.sf(np.abs(views.z[:, 0, 0])) / NUMERIC_SHARE[0]  # by Wilcoxon's score only
    power = float((views.p_value[:, 0] < ALPHA).mean())
    assert power >= 0.93 * np.mean(raw)
    assert power >= (alone < ALPHA).mean() + 0.04


def test_a_few_rows_that_move_up_in_a_falling_distribution_are_found_as_often_as_by_raw_rows() -> None:
    """Kolmogorov and Smirnov see the one gap that this opens; means over all ranks find four fifths of that."""
    random = np.random.default_rng(14)
    grid = fit_numeric(random.exponential(size=REFERENCE))
    layout = Layout.of(ProfileSpec((Stream("x", "input", grid, "x"),)))
    coarse = np.searchsorted(np.array(grid.coarse), np.arange(grid.cells), side="right") - 1

    def counted(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(coarse[grid.cells_of(one)], minlength=grid.size) for one in rows])

    before, after = random.exponential(size=REFERENCE), random.exponential(size=(400, ROWS))
    after = np.where(random.random(after.shape) < 0.065, after + 1.5, after)
    raw = np.mean([stats.ks_2samp(before, rows, method="asymp").pvalue < ALPHA for rows in after])
    views = five_views(layout, counted(before[None])[0], counted(after))
    assert 0.3 < raw < 0.8, "or nothing is shown"
    assert (views.p_value[:, 0] < ALPHA).mean() >= 0.95 * raw


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ((500, 500), lambda r, size: r.normal(size=size)),
        ((10_000, 200), lambda r, size: r.laplace(size=size)),
        ((400, 200), lambda r, size: np.where(r.random(size) < 0.6, 0.0, r.exponential(size=size))),
        ((400, 200), lambda r, size: r.poisson(2.0, size=size).astype(float)),
        ((200, 2000), lambda r, size: (r.random(size) < 0.5).astype(float)),
    ],
    ids=["normal", "few peaked", "most are zero", "counts", "two values"],
)
def test_the_four_scores_of_location_hold_their_level_together(
    sizes: tuple[int, int], values: Callable[[np.random.Generator, tuple[int, ...]], Rows]
) -> None:
    """The bound is close to the truth: hardly less than asked for, and not more than chance explains."""
    random = np.random.default_rng(13)
    grid = fit_numeric(values(random, (10_000,)))
    layout = Layout.of(ProfileSpec((Stream("x", "input", grid, "x"),)))
    coarse = np.searchsorted(np.array(grid.coarse), np.arange(grid.cells), side="right") - 1
    truth = np.bincount(coarse[grid.cells_of(values(random, (200_000,)))], minlength=grid.size) / 200_000
    a, b = (random.multinomial(rows, truth, size=8000).astype(float) for rows in sizes)
    p = location_p(Pair.of(layout, a, b))[:, 0]
    for level in (0.1, 0.05, 0.01):
        assert 0.8 * level <= (p < level).mean() <= 1.05 * level + 2.6 * (level / 8000) ** 0.5


@pytest.mark.parametrize("correlation", [0.0, 0.3, -0.7, 0.93, 1.0])
@pytest.mark.parametrize("tails", [(0.01, 0.01), (0.002, 0.04), (1e-9, 1e-6), (0.6, 0.3), (1.0, 0.05)])
def test_two_correlated_scores_are_both_beyond_as_often_as_the_bivariate_normal_says(
    correlation: float, tails: tuple[float, float]
) -> None:
    found = float(both_beyond(np.array([tails[0]]), np.array([tails[1]]), np.array([correlation]))[0])
    limits, r = stats.norm.ppf(np.array(tails) / 2), abs(correlation)
    if r == 1:
        assert found == pytest.approx(min(tails), rel=1e-3)
    else:
        grid = np.linspace(limits[0] - 12, limits[0], 20_001)  # P(X < h, Y < k) by the conditional normal of Y
        density = stats.norm.pdf(grid) * stats.norm.cdf((limits[1] - r * grid) / np.sqrt(1 - r * r))
        assert found == pytest.approx(2 * float(np.trapezoid(density, grid)), rel=1e-3)


def test_categories_have_no_location_and_no_shape() -> None:
    layout = Layout.of(ProfileSpec((Stream("label", "output", CategoricalGrid(("a", "b", "c")), "y"),)))
    views = five_views(layout, np.array([0, 0, 500, 300, 200]), np.array([0, 0, 400, 300, 300]))
    assert views.share.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0]]  # nothing is missing and nothing unknown
    assert VIEWS[int(views.firing[0])] is View.CELLS
    table = np.array([[500, 300, 200], [400, 300, 300]])
    assert views.p[0, 2] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert views.p_value[0] == pytest.approx(views.p[0, 2])


@pytest.mark.parametrize(("missing", "share"), [(0, 0.0), (1, 0.0), (5, 0.05 / 0.95), (400, 0.05 / 0.95)])
def test_views_that_can_not_fire_leave_their_share_to_the_others(missing: int, share: float) -> None:
    random = np.random.default_rng(5)
    before, after = count(random.normal(size=(1, 1000)))[0], count(random.normal(size=(1, 500)))[0]
    before[[1, -1]] = after[[1, -1]] = 0
    before[0], after[0] = missing, 0
    views = five_views(LAYOUT, before, after)
    assert views.share[0, VIEWS.index(View.MISSING)] == pytest.approx(share)
    assert views.share[0, VIEWS.index(View.RANGE)] == 0
    assert views.share.sum() == pytest.approx(1)


def test_fewer_than_200_effective_rows_are_too_few() -> None:
    random = np.random.default_rng(5)
    before, after = count(random.normal(size=(1, 1000)))[0], count(random.normal(size=(1, 1000)))[0]
    assert five_views(LAYOUT, before, after, current_effect=5.0).enough.tolist() == [True]
    assert five_views(LAYOUT, before, after, current_effect=5.1).enough.tolist() == [False]


def test_a_design_effect_weakens_the_evidence_as_fewer_rows_would() -> None:
    before = 10 * np.ones(GRID.size, np.int64)
    after = before + np.arange(GRID.size)
    fewer = five_views(LAYOUT, before, after / 4)
    assert five_views(LAYOUT, before, after, current_effect=4.0).p == pytest.approx(fewer.p)


def test_empty_samples_say_nothing() -> None:
    nothing = np.zeros(GRID.size, np.int64)
    for a, b in ((nothing, nothing), (nothing, nothing + 5), (nothing + 5, nothing)):
        views = five_views(LAYOUT, a, b)
        assert views.p_value.tolist() == [1.0]
        assert not views.enough.any()


def test_a_feature_with_one_value_gives_no_evidence() -> None:
    before = np.zeros(GRID.size, np.int64)
    before[9] = 1000
    assert five_views(LAYOUT, before, 2 * before).p_value.tolist() == [1.0]


@pytest.mark.parametrize(
    ("hits_a", "rows_a", "hits_b", "rows_b"), [(0, 100, 0, 100), (3, 1000, 9, 800), (40, 50, 2, 60)]
)
def test_rates_are_compared_by_the_exact_conditional_mid_p(hits_a: int, rows_a: int, hits_b: int, rows_b: int) -> None:
    binomial = stats.binom(hits_a + hits_b, rows_b / (rows_a + rows_b))
    upper = binomial.sf(hits_b) + binomial.pmf(hits_b) / 2
    arguments = [np.array([float(x)]) for x in (hits_a, rows_a, hits_b, rows_b)]
    assert rate_p(*arguments)[0] == pytest.approx(min(1.0, 2 * min(upper, 1 - upper)))
    assert rate_z(*arguments)[0] == pytest.approx(stats.norm.isf(upper), abs=1e-9)


def test_devices_that_differ_are_seen_in_the_dispersion_and_not_in_the_mean() -> None:
    random = np.random.default_rng(9)
    z = random.normal(size=(40, 1))
    assert dispersion(z)[0] > 0.01
    z[:3] += 6
    z[3:6] -= 6
    assert dispersion(z)[0] < 1e-6


def test_skewed_contrasts_keep_their_level_deep_in_the_tail() -> None:
    """Among many features the smallest p-value decides; few rows of a rare value have a long tail."""
    random = np.random.default_rng(11)
    features, alpha = 64, 0.05

    def column(rows: int) -> npt.NDArray[np.float64]:
        return np.where(random.random(rows) < 0.97, 0.0, np.exp(random.normal(size=rows)))

    alarmed = 0
    for _ in range(12):
        reference, current = ({str(at): column(rows) for at in range(features)} for rows in (4000, 250))
        alarmed += samples.compare(reference, current, alpha=alpha).verdict is samples.Verdict.DRIFT
    assert alarmed <= 3


def test_a_rare_value_that_gets_common_is_still_seen() -> None:
    random = np.random.default_rng(12)
    reference = {"x": (random.random(4000) < 0.01).astype(np.float64)}
    current = {"x": (random.random(250) < 0.1).astype(np.float64)}
    assert samples.compare(reference, current).verdict is samples.Verdict.DRIFT
