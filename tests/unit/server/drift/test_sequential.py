"""The sequential rule alone: e-values, their recursion, standardising."""

import numpy as np
import pytest
from scipy import stats

from shoal_server.drift.sequential import (
    COHORT,
    DEVICE,
    FLEET,
    MEMORY,
    MOST_INFLATION,
    absorb,
    bounded_sd,
    e_value,
    inflation,
    lagged,
    moderated_sd,
    normal_score,
    persistence,
    shiryaev_roberts,
    tau,
    unskewed,
)


def test_moments_are_those_of_all_windows() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 3))
    mean, m2 = np.zeros(3), np.zeros(3)
    for at, score in enumerate(scores, start=1):
        mean, m2 = absorb(mean, m2, np.array([at]), score)
    assert mean == pytest.approx(scores.mean(axis=0))
    assert m2 / 49 == pytest.approx(scores.var(axis=0, ddof=1))


@pytest.mark.parametrize("mean", [0.0, 0.4, -0.4])
@pytest.mark.parametrize("level", [FLEET, COHORT, DEVICE])
def test_an_e_value_expects_at_most_one_within_the_tolerance(mean: float, level) -> None:
    at = np.linspace(-12, 12, 20001)
    density = stats.norm.pdf(at, loc=mean)
    tolerance = tau(level, np.array(48.0))
    assert tolerance >= 0.4
    expected = np.trapezoid(e_value(at, tolerance=tolerance, clip=level.clip) * density, at)
    assert expected <= 1.0


def test_e_values_are_even_and_clipped() -> None:
    e = e_value(np.array([-9.0, -6.0, 6.0, 9.0]), tolerance=0.5, clip=6.0)
    assert e == pytest.approx(np.full(4, e[0]))


@pytest.mark.parametrize("level", [COHORT, DEVICE])
def test_one_window_of_one_stream_is_never_an_alarm(level) -> None:
    e = float(e_value(np.array(1e9), tolerance=tau(level, np.array(48.0)), clip=level.clip))
    assert e < 10_000 * 60  # the threshold of ten scopes of one feature


def test_evidence_grows_under_a_change_and_stays_small_without() -> None:
    random = np.random.default_rng(1)
    r = np.zeros(200)
    for _ in range(300):
        r = shiryaev_roberts(r, e_value(random.normal(size=200), tolerance=0.4, clip=6.0), most=1e12)
    assert (r >= 10_000).mean() < 0.02
    for _ in range(8):
        r = shiryaev_roberts(r, e_value(random.normal(size=200) + 3, tolerance=0.4, clip=6.0), most=1e12)
    assert (r >= 10_000).mean() > 0.95
    assert r.max() <= 1e12


def test_mean_time_to_a_false_alarm_is_at_least_the_threshold() -> None:
    random = np.random.default_rng(2)
    threshold, runs, windows = 20.0, 400, 200
    r = np.zeros(runs)
    alarms = 0
    for _ in range(windows):
        r = shiryaev_roberts(r, e_value(random.normal(size=runs), tolerance=0.0, clip=6.0), most=1e12)
        alarms += int((r >= threshold).sum())
        r[r >= threshold] = 0.0
    assert alarms <= runs * windows / threshold


def test_students_t_becomes_a_normal_score() -> None:
    t = np.array([-4.0, -1.0, 0.5, 3.0, 6.0])
    windows = np.array(48.0)
    change = t * np.sqrt(1 + 1 / 48)
    expected = stats.norm.isf(stats.t.sf(t, 47 + 4))
    assert normal_score(change, np.ones(5), windows) == pytest.approx(expected, abs=0.01)


def test_variances_are_moderated_towards_that_of_independent_rows() -> None:
    quiet = moderated_sd(np.array(0.0), np.array(48.0), prior=np.array(1.0))
    loud = moderated_sd(np.array(47 * 4.0), np.array(48.0), prior=np.array(1.0))
    assert 0.2 < quiet < 0.4
    assert 1.9 < loud < 2.0


def test_one_row_stays_within_one_and_a_half_standard_deviations() -> None:
    sd = bounded_sd(np.array([1e-6, 0.5]), reach=np.array(1.5), rows=np.array(20.0))
    assert sd == pytest.approx([0.05, 0.5])
    assert (1.5 / 20) / sd[0] == pytest.approx(1.5)


def test_persistence_of_scores_that_follow_each_other_is_summed_over_lags() -> None:
    random = np.random.default_rng(5)
    noise = random.normal(size=(4000, 2))
    scores = np.zeros_like(noise)
    for at in range(1, len(noise)):
        scores[at] = np.array([0.0, 0.8]) * scores[at - 1] + noise[at]
    memory = total = np.zeros(2)
    for score in scores:
        memory, total = lagged(memory, total, score)
    m2 = (scores**2).sum(axis=0)
    assert persistence(total, m2, 5).tolist() == [0.0, 0.0]
    own = persistence(total, m2, len(scores))
    assert own == pytest.approx([0.0, 0.8 / (1 - 0.8 * MEMORY)], abs=0.3)
    # what is usual of other devices is the least that is assumed, and its own counts beyond its standard error only
    many = 10**12
    assert inflation(np.array([-0.2, 0.1, 2.0]), np.array(0.5), many) == pytest.approx([2.0, 2.0, 5.0], rel=1e-4)
    assert inflation(np.array([-0.2, 0.3, 1e9]), np.array(-1.0), 48) == pytest.approx([1.0, 1.0, MOST_INFLATION])


def test_sums_of_scores_that_follow_each_other_are_no_evidence() -> None:
    together = np.full(16, 3.0)  # sixteen windows that are one
    e = [float(np.prod(e_value(together, tolerance=0.4, clip=8.0, inflated=inflated))) for inflated in (1.0, 16.0)]
    assert e[0] > 100
    assert e[1] < 1


@pytest.mark.parametrize("expected", [0.6, 3.0, 20.0])
def test_few_rows_of_a_rare_category_are_no_evidence(expected: float) -> None:
    """The e-value of a sum of rare hits expects at most one, too; as a normal score it would not."""
    hits = np.arange(60)
    share = stats.poisson.pmf(hits, expected)
    z = normal_score(hits - expected, np.sqrt(expected), 300.0)
    tolerance = tau(FLEET, np.array(48.0))
    e = [
        float((share * e_value(score, tolerance=tolerance, clip=FLEET.clip)).sum())
        for score in (z, unskewed(z, np.full(60, 1 / np.sqrt(expected))))
    ]
    assert e[1] <= 1.0
    assert e[0] > e[1]
    assert unskewed(-z, np.full(60, 0.0)).tolist() == (-z).tolist()
