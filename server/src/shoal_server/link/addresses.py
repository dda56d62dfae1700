"""By which names and addresses others on the network reach this machine.

Owns asking the operating system; nothing is sent to anybody. What a machine is called elsewhere (a name in somebody's
DNS, the outside of a NAT) can't be known here: that has to be said, by `--public-url` or `--tls-name`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_DOCUMENTATION = ("198.51.100.1", 9)
_LOCAL_V4 = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")
_LINK_LOCAL_SCOPE = "20"


def is_unspecified(host: str) -> bool:
    """Tell whether this stands for every address of the machine."""
    return host in _UNSPECIFIED


def lan_address() -> str:
    """Return the address that this machine's default route goes out by; the loopback where there is no route.

    A datagram socket that is connected sends nothing; the kernel only chooses the route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_DOCUMENTATION)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def own_names(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """Return the host names and addresses under which this machine answers, loopback included.

    Args:
        proc: The kernel's tables; what can't be read there is left out.
    """
    host = socket.gethostname()
    names = {"localhost", "127.0.0.1", "::1", host, socket.getfqdn(), lan_address()}
    if "." not in host:
        names.add(f"{host}.local")  # multicast DNS, RFC 6762
    names.update(_LOCAL_V4.findall(_text(proc / "fib_trie")))
    for line in _text(proc / "if_inet6").splitlines():
        raw, _, _, scope = line.split()[:4]
        if scope != _LINK_LOCAL_SCOPE:  # those need a zone, which no certificate can name
            names.add(str(ipaddress.IPv6Address(int(raw, 16))))
    return frozenset(name for name in names if name)


def reached_at(url: str, host: str) -> str:
    """Return a URL that others can use: one for every address of this machine gets `host`, others stay.

    >>> reached_at("mqtts://0.0.0.0:8883", "fd00::7")
    'mqtts://[fd00::7]:8883'
    """
    parts = urlsplit(url)
    if not is_unspecified(parts.hostname or ""):
        return url
    shown = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(netloc=f"{shown}:{parts.port}" if parts.port else shown))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
