"""What is drawn of two samples: shares that add up, and no axis stretched by a few far values."""

import numpy as np
import pytest

from shoal_server.report.samples import sample_distribution

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (RANDOM.normal(size=500), RANDOM.normal(2, 1, 300)),
        (np.array([1.0, np.nan, 2.0]), np.array([np.nan, np.inf, -np.inf])),
        (RANDOM.integers(0, 9, 500).astype(float), RANDOM.integers(0, 300, 50).astype(float)),
        (np.zeros(20), np.zeros(20)),
        (np.array(["a", "", "b"], dtype=object), np.array(["c", "c", "a"], dtype=object)),
    ],
)
def test_shares_add_up(a: np.ndarray, b: np.ndarray) -> None:
    cells = sample_distribution(a, b)["cells"]
    assert sum(cell["reference"] for cell in cells) == pytest.approx(1)
    assert sum(cell["live"] for cell in cells) == pytest.approx(1)


def test_an_error_code_stands_beside_and_a_change_of_unit_is_drawn_whole() -> None:
    a = RANDOM.normal(20, 2, 2000)
    b = np.where(RANDOM.random(2000) < 0.03, -999.0, a)
    cells = sample_distribution(a, b)["cells"]
    assert cells[1]["label"].startswith("below 1")
    assert cells[1]["live"] == pytest.approx(0.035, abs=0.015)
    whole = sample_distribution(a, a * 1.8 + 32)["cells"]
    assert whole[-1]["live"] < 0.01
    assert whole[-2]["high"] > 68
