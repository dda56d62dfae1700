"""Instants as people and programs read them in HTTP answers: RFC 3339 in UTC."""

from datetime import UTC, datetime


def rfc3339(seconds: float | None) -> str | None:
    """Write seconds since the epoch as `2026-11-21T09:00:00.250Z`; None stays None.

    >>> rfc3339(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
