"""Durations, shares and bounds as plans write them."""

import pytest

from shoal_server.rollouts.quantities import duration_text, parse_bound, parse_duration, parse_percent


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("6s", 6),
        ("0.5s", 0.5),
        ("30m", 1800),
        ("2h", 7200),
        ("3d", 259_200),
        ("1h30m", 5400),
        (" 2 h ", 7200),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [30, 1.5, None, "", "30", "5 weeks", "-3s", "1h-2m", "h", True])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(("value", "share"), [(5, 0.05), (100, 1.0), ("5%", 0.05), ("12.5 %", 0.125), (0.5, 0.005)])
def test_percentages(value: object, share: float) -> None:
    assert parse_percent(value) == pytest.approx(share)


@pytest.mark.parametrize("value", [101, -1, "5pp", "many", True, None])
def test_what_is_no_percentage(value: object) -> None:
    with pytest.raises(ValueError, match="percent"):
        parse_percent(value)


@pytest.mark.parametrize(("text", "share"), [("<= 5%", 0.05), ("<=1pp", 0.01), ("<= 0.05", 0.05), ("<= 0%", 0.0)])
def test_bounds(text: str, share: float) -> None:
    assert parse_bound(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5%", ">= 5%", "< 5%", "<= 500%", "<= x", 0.05, None])
def test_what_is_no_bound(text: object) -> None:
    with pytest.raises(ValueError, match="expected a bound such as '<= 5%'"):
        parse_bound(text)


@pytest.mark.parametrize("text", ["500ms", "6s", "1h30m", "3d"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert duration_text(parse_duration(text)) == text
