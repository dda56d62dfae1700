"""Patterns of event types."""

import pytest

from shoal_protocol.errors import CallerError
from shoal_server.outbox.filters import MAX_PATTERNS, matches, parse_min_severity, parse_patterns, wants


@pytest.mark.parametrize(
    "word", ["rollouts.*", "", " ", "rollout", "ROLLOUT.*", "alert.opened.v2", "webhook.test", "."]
)
def test_a_pattern_that_fits_nothing_is_refused(word: str) -> None:
    with pytest.raises(CallerError, match="no event has a type like"):
        parse_patterns([word])


def test_a_slip_gets_a_suggestion() -> None:
    with pytest.raises(CallerError) as caught:
        parse_patterns(["rollout.rolledback"])
    assert "rollout.rolled_back" in caught.value.hint


def test_there_is_at_least_one_pattern_and_a_bound() -> None:
    for words in ([], ["*"] * (MAX_PATTERNS + 1)):
        with pytest.raises(CallerError, match="patterns of event types"):
            parse_patterns(words)


def test_a_dot_is_a_dot_and_a_star_is_any_run() -> None:
    assert matches("*", "rollout.rolled_back")
    assert matches("*.r*ed", "alert.resolved")
    assert not matches("alert.opene.", "alert.opened")
    assert not matches("rollout.roll", "rollout.rolled_back")


@pytest.mark.parametrize(
    ("least", "severity", "wanted"),
    [
        (None, "info", True),
        ("warning", "info", False),
        ("warning", "warning", True),
        ("warning", "critical", True),
        ("critical", None, True),
        ("critical", "of another version", True),
    ],
)
def test_the_severity_filters_only_what_has_one(least: str | None, severity: str | None, wanted: bool) -> None:
    assert wants(["alert.*"], least, name="alert.opened", severity=severity) is wanted


def test_an_unknown_severity_is_refused() -> None:
    assert parse_min_severity("critical") == "critical"
    with pytest.raises(CallerError, match="info, warning, critical"):
        parse_min_severity("high")
