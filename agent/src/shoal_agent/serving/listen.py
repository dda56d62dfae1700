"""Where the local interface listens: loopback or a Unix socket, unless told otherwise."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import msgspec

from shoal_protocol.errors import CallerError

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
