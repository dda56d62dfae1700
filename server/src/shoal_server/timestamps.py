"""Instants in UTC: as programs read them in HTTP answers, RFC 3339, and as people read them in sentences."""

from datetime import UTC, datetime


def instant_text(seconds: float) -> str:
    """Write seconds since the epoch for people, to the minute.

    >>> instant_text(59.0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def rfc3339(seconds: float | None) -> str | None:
    """Write seconds since the epoch as `2026-11-21T09:00:00.250Z`; None stays None.

    >>> rfc3339(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
