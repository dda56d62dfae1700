"""Which page of the dashboard shows what a subject names. Pure."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def page_of(subject: str) -> str:
    """Return the path of the page about a subject as alerts and the audit write it; empty when there is none.

    >>> page_of("rollout:meter-1.1"), page_of("slot:quality"), page_of("x")
    ('/rollouts/meter-1.1', '/drift?slot=quality', '')
    >>> page_of("webhook:chat"), page_of("alert:7")
    ('/webhooks/chat', '/alerts')
    """
    kind, _, name = subject.partition(":")
    if kind == "slot":
        return f"/drift?{urlencode({'slot': name})}"
    if kind == "alert":
        return "/alerts"
    return f"/{kind}s/{quote(name, safe='')}" if kind in {"device", "rollout", "model", "webhook"} else ""
