"""The confusion matrix that is expected without labels, and its figures: against the truth, at any threshold."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score

from shoal_server.statistics.calibration import smoothed_shares
from shoal_server.statistics.confusion import overall
from shoal_server.statistics.expected_confusion import (
    ClassEstimates,
    estimate_auc,
    estimate_binary,
    estimate_classes,
    expected_auc,
)
from shoal_server.statistics.performance import Calibration, ScoreCalibration

BINS = 64


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def world(rng: np.random.Generator, n: int, *, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the second class, over-confident by half, and the truth."""
    logit = rng.normal(centre, 2.0, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-logit))
    return 1 / (1 + np.exp(-1.5 * logit)), truth


def histogram(score: np.ndarray) -> np.ndarray:
    return np.bincount(np.minimum((score * BINS).astype(int), BINS - 1), minlength=BINS)


def by_score(score: np.ndarray, truth: np.ndarray) -> ScoreCalibration:
    return ScoreCalibration(histogram(score).astype(float), histogram(score[truth]).astype(float))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.83])
def test_estimates_come_true_whatever_the_threshold_of_the_model(threshold):
    """Counts by score know which rows were named: the largest scores. The middle is only the usual threshold."""
    old, truth0 = world(random(8), 30_000, centre=0.0)
    calibration = Calibration(*(np.zeros((2, BINS)) for _ in range(2)), scores=by_score(old, truth0))
    score, truth = world(random(9), 30_000, centre=-0.7)
    said = score >= threshold
    found = estimate_binary(calibration, histogram(score), np.bincount(said.astype(int), minlength=2))
    real = confusion_matrix(truth, said)
    assert np.abs(found.confusion - real).max() < 0.012 * len(score)
    for estimate, value in (
        (found.accuracy, (said == truth).mean()),
        (found.precision, precision_score(truth, said)),
        (found.recall, recall_score(truth, said)),
        (found.specificity, recall_score(~truth, ~said)),
        (found.f1, f1_score(truth, said)),
    ):
        assert estimate.value == pytest.approx(value, abs=0.015)


def several(rng: np.random.Generator, n: int, *, tilt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of four classes, over-confident, what is said and what is true; a tilt prefers the last class."""
    logits = 1.2 * rng.normal(size=(n, 4)) + tilt * np.arange(4) / 3
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random(n)[:, None] > chance.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    claimed = chance**1.5 / (chance**1.5).sum(axis=1, keepdims=True)
    return claimed, claimed.argmax(axis=1), truth


def counted_classes(claimed: np.ndarray, said: np.ndarray, truth: np.ndarray) -> Calibration:
    bins = np.minimum((claimed.max(axis=1) * BINS).astype(int), BINS - 1)
    answered, correct = np.zeros((4, BINS)), np.zeros((4, BINS))
    np.add.at(answered, (said, bins), 1)
    np.add.at(correct, (said, bins), said == truth)
    return Calibration(answered, correct)


def estimated_classes(old: tuple[np.ndarray, ...], now: tuple[np.ndarray, ...]) -> ClassEstimates:
    bins = np.minimum((now[0].max(axis=1) * BINS).astype(int), BINS - 1)
    return estimate_classes(
        counted_classes(*old),
        confusion_matrix(old[2], old[1]),
        np.bincount(bins, minlength=BINS),
        np.bincount(now[1], minlength=4),
    )


def real_classes(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    spared = [recall_score(truth != at, said != at) for at in range(4)]
    return {
        "accuracy": (said == truth).mean(),
        "precision": precision_score(truth, said, average="macro"),
        "recall": recall_score(truth, said, average="macro"),
        "specificity": np.mean(spared),
        "f1": f1_score(truth, said, average="macro"),
    }


def test_figures_of_many_classes_are_the_means_of_each_against_the_rest():
    now = several(random(11), 30_000, tilt=0.6)
    found = estimated_classes(several(random(10), 30_000, tilt=0.0), now)
    for name, value in real_classes(now[1], now[2]).items():
        assert getattr(found, name).value == pytest.approx(value, abs=0.015), name
    table = confusion_matrix(now[2], now[1])
    assert found.confusion.sum(axis=0) == pytest.approx(table.sum(axis=0), rel=1e-3)
    told = overall(table)
    assert told == pytest.approx({name: real_classes(now[1], now[2])[name] for name in told})


def real_figures(said: np.ndarray, truth: np.ndarray, classes: int) -> dict[str, float]:
    table = np.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes)
    return {"accuracy": float((said == truth).mean()), **overall(table)}


def test_intervals_of_every_figure_hold():
    """At 95 %, of 60 pairs of a reference and rows of now, with two classes and with four."""
    covered: dict[str, int] = defaultdict(int)
    for seed in range(60):
        rng = random(seed)
        now = several(rng, 1500, tilt=0.3)
        found = estimated_classes(several(rng, 1500, tilt=0.0), now)
        for name, value in real_figures(now[1], now[2], 4).items():
            covered[f"four: {name}"] += getattr(found, name).low <= value <= getattr(found, name).high
        old, truth0 = world(rng, 1500, centre=0.0)
        score, truth = world(rng, 1500, centre=0.4)
        calibration = Calibration(*(np.zeros((2, BINS)) for _ in range(2)), scores=by_score(old, truth0))
        said = (score >= 0.6).astype(int)
        both = estimate_binary(calibration, histogram(score), np.bincount(said, minlength=2))
        auc = estimate_auc(calibration, histogram(score))
        covered["two: auc"] += auc.low <= roc_auc_score(truth, score) <= auc.high
        for name, value in real_figures(said, truth.astype(int), 2).items():
            covered[f"two: {name}"] += getattr(both, name).low <= value <= getattr(both, name).high
    assert min(covered.values()) >= 53, dict(covered)


def test_a_figure_of_nothing_is_no_figure_and_a_class_that_nobody_names_counts_as_zero():
    calibration = Calibration(
        *(np.zeros((2, BINS)) for _ in range(2)), scores=by_score(*world(random(1), 500, centre=0.0))
    )
    rows = np.zeros(BINS)
    rows[:5] = 100
    found = estimate_binary(calibration, rows, [500, 0])
    assert math.isnan(found.precision.value)
    assert found.recall.value == 0.0
    assert overall([[5, 0, 0], [1, 0, 0], [0, 0, 4]])["precision"] == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert "precision" not in overall([[5, 0], [1, 0]])


def test_the_order_of_scores_within_a_bin_counts_for_the_auc():
    """Scores of a rare class lie in few of the 64 bins: they are no ties."""
    rng = random(3)
    score = 1 / (1 + np.exp(-rng.normal(-4.0, 1.0, 200_000)))
    truth = rng.random(score.size) < score
    rows, positive = histogram(score).astype(float), histogram(score[truth])
    share = smoothed_shares(rows, positive)
    real = roc_auc_score(truth, score)
    below = np.cumsum(rows * (1 - share)) - rows * (1 - share)
    tied = (rows * share) @ (below + rows * (1 - share) / 2) / ((rows * share).sum() * (rows * (1 - share)).sum())
    assert abs(expected_auc(rows, share) - real) < 0.5 * abs(tied - real)
