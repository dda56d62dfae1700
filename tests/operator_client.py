"""An HTTP client that is logged in as the first admin of a server that runs in this process."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from shoal_server.bootstrap import Server


@contextmanager
def logged_in(server: Server, *, url: str | None = None, timeout: float = 30) -> Iterator[httpx2.Client]:
    """Yield the client; `url` is another way to the server than it says itself."""
    runtime = server.runtime
    trusted: ssl.SSLContext | bool = True if runtime.ca is None else ssl.create_default_context(cafile=runtime.ca)
    address = url or runtime.url
    limits = httpx2.Limits(keepalive_expiry=2.0)  # less than the server's, which may close it under a request
    with httpx2.Client(
        base_url=address, trust_env=False, verify=trusted, headers={"origin": address}, timeout=timeout, limits=limits
    ) as client:
        answer = client.post("/api/v1/login", json={"name": "admin", "password": server.first_password})
        answer.raise_for_status()
        yield client
