"""Where the local interface listens: loopback or a Unix socket, unless told otherwise."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from pathlib import Path

import msgspec

from shoal_protocol.errors import CallerError, LocalError

_BACKLOG = 128
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Listen(msgspec.Struct, frozen=True):
    """Where to listen: a TCP host and port (0 picks a free one), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that ``Host`` may have; none where any will do."""
        return _LOOPBACK_NAMES if self.path is None and self.is_loopback else None


def parse_listen(text: str, *, insecure: bool = False) -> Listen:
    """Parse ``127.0.0.1:8130``, ``[::1]:8130`` or ``unix:/run/shoal/agent.sock``.

    Args:
        text: The address.
        insecure: Allow other machines to connect; there is neither TLS nor a login.

    Raises:
        CallerError: It is no address, or others could connect and `insecure` is not set.
    """
    if text.startswith("unix:"):
        return Listen(path=Path(text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise CallerError(f"{text!r} is no address to listen on", hint="write 127.0.0.1:8130 or unix:/path/to/socket")
    listen = Listen(host.strip("[]"), int(port))
    if not (listen.is_loopback or insecure):
        raise CallerError(
            f"{text} would let other machines in, and this interface has neither TLS nor a login",
            hint="listen on 127.0.0.1 or unix:PATH, put a proxy in front, or say --insecure",
        )
    return listen


def parse_listens(text: str, *, insecure: bool = False) -> list[Listen]:
    """Parse addresses separated by commas, ``127.0.0.1:8130,unix:/run/shoal/agent.sock``; ``none`` is no address.

    Raises:
        CallerError: As `parse_listen`; or one stands twice.
    """
    if text.strip() == "none":
        return []
    found = [parse_listen(one.strip(), insecure=insecure) for one in text.split(",")]
    twice = [one for at, one in enumerate(found) if one in found[:at] and (one.path is not None or one.port)]
    if twice:
        raise CallerError(f"{text!r} names one address twice", hint="each address once, separated by commas")
    return found


def open_listener(listen: Listen) -> socket.socket:
    """Take an address: from now on others get none of it, and who connects waits.

    Raises:
        LocalError: It is taken, or none of this machine's.
    """
    try:
        return _unix_listener(listen.path) if listen.path is not None else _tcp_listener(listen)
    except OSError as error:
        where = listen.path or f"{listen.host}:{listen.port}"
        why = (error.strerror or str(error)).partition(" (while")[0]  # the rest says the address again
        raise LocalError(f"can't listen on {where}: {why}", hint=_advice(error)) from error


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there, perhaps another agent: choose another address with --listen"
    return "choose another address with --listen"


def _tcp_listener(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    return socket.create_server((listen.host, listen.port), family=family, backlog=_BACKLOG)


def _unix_listener(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone; a living one's is left, so that bind() says it is taken."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
