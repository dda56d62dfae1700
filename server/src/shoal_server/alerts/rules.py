"""What becomes of an alert when its cause speaks again, when a person acknowledges it, when the cause is gone. Pure.

state         raised again            acknowledged    cause gone
OPEN          OPEN                    ACKNOWLEDGED    RESOLVED
ACKNOWLEDGED  OPEN if it got worse,   ACKNOWLEDGED    RESOLVED
              else ACKNOWLEDGED
RESOLVED      a new alert             RESOLVED        RESOLVED
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from shoal_protocol.errors import CallerError


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertState(StrEnum):
    """Where an alert is in its life."""

    OPEN = "open"  # nobody has seen to it
    ACKNOWLEDGED = "acknowledged"  # somebody has; the cause is still there
    RESOLVED = "resolved"  # the cause is gone


class AlertEvent(StrEnum):
    """What can happen to an alert."""

    AGAIN = "again"
    WORSE = "worse"
    ACKNOWLEDGE = "acknowledge"
    GONE = "gone"


_OPEN, _ACKNOWLEDGED, _RESOLVED = AlertState
TRANSITIONS: Mapping[AlertState, Mapping[AlertEvent, AlertState]] = {
    _OPEN: {
        AlertEvent.AGAIN: _OPEN,
        AlertEvent.WORSE: _OPEN,
        AlertEvent.ACKNOWLEDGE: _ACKNOWLEDGED,
        AlertEvent.GONE: _RESOLVED,
    },
    _ACKNOWLEDGED: {
        AlertEvent.AGAIN: _ACKNOWLEDGED,
        AlertEvent.WORSE: _OPEN,
        AlertEvent.ACKNOWLEDGE: _ACKNOWLEDGED,
        AlertEvent.GONE: _RESOLVED,
    },
    # raised again, a resolved alert is a new one: there is no way back
    _RESOLVED: {AlertEvent.ACKNOWLEDGE: _RESOLVED, AlertEvent.GONE: _RESOLVED},
}


def after(state: AlertState, event: AlertEvent) -> AlertState:
    """Return the next state; raises `KeyError` for an event that a resolved alert never sees."""
    return TRANSITIONS[state][event]


def raised_again(known: Severity, new: Severity) -> AlertEvent:
    """Tell whether an alert that is raised again got worse.

    >>> raised_again(Severity.WARNING, Severity.CRITICAL)
    <AlertEvent.WORSE: 'worse'>
    """
    order = list(Severity)
    return AlertEvent.WORSE if order.index(new) > order.index(known) else AlertEvent.AGAIN


def parse_severity(text: str) -> Severity:
    """Return the severity of this name.

    Raises:
        CallerError: There is none.
    """
    try:
        return Severity(text)
    except ValueError as error:
        raise CallerError(f"expected a severity among {', '.join(Severity)}, got {text!r:.40}") from error
