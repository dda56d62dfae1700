"""Carries one request to a receiver: to an address that was looked at, by verified TLS, without following anywhere.

Owns everything that a receiver could do to the server: it can't send it elsewhere (no redirects, no proxies of the
environment), hold it for long (one deadline over all, name lookup included), fill its memory (a few kilobytes of the
answer are read, uncompressed) or make it connect to what `targets` refuses. `send` never raises for what a receiver
does: whatever comes of it is an `Answer`.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2

from shoal_server.errors import StartError
from shoal_server.storage.database import Clock
from shoal_server.webhooks.targets import (
    Allowed,
    Resolve,
    Target,
    TargetError,
    allowed_addresses,
    parse_target,
    resolve,
)

DEADLINE_S = 10.0
MAX_HEAD_BYTES = 1024
_TRIED_ADDRESSES = 4
_LOOKUPS = 32
_USER_AGENT = "Shoal-Webhooks/1"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one attempt.

    Attributes:
        status: HTTP status; None: no answer came.
        latency_ms: From the lookup of the name to the end of the answer, or until it failed.
        error: Why it counts as failed; empty: it was taken.
        head: Beginning of the answer's body, as text without control characters.
        retry_after_s: How long the receiver asked to be left alone.
    """

    status: int | None = None
    latency_ms: int = 0
    error: str = ""
    head: str = ""
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return not self.error


class Sender:
    """Sends to whom the operator allows.

    Args:
        allowed: Besides public addresses.
        clock: For Retry-After.
        lookup: Finds the addresses of a host.
        ca: Certificates (PEM) of a further authority.
        deadline_s: For one attempt.

    Raises:
        StartError: The certificates can't be read.
    """

    def __init__(
        self,
        *,
        allowed: Allowed,
        clock: Clock,
        lookup: Resolve = resolve,
        ca: Path | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._allowed = allowed
        self._clock = clock
        self._lookup = lookup
        self._deadline_s = deadline_s
        # Of its own: a lookup that nobody answers can't be broken off, and the end of a round must not wait for it.
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="shoal-lookup")
        self._tls = None if ca is None else _trust(ca)

    def check(self, url: str) -> None:
        """Refuse a URL that nothing may be sent to, or whose host can't be found; raises `TargetError`."""
        allowed_addresses(parse_target(url), self._allowed, self._lookup)

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request.

        Args:
            url: Of the webhook.
            body: As signed.
            headers: With content type and signature.
        """
        if self._tls is None:
            self._tls = _trust(None)  # half a second at times, which is no latency of the receiver
        begun = time.perf_counter()
        answer = await self._answer(url, body, headers)
        passed = round(1000 * (time.perf_counter() - begun))
        return Answer(
            status=answer.status,
            latency_ms=passed,
            error=answer.error,
            head=answer.head,
            retry_after_s=answer.retry_after_s,
        )

    async def _answer(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            async with asyncio.timeout(self._deadline_s):
                target = parse_target(url)
                look = partial(allowed_addresses, target, self._allowed, self._lookup)
                addresses = await asyncio.get_running_loop().run_in_executor(self._lookups, look)
                return await self._reach(target, addresses, body, headers)
        except TimeoutError:
            return Answer(error=f"no complete answer within {self._deadline_s:g} s")
        except TargetError as error:
            return Answer(error=error.message)
        except (httpx2.HTTPError, OSError) as error:
            return Answer(error=_reason(error))

    async def _reach(self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send to the first address that a connection can be made to."""
        *others, last = addresses[:_TRIED_ADDRESSES]
        for address in others:
            try:
                return await self._post(target, address, body, headers)
            except httpx2.ConnectError:
                continue
        return await self._post(target, last, body, headers)

    async def _post(self, target: Target, address: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        assert self._tls is not None, "made by send"
        sent = {
            "host": target.authority,
            "user-agent": _USER_AGENT,
            "accept": "*/*",
            "accept-encoding": "identity",
            **headers,
        }
        client = httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._deadline_s)
        # The name is what the certificate must be for, though the connection goes to the address.
        extensions = {"sni_hostname": target.host}
        async with (
            client,
            client.stream("POST", target.at(address), content=body, headers=sent, extensions=extensions) as response,
        ):
            head = await _head(response)
        return Answer(
            status=response.status_code,
            error=_refusal(response),
            head=head,
            retry_after_s=self._retry_after(response.headers.get("retry-after", "")),
        )

    def _retry_after(self, text: str) -> float | None:
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - self._clock())
        except (ValueError, TypeError, OverflowError):
            return None


def _trust(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as error:
            raise StartError(f"--webhook-ca {ca} can't be used: {error}") from error
    return context


async def _head(response: httpx2.Response) -> str:
    raw = b""
    async for piece in response.aiter_raw():
        raw += piece
        if len(raw) >= MAX_HEAD_BYTES:
            break
    text = raw[:MAX_HEAD_BYTES].decode("utf-8", "replace")
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text).strip()


def _refusal(response: httpx2.Response) -> str:
    """Return why an answer means that the event was not taken; empty: it was."""
    if response.is_success:
        return ""
    if response.has_redirect_location:
        return f"answered {response.status_code}: redirects are not followed; give the address that it leads to"
    return f"answered {response.status_code} {response.reason_phrase}".strip()


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"its certificate is not trusted: {text}"
    return f"no answer: {text}"
