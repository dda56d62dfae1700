"""Golden rows, compared."""

from collections.abc import Mapping

import numpy as np
import pytest

from shoal_agent.runtime.self_test import GoldenRows, run_self_test

X = np.arange(6, dtype=np.float32).reshape(3, 2)
P = np.array([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]], np.float32)
LABEL = np.array(["a", "b", "b"], dtype=object)
GOLDEN = GoldenRows({"x": X}, {"label": LABEL, "p": P}, rtol=1e-3, atol=1e-4)


def answers(label: np.ndarray, p: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"label": label, "p": p}


def test_the_same_answers_pass() -> None:
    outcome = run_self_test(lambda feeds: answers(LABEL.copy(), P + np.float32(5e-5)), GOLDEN)
    assert outcome.passed
    assert outcome.rows == 3
    assert outcome.max_abs_error == pytest.approx(5e-5, rel=0.01)
    assert outcome.p95_ms >= 0


@pytest.mark.parametrize(
    ("label", "p", "says"),
    [
        (LABEL, P + np.float32(0.01), "output 'p': 6 of 6 values differ, first in golden row 0"),
        (np.array(["a", "b", "c"], object), P, "output 'label': 1 of 3 values differ, first in golden row 2: got c"),
        (LABEL, P[:2], "has the shape [2, 2], expected [3, 2]"),
        (LABEL, np.where(P == 0.5, np.nan, P).astype(np.float32), "2 of 6 values differ, first in golden row 1"),
    ],
)
def test_other_answers_fail_in_words(label: np.ndarray, p: np.ndarray, says: str) -> None:
    outcome = run_self_test(lambda feeds: answers(label, p), GOLDEN)
    assert not outcome.passed
    assert says in outcome.faults[0]


def test_a_missing_output_fails_and_equal_nans_pass() -> None:
    assert run_self_test(lambda feeds: {"p": P}, GOLDEN).faults == ("output 'label' is missing",)
    nan = np.array([np.nan, np.inf], np.float32)
    golden = GoldenRows({"x": X[:2]}, {"v": nan}, 1e-3, 1e-3)
    assert run_self_test(lambda feeds: {"v": nan.copy()}, golden).passed


def test_a_variant_may_have_tolerances_of_its_own() -> None:
    flipped, near = np.array(["a", "a", "b"], object), P + np.float32(0.02)
    own = GoldenRows({"x": X}, GOLDEN.outputs, 1e-3, 1e-4, atol_by_output={"p": 0.05}, label_flips=1)
    assert run_self_test(lambda feeds: answers(flipped, near), own).passed
    assert not run_self_test(lambda feeds: answers(np.array(["b", "a", "b"], object), near), own).passed
    assert not run_self_test(lambda feeds: answers(flipped, P + np.float32(0.1)), own).passed
