"""Columns that no longer move together, each distributed as ever."""

import numpy as np
import pytest

from shoal_server.statistics.joint_samples import compare_jointly
from shoal_server.statistics.samples import Verdict


def columns(seed: int, *, correlation: float, rows: int = 1500, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    heat, noise, load = random.normal(size=(3, rows))
    flow = correlation * heat + np.sqrt(1 - correlation**2) * noise
    text = random.choice(np.array(["a", "b"], dtype=object), rows)
    return {"heat": 20 + 2 * heat + shift, "flow": flow, "load": np.exp(load), "line": text}


def test_a_broken_correlation_is_found_and_named() -> None:
    both = compare_jointly(columns(1, correlation=0.9), columns(2, correlation=0.5), alpha=0.01)
    assert both.found.verdict is Verdict.DRIFT
    assert both.looked_at == 3
    first = both.found.features[0]
    assert first.kind == "joint"
    assert first.cause.startswith("correlation: how ")
    assert "flow" in first.cause
    assert "heat" in first.cause
    assert {one.name for one in both.found.features if one.verdict is Verdict.DRIFT} <= both.reference.keys()
    assert [one.kind for one in both.found.features if one.verdict is not Verdict.DRIFT].count("joint") == 0
    assert all((one.p < 0.01) == (one.verdict is Verdict.DRIFT) for one in both.found.features)


def test_what_drifts_by_itself_is_not_told_twice() -> None:
    both = compare_jointly(columns(1, correlation=0.9), columns(2, correlation=0.9, shift=4.0), alpha=0.01)
    assert [one.name for one in both.found.features if one.verdict is Verdict.DRIFT] == ["heat"]


def test_equal_samples_agree_and_few_columns_have_nothing_in_common() -> None:
    wrong = sum(
        compare_jointly(
            columns(2 * at, correlation=0.8, rows=400), columns(2 * at + 1, correlation=0.8, rows=400), alpha=0.05
        ).found.verdict
        is Verdict.DRIFT
        for at in range(40)
    )
    assert wrong <= 5
    lone = {"heat": columns(1, correlation=0.9)["heat"]}
    assert compare_jointly(lone, lone, alpha=0.01).looked_at == 0


@pytest.mark.parametrize("holes", [0.2, 1.0])
def test_missing_values_are_no_reason_to_stop(holes: float) -> None:
    mine, theirs = columns(1, correlation=0.9), columns(2, correlation=0.9)
    for table in (mine, theirs):
        table["flow"][: int(holes * len(table["flow"]))] = np.nan
    assert compare_jointly(mine, theirs, alpha=0.01).found.verdict is not Verdict.DRIFT


@pytest.mark.parametrize(("features", "rows"), [(50, (300, 1000)), (40, (800, 800))])
def test_components_do_not_fit_the_reference_better_than_equal_rows(features: int, rows: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    mine, theirs = (
        {f"x{at}": values for at, values in enumerate(random.normal(size=(features, count)))} for count in rows
    )
    both = compare_jointly(mine, theirs, alpha=0.01)
    assert both.looked_at == 6
    assert both.found.verdict is Verdict.NONE


def test_components_of_many_rows_are_fitted_to_the_same_part_of_both_samples() -> None:
    random = np.random.default_rng(6)
    mine, theirs = (
        {f"x{at}": values for at, values in enumerate(random.normal(size=(3, count)))} for count in (1_000, 250_000)
    )
    theirs["x1"] = 0.5 * theirs["x0"] + np.sqrt(0.75) * theirs["x1"]
    both = compare_jointly(mine, theirs, alpha=0.01)
    assert [one.kind for one in both.found.features if one.verdict is Verdict.DRIFT].count("joint") >= 1


def test_a_few_rows_tell_nothing_of_how_columns_move_together() -> None:
    both = compare_jointly(columns(1, correlation=0.9), columns(2, correlation=0.9, rows=3), alpha=0.01)
    assert both.found.verdict is Verdict.TOO_FEW
    assert both.looked_at == 0
