"""The HTTP server: uvicorn in a thread of its own, on a socket that is bound before anything else begins.

Owns starting, knowing when it is ready, and ending within seconds though browsers hold event streams open.
"""

import socket
import ssl
import threading

import uvicorn
from fastapi import FastAPI

from shoal_protocol.errors import LocalError
from shoal_server.errors import StartError
from shoal_server.link.addresses import lan_address, reached_at

_GOODBYE_S = 5


def bind(host: str, port: int) -> socket.socket:
    """Take the address; port 0 takes a free one.

    Raises:
        StartError: somebody else has it, or it isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        hint = "choose another --listen; port 0 takes a free one"
        raise StartError(f"can't listen on {host}:{port}: {error.strerror or error}", hint=hint) from error


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """Return the URL at which this socket answers; one for all addresses by that of this machine's default route."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return reached_at(f"{scheme}://{shown}:{port}", lan_address())


class HttpServer:
    """Serves one program on one socket.

    Args:
        app: the program.
        listener: from `bind`; closed at the end.
        tls: speaks TLS when given.
    """

    def __init__(self, app: FastAPI, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips="127.0.0.1",
            timeout_graceful_shutdown=_GOODBYE_S,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
        self._server = _Announcing(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="shoal-http", daemon=True)

    def start(self) -> None:
        """Begin; returns when requests are answered.

        Raises:
            LocalError: it ended before it was ready; the log says why.
        """
        self._thread.start()
        self._server.settled.wait()
        if not self._server.started:
            raise LocalError("the HTTP server did not start; the log says why")

    def stop(self) -> None:
        """End: no new requests, a few seconds for those that are being answered."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._server.settled.set()


class _Announcing(uvicorn.Server):
    """A uvicorn server that tells when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets=sockets)
        self.settled.set()
