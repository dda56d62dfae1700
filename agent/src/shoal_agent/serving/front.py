"""The local interface at all its addresses, TCP and Unix socket alike: all of them answer, or none does."""

from __future__ import annotations

from shoal_agent.runtime.feedback import Feedback
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import parse_listens
from shoal_protocol.errors import LocalError


class Front:
    """Serves a device's slots.

    Args:
        slots: The models.
        listen: Addresses, separated by commas; ``none``: it is switched off.
        feedback: Takes labels; none: nobody does.
        insecure: Allow addresses that other machines reach.

    Raises:
        CallerError: One of them is no address, or others could connect and `insecure` is not set.
    """

    def __init__(
        self, slots: SlotTable, listen: str, *, feedback: Feedback | None = None, insecure: bool = False
    ) -> None:
        self._servers = [
            LocalServer(Api(slots, hosts=where.hosts, feedback=feedback).handle, where)
            for where in parse_listens(listen, insecure=insecure)
        ]

    def start(self) -> list[str]:
        """Listen and answer in threads of our own; return the addresses to connect to, in the order given.

        Raises:
            LocalError: One is taken or not ours; then none is listened on.
        """
        begun: list[str] = []
        try:
            for server in self._servers:
                begun.append(server.start())  # noqa: PERF401 - what has begun must be known when one fails
        except LocalError:
            self.stop()
            raise
        return begun

    def faults(self) -> list[str]:
        """Name what accepts no connections any more; empty: all do."""
        return [] if all(server.is_alive for server in self._servers) else ["the local interface has ended"]

    def stop(self) -> None:
        """Close every listener and connection."""
        for server in self._servers:
            server.stop()
