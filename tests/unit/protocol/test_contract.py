"""Contracts: their written form, and counting what breaks them."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from shoal_protocol.bundle.contract import Rule, parse_contract
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.contract import contract_streams, range_grid, violations
from shoal_protocol.profile.profile import derived


def test_the_written_form_becomes_rules() -> None:
    rules = parse_contract(
        {
            "fields": {
                "age": {"range": [0, 120], "missing": 0.02, "tolerate": 0.01},
                "city": {"categories": ["Bern", 3], "missing": 0, "action": "refuse"},
                "load": {"range": [None, 9.5]},
            }
        },
        fields={"age", "city", "load"},
    )
    assert [rule.words for rule in rules] == [
        "age must be from 0 to 120",
        "age must not be missing",
        "city must be one of Bern, 3",
        "city must not be missing",
        "load must be at most 9.5",
    ]
    assert [rule.tolerate for rule in rules] == [0.01, 0.02, 0, 0, 0]
    assert [rule.action for rule in rules] == ["count", "count", "refuse", "refuse", "count"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], r"a mapping `fields` .*; this is the list \[\]"),
        (None, "this is nothing"),
        ({"a": {"range": [0, 1]}}, "there is no `fields` among a"),
        ({"fields": [{"a": {"range": [0, 1]}}]}, "`fields` is the list"),
        ({"fields": {"b": {"range": [0, 1]}}}, r"'b' is no feature of this model \(there are: a\)"),
        ({"fields": {"a": None}}, "a: expected rules .* got nothing"),
        ({"fields": {"a": {"missing_rate": 0.1}}}, "unknown rule 'missing_rate'; do you mean missing\\?"),
        ({"fields": {"a": {"range": [0, 1], "action": ["refuse"]}}}, r"action is the list \['refuse'\]"),
        ({"fields": {"a": {"range": [0, 1], "tolerate": -0.1}}}, "tolerate is -0.1, expected .* from 0 to below 1"),
        ({"fields": {"a": {"missing": "5%"}}}, "missing is '5%', .* 5 in a hundred are 0.05"),
        ({"fields": {"a": {"missing": 0.05, "action": "refuse"}}}, "can't be refused row by row"),
        ({"fields": {"a": {"categories": ["x", None]}}}, "an empty value"),
        ({"fields": {"a": {"categories": [date(2026, 1, 2)]}}}, r"\[2026-01-02\].* in quotes"),
        ({"fields": {"a": {"categories": {"x": 1}}}}, r"a mapping \(x\)"),
        ({"fields": {"a": {"range": [0, 1]}}, "feilds": {}}, "'feilds'"),
        ({"fields": {"x": {"range": [0, 1]}}}, "'x' is no feature"),
        ({"fields": {"a": [0, 1]}}, "expected rules"),
        ({"fields": {"a": {"rnage": [0, 1]}}}, "unknown rule 'rnage'"),
        ({"fields": {"a": {"range": [1, 0]}}}, "low end lies above its high one"),
        ({"fields": {"a": {"range": ["0", 1]}}}, "range is .* without quotes"),
        ({"fields": {"a": {"range": [None, None]}}}, "range is"),
        ({"fields": {"a": {"range": [0, float("nan")]}}}, "range is"),
        ({"fields": {"a": {"categories": [True]}}}, "in quotes"),
        ({"fields": {"a": {"categories": "Bern"}}}, "categories is"),
        ({"fields": {"a": {"missing": 2}}}, "missing is"),
        ({"fields": {"a": {"missing": 0, "action": "warn"}}}, "action is"),
        ({"fields": {"a": {"tolerate": 0.1}}}, "no rule"),
    ],
)
def test_a_faulty_contract_says_what_is_wrong(document: Any, said: str) -> None:
    with pytest.raises(ContentError, match=said):
        parse_contract(document, fields={"a"})


def test_a_feature_may_be_called_by_a_number() -> None:
    assert parse_contract({"fields": {1: {"missing": 0}}}, fields={"1"})[0].field == "1"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 120), (1013, 1014), (-5.5, -5.25), (0, 1), (1e9, 2e9), (-1e-6, 1e-6), (7, 7), (3, None), (None, -2)],
)
def test_a_value_at_its_bound_is_kept_and_one_beyond_is_not(low: float | None, high: float | None) -> None:
    rule = Rule(field="x", check="range", low=low, high=high)
    grid = range_grid(low, high)
    bounds = [bound for bound in (low, high) if bound is not None]
    away = 1e-3 * max(bounds[-1] - bounds[0], *(abs(bound) for bound in bounds))

    def broken(value: float) -> bool:
        counts = np.bincount(grid.cells_of(np.array([value], np.float32)), minlength=grid.cells).astype(np.int64)
        return violations([rule], [counts]) == (1,)

    assert [broken(bound) for bound in bounds] == [False] * len(bounds)
    assert low is None or broken(low - away)
    assert high is None or broken(high + away)
    assert not broken(float("nan"))
    assert broken(float("inf")) == (high is not None)


FIELDS = (
    FieldSpec(name="city", dtype="string", tensor="city", missing_sentinel="__missing__"),
    FieldSpec(name="code", dtype="int64", tensor="code"),
    FieldSpec(name="heat", dtype="float32", tensor="heat"),
)
ROWS = {
    "city": np.array([["Bern"], ["__missing__"], ["Basel"], ["Chur"]], dtype=object),
    "code": np.array([[1], [2], [-3], [2]]),
    "heat": np.array([[np.nan], [0.0], [1.0], [np.nan]], np.float32),
}


def test_rules_of_every_kind_are_counted() -> None:
    rules = (
        Rule(field="city", check="categories", categories=("Bern", "Basel")),
        Rule(field="city", check="missing"),
        Rule(field="code", check="categories", categories=("1", "2")),
        Rule(field="code", check="range", low=0),
        Rule(field="code", check="missing"),
        Rule(field="heat", check="missing"),
        Rule(field="heat", check="range", low=0.5, high=2),
    )
    streams = contract_streams(rules, FIELDS)
    counts = [
        np.bincount(s.grid.cells_of(derived(s, ROWS[s.tensor])), minlength=s.grid.cells).astype(np.int64)
        for s in streams
    ]
    assert violations(rules, counts) == (1, 1, 1, 1, 0, 2, 1)


def test_rules_that_are_unknown_here_are_left_uncounted() -> None:
    rules = (
        Rule(field="city", check="language"),
        Rule(field="nobody", check="missing"),
        Rule(field="city", check="range", low=0),
    )
    assert [stream.is_known for stream in contract_streams(rules, FIELDS)] == [False, False, False]
