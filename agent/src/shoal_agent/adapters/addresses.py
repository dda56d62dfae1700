"""Addresses on the network: which origin a URL has, where a redirect may lead, which proxy is on the way.

Pure, but for the environment, which names the proxy.
"""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from shoal_agent.errors import TransportError


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL.

    >>> origin_of("https://Server.example/v2/"), origin_of("https://server.example:443")
    ('https://server.example:443', 'https://server.example:443')
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    >>> redirected("https://a.example/v2/x", "/blobs/y")
    'https://a.example/blobs/y'

    Raises:
        TransportError: To where it must not lead: from https to http, to another scheme, or with a password in it.
    """
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        sound = parts.scheme in {"http", "https"} and bool(origin_of(target)) and bool(parts.hostname)
    except ValueError:  # a port that is no number, an address in brackets that is none
        sound = False
    if not sound or "@" in parts.netloc:
        raise TransportError(f"{told(url)} redirects to {location!r:.200}, which is no address to follow")
    if url.startswith("https://") and parts.scheme != "https":
        raise TransportError(f"{told(url)} redirects from https to {told(target)}, which is refused")
    return target


def told(url: str) -> str:
    """Return a URL as logs and reports may have it: what follows ``?`` can be a signature that opens a bucket.

    >>> told("https://bucket.example/x?X-Amz-Signature=abc")
    'https://bucket.example/x?...'
    """
    address, mark, _ = url.partition("?")
    return f"{address[:200]}{mark and '?...'}"


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``), if any.

    Small letters do as well. Loopback never goes by a proxy.
    """
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415 - 15 ms that a start without network should not pay

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127.") or proxy_bypass(host):
        return None
    proxy = getproxies_environment().get(parts.scheme)
    if proxy and "://" not in proxy:
        return f"http://{proxy}"
    return proxy or None
