"""How right a model is: counts, errors, segments and their intervals."""

import numpy as np
import pytest

from shoal_converter.domain.quality import MAX_SEGMENTS, classified, measured, segments, wilson

TRUE = np.array(["a", "a", "b", "b", "new"])
SAID = np.array(["a", "b", "b", "b", "a"])
SURE = np.array([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5], [0.01, 0.99], [0.9, 0.1]], np.float32)


def test_answers_are_counted_by_class_confidence_and_truth() -> None:
    found = classified(truth=TRUE, label=SAID, classes=("a", "b"), probabilities=SURE, data="validation")
    assert found is not None
    assert (found.n, found.data) == (5, "validation")
    assert found.confusion == ((1, 1), (0, 2))
    answered, correct = np.array(found.answered), np.array(found.correct)
    assert answered.sum() == 5
    assert answered[0, 63] == correct[0, 63] == 1  # a confidence of 1.0 belongs to the last bin
    assert (answered[1, 48], correct[1, 48]) == (1, 0)  # 0.75 opens bin 48
    assert (answered[0, 57], correct[0, 57]) == (1, 0)  # of a class that the model never learnt
    assert correct.sum() == 3
    assert found.scores is not None
    assert {at: n for at, n in enumerate(found.scores.rows) if n} == {0: 1, 48: 1, 32: 1, 63: 1}, "known classes only"
    assert {at: n for at, n in enumerate(found.scores.positive) if n} == {32: 1, 63: 1}


def test_scores_are_counted_of_two_classes_only() -> None:
    three = np.full((2, 3), 1 / 3, np.float32)
    found = classified(truth=TRUE[:2], label=SAID[:2], classes=("a", "b", "c"), probabilities=three, data="sample")
    assert found is not None
    assert found.answered
    assert found.scores is None


def test_without_probabilities_only_the_confusion_is_known() -> None:
    found = classified(truth=TRUE, label=SAID, classes=("a", "b"), probabilities=None, data="sample")
    assert found is not None
    assert found.answered == found.correct == ()
    classes = tuple(str(at) for at in range(101))
    assert classified(truth=TRUE, label=SAID, classes=classes, probabilities=None, data="sample") is None


def test_a_regressors_errors_are_summed_up() -> None:
    found = measured(truth=np.array([1.0, 2.0]), value=np.array([2.0, 5.0]), data="sample")
    assert (found.n, found.error_mean, found.error_std) == (2, 2.0, 1.0)


def test_intervals_are_wilsons() -> None:
    found = wilson(9, 10)  # Wilson 1927; compare with R: prop.test(9, 10, correct = FALSE)
    assert (found.low, found.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert wilson(10, 10).high == 1.0
    assert wilson(0, 3).low == 0.0


def test_figures_are_split_by_values_and_their_combinations() -> None:
    columns = {"site": np.array(["x", "x", "y", None], dtype=object), "shift": np.array([1, 2, 1, 1])}
    scores = np.array([1.0, 0.0, 1.0, 1.0])
    by_site = segments(columns, [["site"]], metric="accuracy", scores=scores)
    assert [(part.by, part.n, part.metrics["accuracy"].value) for part in by_site] == [
        ({"site": "x"}, 2, 0.5),
        ({"site": "missing"}, 1, 1.0),
        ({"site": "y"}, 1, 1.0),
    ]
    both = segments(columns, [["site", "shift"]], metric="accuracy", scores=scores)
    assert {tuple(part.by.values()) for part in both} == {("x", "1"), ("x", "2"), ("y", "1"), ("missing", "1")}


def test_numbers_of_many_values_are_split_at_quartiles_and_parts_are_bounded() -> None:
    columns = {"age": np.arange(400.0), "id": np.array([f"i{at}" for at in range(400)])}
    scores = np.linspace(0, 1, 400)
    ages = segments(columns, [["age"]], metric="mean_absolute_error", scores=scores)
    assert [part.n for part in ages] == [100] * 4
    figure = ages[0].metrics["mean_absolute_error"]
    assert figure.low < figure.value < figure.high
    assert len(segments(columns, [["id"]], metric="mean_absolute_error", scores=scores)) == MAX_SEGMENTS
