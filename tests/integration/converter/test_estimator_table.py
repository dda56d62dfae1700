"""The table of estimators says what is so, and nothing in it is wrong without a word."""

from __future__ import annotations

import pytest
from tests.integration.converter.estimator_sweep import page, sweep

_AGAIN = "python -m tests.integration.converter.estimator_sweep > docs/reference/estimators.md"


@pytest.mark.slow
def test_the_table_of_estimators_is_what_a_sweep_finds(request: pytest.FixtureRequest) -> None:
    findings = sweep()
    wrong = {name: finding.wrong for name, finding in findings.items() if finding.wrong}
    assert not wrong, "silently wrong on unseen rows"
    written = (request.config.rootpath / "docs/reference/estimators.md").read_text(encoding="utf-8")
    assert written == page(findings), _AGAIN


def test_a_sweep_tells_exact_from_refused() -> None:
    findings = sweep(frozenset({"Ridge", "DBSCAN"}))
    assert findings["Ridge"].exact
    assert not findings["Ridge"].refused
    assert not findings["DBSCAN"].exact
    assert "no predict()" in page(findings)
