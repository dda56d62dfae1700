"""The local interface at all its addresses, TCP and Unix socket alike: all of them answer, or none does."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import open_listener, parse_listens
from shoal_protocol.errors import LocalError

if TYPE_CHECKING:
    from shoal_agent.runtime.feedback import Feedback


class Front:
    """Serves a device's slots; takes its addresses before there are any, for a wrong one is to be told at once.

    Args:
        listen: Addresses, separated by commas; ``none``: it is switched off.
        insecure: Allow addresses that other machines reach.

    Raises:
        CallerError: One of them is no address, or others could connect and `insecure` is not set.
    """

    def __init__(self, listen: str, *, insecure: bool = False) -> None:
        self._addresses = parse_listens(listen, insecure=insecure)
        self._listeners: list[socket.socket] = []
        self._servers: list[LocalServer] = []

    def open(self) -> None:
        """Take the addresses; who connects waits until `start`.

        Raises:
            LocalError: One is taken or not ours; then none is listened on.
        """
        try:
            for address in self._addresses[len(self._listeners) :]:
                self._listeners.append(open_listener(address))
        except LocalError:
            self.stop()
            raise

    def start(self, slots: SlotTable, *, feedback: Feedback | None = None) -> list[str]:
        """Answer in threads of our own; return the addresses to connect to, in the order given.

        Args:
            slots: The models.
            feedback: Takes labels; none: nobody does.

        Raises:
            LocalError: As `open`, where that was not called.
        """
        self.open()
        for address, listener in zip(self._addresses, self._listeners, strict=True):
            answerer = Api(slots, hosts=address.hosts, feedback=feedback).answerer
            self._servers.append(LocalServer(answerer, address, listener=listener))
        return [server.start() for server in self._servers]

    def faults(self) -> list[str]:
        """Name what accepts no connections any more; empty: all do."""
        return [] if all(server.is_alive for server in self._servers) else ["the local interface has ended"]

    def stop(self) -> None:
        """Close every listener and connection."""
        for server in self._servers:
            server.stop()
        unused = list(zip(self._addresses, self._listeners, strict=False))[len(self._servers) :]
        for address, listener in unused:
            listener.close()
            if address.path is not None:
                address.path.unlink(missing_ok=True)
        self._servers, self._listeners = [], []
