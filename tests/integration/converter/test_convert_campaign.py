"""A short run of the campaign `convert`, and what its report must not let pass."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest
from tests.campaigns import convert, convert_points
from tests.campaigns.convert_environments import ENVIRONMENTS


def point(outcome: str) -> dict[str, Any]:
    return {"framework": "sklearn", "case": "Ridge", "outcome": outcome}


CAUGHT = point("WRONG: value")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([CAUGHT, point("exact"), point("refused: a reason")], 0),
        ([CAUGHT, point("exact"), point("WRONG: label")], 1),
        ([CAUGHT, point("broken: ValueError")], 1),
        ([point("exact"), point("exact")], 1),
        ([point("absent: no network")], 1),
        ([], 1),
    ],
    ids=["holds", "wrong", "broken", "flaw not caught", "no environment", "nothing tried"],
)
def test_one_wrong_or_a_flaw_that_passes_fails_it(
    outcomes: list[dict[str, Any]], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert.report({"sklearn": outcomes}) == code
    assert "sklearn" in capsys.readouterr().out


def test_a_seed_draws_the_same_points() -> None:
    def names(seed: int) -> list[str]:
        return [name for name, _ in islice(convert_points._estimators("sklearn", random.Random(seed)), 12)]

    assert names(3) == names(3)
    assert names(3) != names(4)


@pytest.mark.slow
def test_a_short_run_holds_and_catches_the_flaw(capsys: pytest.CaptureFixture[str]) -> None:
    found = convert._ran("boosting", 2, 5)
    assert len(found) == 3
    assert convert.report({"boosting": found}) == 0, capsys.readouterr().out


def test_heavy_frameworks_have_environments_of_their_own() -> None:
    assert {name for name, each in ENVIRONMENTS.items() if each.extra} == {"catboost", "torch", "keras", "mlflow"}
