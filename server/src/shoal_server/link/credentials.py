"""How an external broker learns which devices to let in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from shoal_server.link.port import Credential

log = logging.getLogger(__name__)


class BrokerCredentials(Protocol):
    """The broker's list of devices."""

    def prepare(self) -> None:
        """See to it that the server itself is let in.

        Raises:
            LinkError: That can't be done from here.
        """

    def sync(self, credentials: Sequence[Credential]) -> None:
        """Let exactly these devices in; who is gone or changed loses its session before this returns.

        Raises:
            LinkError: The broker runs and does not take them.
        """

    def kick(self, device: str) -> None:
        """End a device's session; it may come back."""


class ManagedElsewhere:
    """The broker knows its devices by other means: client certificates, or a database of its own."""

    def prepare(self) -> None:
        """Leave it to the others."""

    def sync(self, credentials: Sequence[Credential]) -> None:
        """Leave it to the others."""
        log.debug("%d devices are to be let in by the broker's own means", len(credentials))

    def kick(self, device: str) -> None:
        """Say that nothing was done."""
        log.warning("device %s can't be disconnected from here: the broker's credentials are managed elsewhere", device)
