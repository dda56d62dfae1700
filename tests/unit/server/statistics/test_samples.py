"""Two samples of rows: how often equal ones are called different, and how well known changes are found."""

from collections.abc import Callable

import numpy as np
import pytest

from shoal_server.statistics.samples import (
    Column,
    Columns,
    Verdict,
    compare,
    dependence_notes,
    design_effect,
    new_category_p,
)
from shoal_server.statistics.views import View

Rng = np.random.Generator


def texts(values: object) -> Column:
    return np.array(values, dtype=object)


def plant(rng: Rng, n: int) -> dict[str, Column]:
    """Columns of many kinds: skewed, heavy-tailed, with atoms, with missing values, with many rare categories."""
    return {
        "normal": rng.normal(size=n),
        "exponential": rng.exponential(size=n),
        "cauchy": rng.standard_cauchy(n),
        "count": rng.poisson(3, n).astype(float),
        "zeros": np.where(rng.random(n) < 0.6, 0.0, rng.gamma(2, size=n)),
        "gaps": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "word": texts([f"w{min(x, 500)}" for x in rng.zipf(1.6, n)]),
    }


@pytest.mark.parametrize(("n", "m"), [(250, 1500), (400, 400)])
def test_equal_samples_are_called_different_at_most_as_often_as_asked(n: int, m: int) -> None:
    runs, alpha = 100, 0.05
    rngs = [np.random.default_rng([7, seed]) for seed in range(runs)]
    verdicts = [compare(plant(rng, n), plant(rng, m), alpha=alpha).verdict for rng in rngs]
    assert verdicts.count(Verdict.DRIFT) <= runs * alpha + 3 * (runs * alpha * (1 - alpha)) ** 0.5


def test_the_level_is_shared_by_all_features() -> None:
    rng = np.random.default_rng(5)
    shifted = {"x": rng.normal(size=600)}, {"x": rng.normal(0.25, 1, size=600)}
    alone = compare(*shifted)
    quiet = [{f"q{i}": rng.normal(size=600) for i in range(9)} for _ in range(2)]
    among = compare(shifted[0] | quiet[0], shifted[1] | quiet[1])
    x = next(one for one in among.features if one.name == "x")
    assert x.p == pytest.approx(min(1, 10 * alone.features[0].p))
    assert (x.verdict is Verdict.DRIFT) == (x.p < 0.01)


CHANGES: dict[str, tuple[Callable[[Rng, Column], Column], View, str]] = {
    "fahrenheit": (lambda rng, x: x * 1.8 + 32, View.LOCATION, "Celsius became Fahrenheit"),
    "milli": (lambda rng, x: x * 1000, View.LOCATION, "1000 times"),
    "shift": (lambda rng, x: x + 0.4 * 3, View.LOCATION, "shift: all values moved by about 1"),
    "gain": (lambda rng, x: x * 1.3, View.LOCATION, "gain: all values are about 1.3"),
    "noise": (lambda rng, x: x + rng.normal(0, 2, x.size), View.SHAPE, "noise"),
    "stuck": (lambda rng, x: np.where(rng.random(x.size) < 0.06, 21.53, x), View.CELLS, "stuck: "),
    "dead": (lambda rng, x: np.full(x.size, 20.0), View.SHAPE, "stuck: every value is 20"),
    "saturated": (lambda rng, x: np.minimum(x, 22.0), View.CELLS, "saturation"),
    "code": (lambda rng, x: np.where(rng.random(x.size) < 0.05, -999.0, x), View.RANGE, "error code"),
    "outliers": (
        lambda rng, x: np.where(rng.random(x.size) < 0.05, x + rng.uniform(40, 90, x.size), x),
        View.RANGE,
        "outliers",
    ),
    "gaps": (lambda rng, x: np.where(rng.random(x.size) < 0.05, np.nan, x), View.MISSING, "missing source"),
    "lost": (lambda rng, x: np.full(x.size, np.nan), View.MISSING, "every value is missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_and_its_cause_is_named(change: str) -> None:
    rng = np.random.default_rng(11)
    turn, view, cause = CHANGES[change]
    found = compare({"t": rng.normal(20, 3, 2000)}, {"t": turn(rng, rng.normal(20, 3, 1000))}).features[0]
    assert (found.verdict, cause in found.cause) == (Verdict.DRIFT, True), found
    assert change == "dead" or found.view is view
    assert np.isfinite(found.effect)
    assert change == "lost" or found.psi > found.psi_threshold or change == "gaps"


WORDS = {
    "new category: 'd'": ["a"] * 480 + ["b"] * 300 + ["c"] * 190 + ["d"] * 30,
    "new spelling: 'a' is now also written 'A'": ["A"] * 100 + ["a"] * 400 + ["b"] * 300 + ["c"] * 200,
    "missing category: 'c'": ["a"] * 600 + ["b"] * 400,
    "mix: 'a' went from 50 % to 65 %": ["a"] * 650 + ["b"] * 210 + ["c"] * 140,
    "missing source": ["a"] * 450 + ["b"] * 270 + ["c"] * 180 + [""] * 100,
}


@pytest.mark.parametrize("cause", WORDS)
def test_changes_of_categories_are_explained(cause: str) -> None:
    before = texts(["a"] * 1000 + ["b"] * 600 + ["c"] * 400)
    found = compare({"c": before}, {"c": texts(WORDS[cause])}).features[0]
    assert (found.kind, found.verdict) == ("categorical", Verdict.DRIFT)
    assert cause in found.cause
    assert found.effect_unit == "share"


def test_too_few_rows_are_no_answer_and_outvote_none() -> None:
    rng = np.random.default_rng(2)
    enough, few = rng.normal(size=900), np.where(np.arange(900) < 150, 1.0, np.nan)
    found = compare({"x": enough, "y": few}, {"x": rng.normal(size=900), "y": few.copy()})
    assert {one.name: str(one.verdict) for one in found.features} == {"x": "none", "y": "too_few"}
    assert found.verdict is Verdict.TOO_FEW
    assert compare({"x": enough}, {"x": enough[:100] + 50}).verdict is Verdict.TOO_FEW


def test_the_same_rows_differ_in_nothing() -> None:
    columns: Columns = plant(np.random.default_rng(3), 800)
    found = compare(columns, columns)
    assert found.verdict is Verdict.NONE
    assert all(one.p == 1 and one.effect == 0 for one in found.features)


def test_a_clock_s_seconds_keep_their_digits() -> None:
    rng = np.random.default_rng(4)
    before, now = (1.7e9 + rng.normal(0, 2, 1500) + moved for moved in (0, 1.0))
    assert compare({"at": before}, {"at": now}).features[0].effect == pytest.approx(0.5, abs=0.1)


def test_rows_in_the_order_of_time_count_as_fewer() -> None:
    runs = 30
    slow = [np.convolve(np.random.default_rng([9, i]).normal(size=2040), np.ones(41), "valid") for i in range(2 * runs)]
    pairs = [({"x": slow[2 * i]}, {"x": slow[2 * i + 1]}) for i in range(runs)]
    naive = sum(compare(*pair, alpha=0.05).verdict is Verdict.DRIFT for pair in pairs)
    aware = sum(compare(*pair, alpha=0.05, time_ordered=True).verdict is Verdict.DRIFT for pair in pairs)
    assert naive > runs / 2
    assert aware <= 2
    assert "--time-ordered" in dependence_notes(*pairs[0])[0]


def test_a_category_that_came_once_is_no_news() -> None:
    before = texts(["a", "b"] * 500)
    assert new_category_p(before, texts(["a"] * 999 + ["z"])) == 1
    assert new_category_p(before, texts(["a"] * 970 + ["z"] * 30)) < 1e-8


def test_what_looks_like_another_cause_is_not_taken_for_it() -> None:
    rng = np.random.default_rng(12)
    causes = {
        "shift": compare({"x": rng.normal(-0.6, 1, 1500)}, {"x": rng.normal(0.6, 1, 1500)}),
        "sign is turned": compare({"x": rng.exponential(2, 1500)}, {"x": -rng.exponential(2, 1500)}),
        "pile: ": compare(*({"x": np.where(rng.random(1500) < p, 0.0, rng.gamma(2, size=1500))} for p in (0.3, 0.8))),
        "mean went from": compare({"x": rng.poisson(6, 1500) * 1.0}, {"x": rng.poisson(1, 1500) * 1.0}),
    }
    told = {cause: found.features[0].cause for cause, found in causes.items()}
    assert [cause for cause, text in told.items() if cause not in text] == [], told


def test_what_is_plain_is_drift_in_few_rows_and_likeness_is_still_too_few() -> None:
    random = np.random.default_rng(21)
    reference = {"x": random.normal(size=445), "c": random.choice(["a", "b"], 445).astype(object)}
    alike = {"x": random.normal(size=160), "c": random.choice(["a", "b"], 160).astype(object)}
    assert compare(reference, alike).verdict is Verdict.TOO_FEW
    moved = {**alike, "x": alike["x"] + 1.2}
    found = compare(reference, moved)
    assert found.verdict is Verdict.DRIFT
    assert found.features[0].name == "x"
    other = compare(reference, {**alike, "c": np.full(160, "b", dtype=object)})
    assert other.features[0].name == "c"
    assert other.verdict is Verdict.DRIFT
    assert compare(reference, {name: column[:140] for name, column in moved.items()}).verdict is Verdict.TOO_FEW


def test_a_gain_of_an_ageing_sensor_is_no_change_of_unit() -> None:
    random = np.random.default_rng(22)
    reference = {"x": random.normal(330, 330, 445)}
    assert "unit" not in compare(reference, {"x": random.normal(40, 320, 470)}).features[0].cause


@pytest.mark.parametrize("zeros", [0.0, 0.9, 0.97])
def test_equal_values_in_no_order_resemble_no_neighbours(zeros: float) -> None:
    random = np.random.default_rng(21)
    columns = [np.where(random.random(10_000) < zeros, 0.0, random.integers(1, 9, 10_000) * 1.0) for _ in range(2)]
    assert max(map(design_effect, columns)) < 1.6
    found = compare({"x": columns[0]}, {"x": columns[1]}, time_ordered=True)
    assert found.verdict is Verdict.NONE
    assert dependence_notes({"x": columns[0]}, {"x": columns[1]}) == []
