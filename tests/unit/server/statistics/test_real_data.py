"""Faults injected into scikit-learn's data sets: split at random nothing drifts, and each fault is named."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import datasets

from shoal_server.statistics.samples import Columns, Verdict, compare

Rows = npt.NDArray[np.float64]
FEATURE = 2


def halves(name: str, seed: int) -> tuple[dict[str, Rows], dict[str, Rows]]:
    loaded = getattr(datasets, f"load_{name}")
    rows = loaded(scaled=False).data if name == "diabetes" else loaded().data
    order = np.random.default_rng(seed).permutation(len(rows))
    middle = len(rows) // 2
    return tuple(  # type: ignore[return-value]
        {f"x{at}": rows[part, at].astype(np.float64) for at in range(rows.shape[1])}
        for part in (order[:middle], order[middle:])
    )


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "digits"])
def test_halves_of_one_data_set_do_not_drift(name: str) -> None:
    answers = [compare(*halves(name, seed)).verdict for seed in range(8)]
    assert answers.count(Verdict.DRIFT) <= 1


def stuck(rows: Rows) -> Rows:
    return np.where(np.arange(rows.size) % 4 == 0, np.median(rows) + 0.123, rows)


FAULTS: list[tuple[Callable[[Rows], Rows], str]] = [
    (lambda rows: rows * 1000, "1000 times"),
    (lambda rows: rows / 60, "1/60"),
    (stuck, "stuck"),
    (lambda rows: np.minimum(rows, np.quantile(rows, 0.6)), "saturation"),
    (lambda rows: np.where(np.arange(rows.size) % 3 == 0, np.nan, rows), "missing source"),
    (lambda rows: np.full(rows.size, np.nan), "missing source"),
    (lambda rows: np.where(np.arange(rows.size) % 10 == 0, -9999.0, rows), "error code"),
    (lambda rows: np.where(np.arange(rows.size) % 12 == 0, np.inf, rows), "infinite"),
]


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer"])
@pytest.mark.parametrize(("fault", "word"), FAULTS)
def test_an_injected_fault_is_named(name: str, fault: Callable[[Rows], Rows], word: str) -> None:
    before, now = halves(name, 3)
    broken: Columns = {**now, f"x{FEATURE}": fault(now[f"x{FEATURE}"])}
    first = compare(before, broken).features[0]
    assert first.name == f"x{FEATURE}"
    assert first.verdict is Verdict.DRIFT
    assert word in first.cause
