"""What an event does to an alert."""

import pytest

from shoal_protocol.errors import CallerError
from shoal_server.alerts.rules import (
    TRANSITIONS,
    AlertEvent,
    AlertState,
    Severity,
    after,
    parse_severity,
    raised_again,
)


def test_an_acknowledged_alert_opens_again_only_when_it_gets_worse() -> None:
    seen = after(AlertState.OPEN, AlertEvent.ACKNOWLEDGE)
    assert after(seen, raised_again(Severity.WARNING, Severity.WARNING)) is AlertState.ACKNOWLEDGED
    assert after(seen, raised_again(Severity.WARNING, Severity.INFO)) is AlertState.ACKNOWLEDGED
    assert after(seen, raised_again(Severity.WARNING, Severity.CRITICAL)) is AlertState.OPEN


@pytest.mark.parametrize("state", AlertState)
def test_when_the_cause_is_gone_every_alert_is_resolved(state: AlertState) -> None:
    assert after(state, AlertEvent.GONE) is AlertState.RESOLVED


def test_there_is_no_way_back_from_resolved() -> None:
    assert set(TRANSITIONS[AlertState.RESOLVED].values()) == {AlertState.RESOLVED}
    assert AlertEvent.AGAIN not in TRANSITIONS[AlertState.RESOLVED]


def test_an_unknown_severity_is_refused_by_name() -> None:
    with pytest.raises(CallerError, match="info, warning, critical, got 'loud'"):
        parse_severity("loud")
