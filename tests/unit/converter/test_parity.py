"""What counts as equal."""

from __future__ import annotations

import numpy as np
import pytest

from shoal_converter.domain.parity import Tolerance, compare

LABELS = {"label": np.array([0, 1, 2, 1])}


def test_equal_outputs_pass() -> None:
    report = compare(LABELS, {"label": np.array([0, 1, 2, 1], dtype=np.int64)}, Tolerance())
    assert report.passed
    assert report.as_json()["label_flips"] == 0


def test_one_flipped_label_fails_and_is_named() -> None:
    report = compare(LABELS, {"label": np.array([0, 1, 1, 1])}, Tolerance())
    assert not report.passed
    assert report.label_flips == 1
    assert "label differs in 1 of 4 rows (first: row 2)" in report.sentence()


def test_flips_pass_when_the_caller_allows_the_share() -> None:
    found = {"label": np.array([0, 1, 1, 1])}
    assert compare(LABELS, found, Tolerance(max_label_flips=0.25)).passed
    assert not compare(LABELS, found, Tolerance(max_label_flips=0.24)).passed


def test_labels_are_compared_by_meaning_not_by_type() -> None:
    assert compare({"label": np.array([True, False])}, {"label": np.array([1, 0])}, Tolerance()).passed
    assert compare({"label": np.array(["a", "b"])}, {"label": np.array(["a", "b"], object)}, Tolerance()).passed
    assert not compare({"label": np.array(["1", "2"])}, {"label": np.array([2, 1])}, Tolerance()).passed


@pytest.mark.parametrize(
    ("source", "converted", "passes"),
    [
        ([1.0, 2.0], [1.0, 2.0001], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([0.0, 0.0], [0.0, 9e-6], True),
        ([0.0, 0.0], [0.0, 2e-5], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [0.0, 1.0], False),
        ([0.0, 1.0], [np.nan, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([np.inf, 1.0], [-np.inf, 1.0], False),
        ([1.0, 1.0], [np.inf, 1.0], False),
    ],
)
def test_numbers(source: list[float], converted: list[float], passes: bool) -> None:
    report = compare({"value": np.array(source)}, {"value": np.array(converted).reshape(-1, 1)}, Tolerance())
    assert report.passed is passes
    assert report.as_json()["passed"] is passes


def test_the_worst_row_and_the_size_of_the_fault_are_told() -> None:
    report = compare({"value": np.array([1.0, 10.0, 5.0])}, {"value": np.array([1.0, 11.0, 5.1])}, Tolerance())
    output = report.outputs[0]
    assert (output.rows_off, output.worst_row) == (2, 1)
    assert output.max_abs == pytest.approx(1.0)
    assert output.max_rel == pytest.approx(0.1)


def test_a_missing_or_misshapen_output_fails() -> None:
    assert not compare(LABELS, {}, Tolerance()).passed
    report = compare({"scores": np.ones((4, 3))}, {"scores": np.ones((4, 2))}, Tolerance())
    assert not report.passed
    assert "shape (4, 2), expected (4, 3)" in report.sentence()


def test_flips_are_not_excused_by_the_tolerance_of_numbers() -> None:
    assert not compare(LABELS, {"label": np.array([0, 1, 1, 1])}, Tolerance(rtol=10, atol=10)).passed
