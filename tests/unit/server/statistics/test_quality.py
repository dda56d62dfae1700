"""Quality from counts: shares over devices, calibration, estimates without labels, label shift, and arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from shoal_server.statistics.calibration import (
    calibration_error_by_chance,
    expected_calibration_error,
    isotonic,
    reliability,
    smoothed_shares,
)
from shoal_server.statistics.confusion import ClassQuality, class_quality, macro_f1
from shoal_server.statistics.expected_confusion import estimate_auc, estimate_binary
from shoal_server.statistics.label_shift import estimate_label_shift
from shoal_server.statistics.performance import Calibration, estimate_accuracy, fitted_joint
from shoal_server.statistics.proportions import exact, mean, share, wilson

BINS = 64


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# Shares --------------------------------------------------------------------------------------------------------------


def test_wilson_and_clopper_pearson_are_the_textbooks():
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert exact(8, 10) == pytest.approx((0.443905, 0.974789), abs=1e-6)
    assert wilson(0, 0) == exact(0, 0) == (0.0, 1.0)


def test_equal_devices_get_the_binomial_interval_and_different_ones_a_wider_one():
    alike = share([90] * 20, [100] * 20)
    differing = share([100, 80] * 10, [100] * 20)
    assert (alike.value, alike.n, alike.devices) == (0.9, 2000, 20)
    assert (alike.low, alike.high) == pytest.approx(wilson(1800, 2000), abs=1e-9)
    assert differing.high - differing.low > 2.5 * (alike.high - alike.low)


def test_the_interval_over_devices_holds_where_devices_differ():
    rng, covered = random(1), 0
    for _ in range(150):
        n = rng.integers(20, 200, size=12)
        hits = rng.binomial(n, rng.beta(18, 2, size=12))
        found = share(hits, n)
        covered += found.low <= 0.9 <= found.high
    assert covered >= 0.9 * 150


def test_one_device_that_shouts_is_capped():
    forged = share([90] * 10 + [0], [100] * 10 + [10**12], cap=2.0)
    assert forged.value == pytest.approx(900 / 1200)


def test_no_rows_are_no_answer():
    assert math.isnan(share([], []).value)
    assert math.isnan(mean([], [], []).value)


def test_a_mean_over_devices():
    rng = random(12)
    values = [rng.normal(rng.normal(3, 1), 0.1, size=50) for _ in range(30)]
    found = mean([v.sum() for v in values], [(v**2).sum() for v in values], [50] * 30)
    assert found.low < 3 < found.high
    assert found.high - found.low > 0.5, "rows of a device are alike: thirty devices, not 1,500 rows"


# Confusion and calibration -------------------------------------------------------------------------------------------


def qualities(table: np.ndarray) -> list[ClassQuality]:
    """Of one device."""
    counts = zip(np.diag(table), table.sum(axis=1), table.sum(axis=0), strict=True)
    return [class_quality([hit], [truly], [said]) for hit, truly, said in counts]


def test_figures_of_classes_are_scikit_learns():
    rng = random(3)
    truth = rng.integers(0, 3, 500)
    said = np.where(rng.random(500) < 0.7, truth, rng.integers(0, 3, 500))
    table = np.zeros((3, 3))
    np.add.at(table, (truth, said), 1)
    found = qualities(table)
    assert [one.precision.value for one in found] == pytest.approx(precision_score(truth, said, average=None))
    assert [one.recall.value for one in found] == pytest.approx(recall_score(truth, said, average=None))
    assert [one.f1.value for one in found] == pytest.approx(f1_score(truth, said, average=None))
    assert macro_f1(table) == pytest.approx(f1_score(truth, said, average="macro"))
    assert all(one.f1.low < one.f1.value < one.f1.high for one in found)


def test_a_class_without_rows_has_no_figures():
    found = qualities(np.array([[5, 0], [0, 0]]))
    assert math.isnan(found[1].recall.value)
    assert macro_f1([[5, 0], [0, 0]]) == 1.0


def test_calibration_error_and_table():
    answered = np.zeros(BINS)
    answered[[48, 60]] = (100, 300)
    correct = np.zeros(BINS)
    correct[[48, 60]] = (50, 300)
    gap = (100 * abs(0.5 - 48.5 / 64) + 300 * abs(1 - 60.5 / 64)) / 400
    assert expected_calibration_error(answered, correct) == pytest.approx(gap)
    assert [(row["n"], row["right"]) for row in reliability([answered], [correct])] == [(100, 0.5), (300, 1.0)]
    assert math.isnan(expected_calibration_error(np.zeros(BINS), np.zeros(BINS)))
    assert math.isnan(calibration_error_by_chance(np.zeros(BINS)))


def test_figures_of_classes_and_confidences_hold_where_devices_differ():
    rng, recall, right = random(5), 0, 0
    n = np.full(12, 100)
    for _ in range(150):
        hits = rng.binomial(n, rng.beta(18, 2, size=12))
        found = class_quality(hits, n, hits + 5)
        recall += found.recall.low <= 0.9 <= found.recall.high
        (row,) = reliability(n[:, None] * (np.arange(BINS) == 60), hits[:, None] * (np.arange(BINS) == 60))
        right += row["low"] <= 0.9 <= row["high"]
    assert min(recall, right) >= 0.9 * 150, "by rows alone about half of them would"


@pytest.mark.parametrize("rows", [60, 200, 2000])
def test_what_chance_makes_of_a_calibration_error_is_what_exact_confidences_show(rows):
    rng = random(6)
    answered = rng.multinomial(rows, [1 / 32] * 32)
    answered = np.concatenate([np.zeros(32, int), answered])
    draws = [rng.binomial(answered, (np.arange(BINS) + 0.5) / BINS) for _ in range(200)]
    found = [expected_calibration_error(answered, right) for right in draws]
    assert calibration_error_by_chance(answered) == pytest.approx(np.mean(found), rel=0.05)
    one = np.eye(BINS)[63]
    p = 63.5 / 64
    assert calibration_error_by_chance(one) == pytest.approx(2 * p * (1 - p))


def test_pooling_adjacent_violators():
    assert isotonic(np.array([0.1, 0.5, 0.3, 0.9]), np.array([1.0, 1.0, 3.0, 1.0])).tolist() == pytest.approx(
        [0.1, 0.35, 0.35, 0.9]
    )


def test_bins_without_rows_take_what_lies_between():
    answered, correct = np.zeros(BINS), np.zeros(BINS)
    answered[[40, 60]], correct[[40, 60]] = 1000, (600, 900)
    shares = smoothed_shares(answered, correct)
    assert shares[[40, 50, 60]] == pytest.approx([0.6, 0.75, 0.9], abs=0.001)
    assert smoothed_shares(np.zeros(4), np.zeros(4)).tolist() == [0.125, 0.375, 0.625, 0.875]


# Estimates without labels --------------------------------------------------------------------------------------------


def world(rng: np.random.Generator, n: int, *, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the second class, over-confident by half, and the truth."""
    logit = rng.normal(centre, 2.0, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-logit))
    return 1 / (1 + np.exp(-1.5 * logit)), truth


def counted(score: np.ndarray, truth: np.ndarray) -> Calibration:
    said = score >= 0.5
    bins = np.minimum((np.maximum(score, 1 - score) * BINS).astype(int), BINS - 1)
    answered, correct = np.zeros((2, BINS)), np.zeros((2, BINS))
    np.add.at(answered, (said.astype(int), bins), 1)
    np.add.at(correct, (said.astype(int), bins), said == truth)
    return Calibration(answered, correct)


def histogram(score: np.ndarray) -> np.ndarray:
    return np.bincount(np.minimum((score * BINS).astype(int), BINS - 1), minlength=BINS)


@pytest.mark.parametrize("centre", [0.0, 1.5, -1.0])
def test_estimates_come_true_under_covariate_shift_although_the_model_is_over_confident(centre):
    rng = random(4)
    calibration = counted(*world(rng, 40_000, centre=0.0))
    score, truth = world(rng, 40_000, centre=centre)
    found = estimate_binary(calibration, histogram(score))
    said = score >= 0.5
    for estimate, real in (
        (found.accuracy, (said == truth).mean()),
        (found.precision, precision_score(truth, said)),
        (found.recall, recall_score(truth, said)),
        (found.f1, f1_score(truth, said)),
        (estimate_auc(calibration, histogram(score)), roc_auc_score(truth, score)),
    ):
        assert estimate.value == pytest.approx(real, abs=0.012)
        assert estimate.low - 0.006 < real < estimate.high + 0.006
    naive = np.maximum(score, 1 - score).mean()
    assert abs(naive - (said == truth).mean()) > 0.03, "what the confidences say themselves would be wrong"


def test_intervals_of_the_estimate_hold():
    covered = 0
    for seed in range(40):
        rng = random(seed)
        calibration = counted(*world(rng, 1500, centre=0.0))
        score, truth = world(rng, 1500, centre=0.7)
        found = estimate_binary(calibration, histogram(score)).accuracy
        covered += found.low <= ((score >= 0.5) == truth).mean() <= found.high
    assert covered >= 35


def test_margins_alone_give_the_accuracy_of_many_classes():
    calibration = counted(*world(random(5), 40_000, centre=0.0))
    score, truth = world(random(6), 40_000, centre=1.0)
    confidence = np.maximum(score, 1 - score)
    bins = np.bincount(np.minimum((confidence * BINS).astype(int), BINS - 1), minlength=BINS)
    said = np.bincount((score >= 0.5).astype(int), minlength=2)
    real = ((score >= 0.5) == truth).mean()
    assert estimate_accuracy(calibration, bins, said).value == pytest.approx(real, abs=0.008)
    assert estimate_accuracy(calibration, bins, [0, 0]).value == pytest.approx(real, abs=0.02)


def test_a_fitted_joint_table_has_the_margins():
    table = fitted_joint([[10, 0, 5], [1, 20, 3]], [30, 10], [10, 20, 10])
    assert table.sum(axis=0) == pytest.approx([10, 20, 10])
    assert table.sum(axis=1) == pytest.approx([30, 10], rel=1e-3)


# Label shift ---------------------------------------------------------------------------------------------------------

CONFUSION = np.array([[4500, 500], [300, 4700]])


def test_a_new_mix_of_classes_is_found():
    rows = np.array([[0.9, 0.1], [0.06, 0.94]]).T @ [0.2, 0.8] * 5000
    found = estimate_label_shift(CONFUSION, rows)
    assert not found.reason
    assert found.shifted
    assert [one.value for one in found.now] == pytest.approx([0.2, 0.8], abs=0.01)


def test_the_same_mix_is_no_shift_at_the_level():
    rng, false = random(7), 0
    for _ in range(150):
        reference = rng.multinomial(2000, (CONFUSION / CONFUSION.sum()).ravel()).reshape(2, 2)
        now = rng.multinomial(1000, CONFUSION.sum(axis=0) / CONFUSION.sum())
        false += estimate_label_shift(reference, now).shifted
    assert false <= 0.1 * 150


def answers(rng: np.random.Generator, classes: int, right: float, *, labelled: int, rows: int, mix: np.ndarray):
    """A confusion matrix of labelled rows of equally frequent classes, and predictions of rows of a mix."""
    rates = np.full((classes, classes), (1 - right) / (classes - 1))
    np.fill_diagonal(rates, right)
    table = rng.multinomial(labelled, (rates / classes).ravel()).reshape(classes, classes)
    return table, sum(rng.multinomial(n, rates[at]) for at, n in enumerate(rng.multinomial(rows, mix)))


def test_few_labels_of_many_classes_are_no_shift_and_intervals_cover():
    rng, mix = random(8), np.full(10, 0.1)
    found = [estimate_label_shift(*answers(rng, 10, 0.9, labelled=300, rows=1000, mix=mix)) for _ in range(250)]
    assert sum(one.shifted for one in found) <= 0.09 * 250
    covered = np.mean([[share.low <= 0.1 <= share.high for share in one.now] for one in found])
    assert 0.93 <= covered <= 0.985


def test_classes_that_only_chance_tells_apart_are_not_told():
    """A confusion matrix that looks better than it is would pull every mix towards the usual one."""
    rng, mix = random(9), np.array([0.9, 0.1])
    found = [estimate_label_shift(*answers(rng, 2, 0.6, labelled=300, rows=1000, mix=mix)) for _ in range(100)]
    assert sum(not one.reason for one in found) <= 6


@pytest.mark.parametrize(
    ("confusion", "rows", "words"),
    [
        ([[50, 50], [50, 50]], [500, 500], "singular"),
        ([[55, 45], [45, 55]], [500, 500], "confuses"),
        ([[5, 1], [1, 5]], [500, 500], "12 labelled rows"),
        ([[500, 1], [1, 500]], [5, 5], "too few"),
        ([[500, 100], [0, 0]], [500, 100], "lack a class"),
    ],
)
def test_what_cannot_be_told_is_said(confusion, rows, words):
    assert words in estimate_label_shift(confusion, rows).reason


def test_a_model_that_was_never_wrong_is_not_believed_where_it_is_hardly_sure() -> None:
    """200 labelled rows, all right and nearly all sure, say little of rows whose confidence they hardly have."""
    answered = np.zeros((2, 64))
    answered[:, 60:] = 24.0
    answered[:, 40] = 4.0
    calibration = Calibration(answered, answered.copy())
    sure, unsure = np.zeros(64), np.zeros(64)
    sure[60:], unsure[34:44] = 250.0, 100.0
    both = np.array([500.0, 500.0])
    among_sure = estimate_accuracy(calibration, sure, both)
    assert among_sure.value > 0.985
    among_unsure = estimate_accuracy(calibration, unsure, both)
    assert 0.8 < among_unsure.value < 0.95
    assert among_unsure.low < 0.85
    assert among_unsure.high > 0.99  # for all that is known, it may still be right there


def test_what_a_model_claims_hardly_counts_beside_many_labelled_rows() -> None:
    answered = np.full((1, 64), 500.0)
    correct = answered * 0.8  # whatever it claims
    shares = smoothed_shares(answered, correct)[0]
    assert shares == pytest.approx(np.full(64, 0.8), abs=2e-3)
