"""The worker that sends events: all webhooks at once, each one's events in their order.

Owns one round of work, which lasts as long as there is something to send: a slow or dead receiver keeps its own events
waiting and nobody else's. Rows are claimed, sent and settled in three steps without a transaction held open in between.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlmodel import Session

from shoal_server.access import audit
from shoal_server.alerts.store import raise_alert
from shoal_server.signals import Signals
from shoal_server.storage.database import Clock, Database
from shoal_server.webhooks import queue, signature
from shoal_server.webhooks.bodies import Format, render
from shoal_server.webhooks.queue import Outcome, Parcel, Settled
from shoal_server.webhooks.schedule import Uniform
from shoal_server.webhooks.sender import Answer, Sender

LOOK_S = 0.5
"""How often a round that is still sending looks for further webhooks with something to send."""
ALERT_KIND = "webhook"
_AT_ONCE = 32
_DATABASE_THREADS = 4
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Work: TypeAlias = Callable[[Session], _T]


class DeliveryMetrics:
    """What Prometheus sees of the sending by this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "shoal_webhook_attempts",
            "Attempts to deliver an event, by what came of them",
            ("webhook", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "shoal_webhook_attempt_seconds", "Time of an attempt", buckets=_BUCKETS, registry=registry
        )

    def count(self, webhook: str, outcome: Outcome, answer: Answer) -> None:
        """Count one attempt."""
        self._attempts.labels(webhook, outcome.value).inc()
        self._seconds.observe(answer.latency_ms / 1000)


class Courier:
    """Sends what waits.

    Args:
        database: With webhooks and deliveries.
        sender: Carries requests.
        source: Address of this server.
        clock: Seconds since the epoch.
        signals: Told `webhooks` and `alerts` when something is new; when they are closed, sending is broken off.
        metrics: Where attempts are counted.
        uniform: Source of randomness.
    """

    def __init__(
        self,
        *,
        database: Database,
        sender: Sender,
        source: str,
        clock: Clock,
        signals: Signals,
        metrics: DeliveryMetrics,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._database = database
        self._sender = sender
        self._source = source
        self._clock = clock
        self._signals = signals
        self._metrics = metrics
        self._uniform = uniform

    def tick(self) -> None:
        """Send everything whose time has come; returns when nothing is left or the program ends."""
        with self._database.read() as session:
            if not queue.due(session, now=self._clock()):
                return
        with ThreadPoolExecutor(_DATABASE_THREADS, thread_name_prefix="shoal-webhooks") as threads:
            asyncio.run(self._round(threads))

    async def _round(self, threads: ThreadPoolExecutor) -> None:
        sending: dict[int, asyncio.Task[None]] = {}
        try:
            while not self._signals.closed:
                for hook in await self._read(threads, lambda session: queue.due(session, now=self._clock())):
                    if hook not in sending and len(sending) < _AT_ONCE:
                        sending[hook] = asyncio.create_task(self._drain(threads, hook))
                if not sending:
                    return
                await asyncio.wait(sending.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for hook in [hook for hook, task in sending.items() if task.done()]:
                    sending.pop(hook).result()  # raises what the database raised: the loop logs it and tries again
        finally:
            for task in sending.values():
                task.cancel()
            await asyncio.gather(*sending.values(), return_exceptions=True)

    async def _drain(self, threads: ThreadPoolExecutor, hook: int) -> None:
        """Send the events of one webhook, one after the other, until it has none whose time has come."""
        while True:
            take = partial(queue.claim, webhook=hook, token=uuid.uuid4().hex, now=self._clock())
            parcel = await self._write(threads, take)
            if parcel is None:
                return
            try:
                answer = await self._send(parcel)
            except asyncio.CancelledError:
                with self._database.write() as session:
                    queue.release(session, parcel)
                raise
            except Exception as error:  # noqa: BLE001 - the boundary of one delivery: it must not end the others'
                _log.exception("webhook %s: event %s could not be made or sent", parcel.name, parcel.event.id)
                answer = Answer(error=f"it could not be sent: {error}")
            settled = await self._write(threads, partial(self._settle, parcel=parcel, answer=answer))
            self._metrics.count(parcel.name, settled.outcome, answer)
            self._signals.bump("webhooks")
            if settled.disabled:
                self._signals.bump("alerts")
            if settled.outcome is not Outcome.DELIVERED:
                _log.info("webhook %s: %s: %s", parcel.name, settled.outcome, answer.error)

    async def _send(self, parcel: Parcel) -> Answer:
        return await post(self._sender, parcel, source=self._source, timestamp_s=int(self._clock()))

    def _settle(self, session: Session, *, parcel: Parcel, answer: Answer) -> Settled:
        now = self._clock()
        settled = queue.settle(session, parcel, answer, now=now, uniform=self._uniform)
        if settled.disabled:
            tell_disabled(session, parcel, reason=f"{settled.disabled}; last: {answer.error}", now=now)
        return settled

    async def _read(self, threads: ThreadPoolExecutor, work: _Work[_T]) -> _T:
        def run() -> _T:
            with self._database.read() as session:
                return work(session)

        return await asyncio.get_running_loop().run_in_executor(threads, run)

    async def _write(self, threads: ThreadPoolExecutor, work: _Work[_T]) -> _T:
        def run() -> _T:
            with self._database.write() as session:
                return work(session)

        return await asyncio.get_running_loop().run_in_executor(threads, run)


async def post(sender: Sender, parcel: Parcel, *, source: str, timestamp_s: int) -> Answer:
    """Render, sign and send one event.

    Args:
        sender: Carries the request.
        parcel: The event, and to whom.
        source: Address of this server.
        timestamp_s: Of this attempt, for the signature.
    """
    content_type, body = render(parcel.event, Format(parcel.format), source=source)
    signed = signature.headers(parcel.secrets, message_id=parcel.event.id, timestamp_s=timestamp_s, body=body)
    return await sender.send(parcel.url, body, {"content-type": content_type, **signed})


def tell_disabled(session: Session, parcel: Parcel, *, reason: str, now: float) -> None:
    """Say in alerts and audit, in this order as everywhere, that the server itself disabled a webhook."""
    subject = f"webhook:{parcel.name}"
    raise_alert(
        session,
        kind=ALERT_KIND,
        subject=subject,
        title=f"The webhook {parcel.name} was disabled",
        body=f"{reason}. Look at `shoalctl webhook deliveries {parcel.name}`, mend the receiver, then "
        f"`shoalctl webhook edit {parcel.name} --enable`; what it missed can be sent again by "
        "`shoalctl webhook redeliver`",
        severity="warning",
        key=alert_key(parcel.webhook),
        now=now,
    )
    audit.record(
        session,
        actor="server",
        action="webhook.disable",
        subject=subject,
        before={"enabled": True},
        after={"enabled": False, "reason": reason},
        now=now,
    )


def alert_key(webhook: int) -> str:
    """Return the key of the alert that a webhook was disabled."""
    return f"webhook:{webhook}"
