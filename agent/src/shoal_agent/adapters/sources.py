"""Where bundles are downloaded from: mirrors first, the server at last.

A mirror is any place that answers ``/v2/{model}/blobs/{digest}`` as a registry does: a pull-through cache in the plant,
a copy of the registry, a content delivery network. It needs no trust: what it sends is held against signed digests. It
never gets the device's credentials. Mirrors are named by the integrator (``download.mirrors``) or by the server, in
``Link: <…>; rel="duplicate"`` of a manifest's answer (RFC 6249); one that fails is left out for a while.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.ports import Clock

FAULT_REST_S = 300.0
"""So long a mirror is left out that could not be reached, broke off or was slow."""

LIE_REST_S = 6 * 3600.0
"""So long one is left out that sent other bytes than were signed."""

MOST_NAMED = 4
_LINK_RE = re.compile(r"<([^<>\s]{1,2000})>\s*((?:;[^,<]*)*)")
_DUPLICATE_RE = re.compile(r';\s*rel="?duplicate"?\s*(?:;|$)', re.IGNORECASE)
_log = logging.getLogger(__name__)


class Sources:
    """The places, in the order in which they are tried.

    Args:
        server: The server; with the device's credentials.
        mirrors: URLs that the integrator gave.
        connect: Makes the client of a mirror; without credentials.
        clock: Monotonic seconds.
    """

    def __init__(
        self, server: HttpClient, mirrors: Sequence[str] = (), *, connect: Callable[[str], HttpClient], clock: Clock
    ) -> None:
        self.server = server
        self._connect = connect
        self._clock = clock
        self._given = tuple(url.rstrip("/") for url in mirrors)
        self._named: tuple[str, ...] = ()
        self._clients: dict[str, HttpClient] = {}
        self._rests_until: dict[str, float] = {}

    def order(self) -> list[HttpClient]:
        """Return whom to ask: mirrors that are not resting, then the server."""
        now = self._clock()
        urls = dict.fromkeys((*self._given, *self._named))
        return [*(self._client(url) for url in urls if self._rests_until.get(url, now) <= now), self.server]

    def name(self, urls: Sequence[str]) -> None:
        """Take the mirrors that the server names now, instead of those that it named before."""
        self._named = tuple(url for url in urls if _is_no_step_down(self.server.url, url))[:MOST_NAMED]
        for url in set(self._clients) - {*self._given, *self._named}:
            self._clients.pop(url).close()

    def rest(self, url: str, why: str, *, seconds: float) -> None:
        """Leave a mirror out for a while, if it is not left out so long anyway."""
        until = self._clock() + seconds
        if self._rests_until.get(url, 0.0) < until:
            self._rests_until[url] = until
            _log.warning("the mirror %s is left out for %.0f minutes: %s", url, seconds / 60, why)

    def _client(self, url: str) -> HttpClient:
        if url not in self._clients:
            self._clients[url] = self._connect(url)
        return self._clients[url]


def mirrors_in(link: str | None, path: str) -> list[str]:
    """Return the roots of the mirrors that a ``Link`` header names.

    Args:
        link: The header, none: it was not sent.
        path: Of the answer that it came with; an address that does not end with it names no mirror.

    >>> mirrors_in('<https://a.example/x/v2/m>; rel="duplicate"; pri=1, </v2/n>; rel="next"', "/v2/m")
    ['https://a.example/x']
    """
    found = (match[1] for match in _LINK_RE.finditer(link or "") if _DUPLICATE_RE.search(match[2]))
    return [url.removesuffix(path) for url in found if url.endswith(path)]


def _is_no_step_down(server: str, url: str) -> bool:
    """Tell whether a mirror that the server names is at least as private as the server itself."""
    parts = urlsplit(url)
    secure = {"https"} if server.startswith("https://") else {"http", "https"}
    if parts.scheme in secure and parts.hostname and "@" not in parts.netloc:
        return True
    _log.warning("the server names the mirror %s, which is left out: expected https and no password in it", url[:200])
    return False
