"""Where webhooks may be sent: addresses on the internet, and what the operator allowed. Pure but for `resolve`.

Whoever may create a webhook can make the server send requests. So that it can't be pointed at what only the server
reaches (loopback, private networks, the metadata service of a cloud at 169.254.169.254), a host is resolved once, every
address that it has must be public, and the connection is made to exactly the address that was looked at: a name that
means something else a moment later (DNS rebinding) changes nothing. Hosts and networks that the operator names in
`--webhook-allow` are exempt, also from https.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from shoal_protocol.errors import CallerError

MAX_URL = 2000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses; raises OSError."""


class TargetError(CallerError):
    """Nothing may be sent to this address, or it can't be found."""

    code = "webhook_target"


@dataclass(frozen=True)
class Target:
    """The parts of a webhook's URL that decide where a connection goes."""

    scheme: str
    host: str
    port: int
    authority: str
    """For the Host header."""
    path: str
    """With the query."""

    def at(self, address: str) -> str:
        """Return the URL with an address in the place of the host."""
        return f"{self.scheme}://{f'[{address}]' if ':' in address else address}:{self.port}{self.path}"


def parse_target(url: str) -> Target:
    """Take a URL apart.

    Raises:
        TargetError: It is no http(s) URL, or holds a user, a fragment or characters that no URL has.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetError(f"{url!r:.120} is no URL: {error}") from error
    clean = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= MAX_URL
    if not clean or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise TargetError(f"expected a URL such as https://hooks.example.com/shoal, got {url!r:.120}")
    if "@" in parts.netloc or "#" in url:
        raise TargetError("a webhook's URL has no user or password before the host, and no #fragment")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    default = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, parts.hostname, port or default, parts.netloc, path)


@dataclass(frozen=True)
class Allowed:
    """What the operator allowed besides public addresses.

    Attributes:
        hosts: Names and addresses, in lower case, as they stand in URLs.
        networks: Networks that addresses may be in.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def covers(self, host: str, address: _Address) -> bool:
        """Tell whether this host at this address is exempt."""
        return host.lower() in self.hosts or any(
            address.version == network.version and address in network for network in self.networks
        )


def parse_allowed(words: Sequence[str]) -> Allowed:
    """Read host names, addresses and networks.

    Raises:
        CallerError: A word is none of them.

    >>> parse_allowed(["chat.lan", "10.0.0.0/8"]).hosts
    frozenset({'chat.lan'})
    """
    hosts, networks = set(), []
    for word in words:
        try:
            networks.append(ipaddress.ip_network(word.strip("[]")))
            continue
        except ValueError:
            bare = word.replace("-", "").replace(".", "").replace("_", "")
        if not bare.isalnum() or not word.isascii():
            raise CallerError(
                f"--webhook-allow is a host, an address or a network such as 10.0.0.0/8, got {word!r:.80}",
                hint="without https:// and without a path",
            )
        hosts.add(word.lower())
    return Allowed(frozenset(hosts), tuple(networks))


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a host, in the order to try them; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def allowed_addresses(target: Target, allowed: Allowed, lookup: Resolve) -> Sequence[str]:
    """Resolve a target once and return the addresses to connect to.

    Raises:
        TargetError: The name has no address, one of them is not allowed, or it is http beyond what was allowed.
    """
    try:
        addresses = lookup(target.host, target.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"the host {target.host} can't be found: {reason}", hint="is it spelt right?") from error
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if allowed.covers(target.host, address):
            continue
        hint = f"if it is meant: shoal-server serve --webhook-allow {target.host}, or SHOAL_WEBHOOK_ALLOW"
        kind = kind_of(address)
        if kind:
            shown = target.host if target.host == text else f"{target.host} ({text})"
            raise TargetError(f"{shown} is {kind}, and nothing is sent there unless it is allowed", hint=hint)
        if target.scheme != "https":
            raise TargetError(f"events leave for {target.host} by https only, not by http", hint=hint)
    if not addresses:
        raise TargetError(f"the host {target.host} has no address")
    return addresses


def kind_of(address: _Address) -> str:
    """Return what an address is when it is not public, else an empty text.

    >>> kind_of(ipaddress.ip_address("169.254.169.254"))
    'a link-local address, where clouds keep credentials'
    >>> kind_of(ipaddress.ip_address("::ffff:127.0.0.1")), kind_of(ipaddress.ip_address("1.1.1.1"))
    ('a loopback address', '')
    """
    inner = _embedded(address)
    if inner is not None:
        return kind_of(inner)
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address, where clouds keep credentials"
    if address.is_multicast:
        return "a multicast address"
    if address.is_global and not address.is_reserved:
        return ""
    return "a private address" if address.is_private else "no public address"


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address of a transition mechanism leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
