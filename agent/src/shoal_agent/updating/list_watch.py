"""Looking at the signed list although nothing is to be installed: what runs, or could be gone back to, may be revoked.

Owns when to look and what a look finds. What follows (the way back is barred, the running model is reported) is
`shoal_agent.updating.transaction`'s. Used by the updating thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from shoal_agent.ports import Clock
from shoal_protocol.errors import ContentError, PeerError, TrustError

if TYPE_CHECKING:
    from shoal_protocol.trust.signed_list import SignedList

FIRST_S = 60.0
"""After the start, so that nothing that was revoked meanwhile stays unnoticed for long."""

RETRY_S = 300.0
_log = logging.getLogger(__name__)


class ListTrust(Protocol):
    """Where the signed list comes from."""

    def refresh(self) -> SignedList:
        """Fetch and verify the newest list."""

    def newest(self) -> SignedList | None:
        """Return the list that was verified last, even when it has expired."""


class ListWatch:
    """Looks from time to time, and soon after the server sent something.

    Args:
        trust: Where the list comes from.
        monotonic: Seconds for durations.
        every_s: Seconds between two looks.
    """

    def __init__(self, trust: ListTrust, *, monotonic: Clock, every_s: float) -> None:
        self._trust = trust
        self._monotonic = monotonic
        self._every_s = every_s
        self._due_at = monotonic() + min(FIRST_S, every_s)

    def look_soon(self) -> None:
        """Look at the next turn."""
        self._due_at = self._monotonic()

    def look(self, digests: Iterable[str]) -> Mapping[str, str] | None:
        """Return why each of these bundles is revoked, of those that are; none: it was not time to look.

        Args:
            digests: Of what runs and what could be gone back to.
        """
        wanted = sorted(set(digests))
        if self._monotonic() < self._due_at or not wanted:
            return None
        listed = self._refreshed()
        return None if listed is None else _revoked(listed, wanted)

    def known(self, digests: Iterable[str]) -> Mapping[str, str] | None:
        """Return, without any network, why bundles are revoked by the list that was verified last; none: there is none.

        Args:
            digests: As for `look`.
        """
        listed = self._stored()
        return None if listed is None else _revoked(listed, sorted(set(digests)))

    def _refreshed(self) -> SignedList | None:
        self._due_at = self._monotonic() + self._every_s
        try:
            return self._trust.refresh()
        except (PeerError, TrustError, ContentError, OSError) as error:
            _log.info("the signed list could not be looked at: %s", error)
            self._due_at = self._monotonic() + min(RETRY_S, self._every_s)
        return self._stored()

    def _stored(self) -> SignedList | None:
        try:
            return self._trust.newest()
        except (TrustError, ContentError, OSError):
            return None


def _revoked(listed: SignedList, digests: Iterable[str]) -> Mapping[str, str]:
    return {digest: why for digest in digests if (why := listed.revocation(digest)) is not None}
