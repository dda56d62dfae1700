"""Recorded windows from a server, by its address and a token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_server.analysis.files import parse_lines
from shoal_server.analysis.recording import Recording

if TYPE_CHECKING:
    from shoal_server.ctl.client import Client

WINDOWS_PATH = "/api/v1/drift/windows"


def fetch_windows(
    url: str,
    *,
    slot: str,
    token: str | None = None,
    model: str | None = None,
    since: datetime | timedelta = timedelta(days=7),
    until: datetime | None = None,
    ca: Path | None = None,
) -> Recording:
    """Fetch the recorded windows of a slot.

    Args:
        url: The server's address.
        slot: Whose windows.
        token: API token of at least the role viewer.
        model: Only this model or bundle: ``name``, ``name:1.4.0``, ``name@alias``.
        since: From when on, or so far back.
        until: Before when; None: now. Times need their zone.
        ca: Certificates to trust.

    Raises:
        PeerError: The server refused or no answer came.
        ContentError: The answer broke off.
    """
    from shoal_server.ctl.client import Client  # noqa: PLC0415 - an HTTP client that reading files doesn't need
    from shoal_server.ctl.settings import Settings, normal_url  # noqa: PLC0415 - likewise

    begin = datetime.now(UTC) - since if isinstance(since, timedelta) else since
    with Client(Settings(url=normal_url(url), token=token, ca=ca)) as client:
        return fetched(client, slot=slot, model=model, since=begin, until=until)


def fetched(
    client: Client, *, slot: str, model: str | None = None, since: datetime, until: datetime | None = None
) -> Recording:
    """Fetch through a connection that is there already; see `fetch_windows`."""
    end = None if until is None else until.isoformat()
    with client.lines(WINDOWS_PATH, slot=slot, model=model, since=since.isoformat(), until=end) as lines:
        return parse_lines(lines)
