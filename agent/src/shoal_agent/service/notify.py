"""What a service tells systemd, over the socket that ``NOTIFY_SOCKET`` names (sd_notify(3)), without a library.

Owns the protocol and the rhythm of the watchdog; leaves to the caller what counts as alive. Outside systemd nothing
is sent.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from shoal_agent.stopping import wait_for

_PATIENCE_S = 120.0
"""As a watchdog's, where the service manager wants no sign of life."""

_log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process.

    Args:
        address: Path of its socket, or ``@name`` in the abstract namespace; empty: there is none.
        watchdog_s: Seconds within which it wants a sign of life; none: it wants none.
    """

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = watchdog_s if self._address else None
        self._status = ""

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Say that the service answers, and what."""
        self._send(f"READY=1\n{self._told(status)}")

    def stopping(self) -> None:
        """Say that an orderly end has begun."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self, status: str) -> None:
        """Give a sign of life, and say what the service answers by now, where that is something else."""
        news = self._told(status) if _line(status) != self._status else ""
        self._send(f"WATCHDOG=1\n{news}".rstrip())

    def unwell(self, status: str) -> None:
        """Say why no sign of life comes; the service manager restarts the service when its patience ends."""
        self._send(self._told(status))

    def _told(self, status: str) -> str:
        self._status = _line(status)
        return f"STATUS={self._status}"

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("the service manager could not be told %s: %s", message.partition("\n")[0], error)


def serve_until(
    stop: threading.Event, manager: ServiceManager, faults: Callable[[], list[str]], *, status: Callable[[], str]
) -> None:
    """Wait for the end, and give signs of life while nothing is at fault.

    Args:
        stop: Set by whoever ends the service.
        manager: Whom to tell.
        faults: Names what does not live any more; asked three times as often as a sign of life is wanted.
        status: Says what the service answers now, in a line.
    """
    if not manager.listens:
        wait_for(stop)
        return
    pause_s = (manager.watchdog_s or _PATIENCE_S) / 3
    while not stop.is_set():
        found = faults()
        if found:
            _log.error("no sign of life to the service manager: %s", "; ".join(found))
            manager.unwell("; ".join(found))
        else:
            manager.alive(status())
        wait_for(stop, within_s=pause_s)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
