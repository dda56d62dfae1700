"""The connections on which a thread may be waiting, so that whoever stops can end the wait at once.

A read of urllib3 waits as long as its timeout, and looks at nothing meanwhile. Shutting the socket down from another
thread ends it with an error of the network.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import PoolManager


class OpenLines:
    """Connections of one or more clients, until they are cut for good; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_cut = False

    def cut(self) -> None:
        """End all waits, and let no connection be opened any more."""
        with self._lock:
            self._is_cut = True
            found = [sock for connection in self._connections if (sock := connection.sock) is not None]
        for sock in found:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the TLS layer's own would forget its state

    def watch(self, pool: PoolManager) -> PoolManager:
        """Let every connection of a pool be one of these."""
        kinds: dict[str, Any] = dict(pool.pool_classes_by_scheme)
        pool.pool_classes_by_scheme = {
            scheme: type(kind.__name__, (kind,), {"ConnectionCls": self._watched(kind.ConnectionCls)})
            for scheme, kind in kinds.items()
        }
        return pool

    def _watched(self, kind: type[Any]) -> type[Any]:
        lines = self

        class Watched(kind):  # type: ignore[misc]  # of a class that urllib3 chooses
            def connect(self) -> None:
                lines.add(self)
                super().connect()
                lines.add(self)  # cut meanwhile?

        return Watched

    def add(self, connection: Any) -> None:
        """Take a connection in.

        Raises:
            ConnectionAbortedError: Cut already.
        """
        with self._lock:
            if self._is_cut:
                raise ConnectionAbortedError("the agent stops")
            self._connections.add(connection)
