"""The query language that chooses devices."""

import pytest

from shoal_server.fleet.cohort import MAX_QUERY_CHARACTERS, CohortError, parse_cohort

FACTS = {"site": "bern", "label.site": "bern", "arch": "arm64", "id": "cam-7", "agent": "0.10.2", "line": "3"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("all", True),
        ("not all", False),
        ("site = bern", True),
        ("site=bern", True),
        ("site != bern", False),
        ("site in (bern, basel) and arch = arm64 and not label.frozen", True),
        ("site not in (bern, basel)", False),
        ("label.site", True),
        ("label.frozen", False),
        ("colour != red", True),
        ("colour = red", False),
        ("colour not in (red)", True),
        ("colour in (red)", False),
        ("colour > 1", False),
        ("id ~ cam-*", True),
        ('id ~ "cam-?"', True),
        ("id ~ pump-*", False),
        ("agent >= 0.9", True),
        ("agent < 0.9", False),
        ("agent > 0.10", True),
        ("line <= 3", True),
        ("site = basel or arch = arm64 and line = 3", True),
        ("(site = basel or arch = arm64) and line = 4", False),
        ("not (site = basel or line = 4)", True),
        ('site = "bern"', True),
        ('site = "not"', False),
        ("  site\n in (\n bern )", True),
    ],
)
def test_queries(query: str, expected: bool) -> None:
    assert parse_cohort(query).matches(FACTS) is expected


@pytest.mark.parametrize(
    ("query", "position", "message"),
    [
        ("", 1, "expected the name of a label or fact, got the end"),
        ("site in (bern", 14, "expected ',' or ')', got the end"),
        ("site in (bern zug)", 15, "expected ',' or ')', got 'zug'"),
        ("site in bern", 9, "expected '(', got 'bern'"),
        ("site = ", 8, "expected a value"),
        ("site = and", 8, "expected a value"),
        ("site = bern arch = arm64", 13, "expected 'and', 'or' or the end, got 'arch'"),
        ("a & b", 3, "'&' has no meaning here"),
        ("a not b", 7, "expected 'in' after 'not'"),
        ("(" * 50 + "a" + ")" * 50, 41, "nested deeper than 40"),
        ('site = "bern', 8, "has no meaning here"),
    ],
)
def test_errors_name_the_position(query: str, position: int, message: str) -> None:
    with pytest.raises(CohortError, match="cohort query, position") as refused:
        parse_cohort(query)
    assert refused.value.data["position"] == position
    assert message in refused.value.message


def test_a_query_is_bounded() -> None:
    with pytest.raises(CohortError, match="at most 4096 characters"):
        parse_cohort("a" * (MAX_QUERY_CHARACTERS + 1))


def test_a_cohort_is_known_by_its_text() -> None:
    assert parse_cohort("site  =  bern") == parse_cohort("site = bern")
    assert str(parse_cohort(" site = bern ")) == "site = bern"
