"""Sends signed assignments to the devices.

Owns the loop from the outbox to the link: what is not yet published or has to be signed again, and everything once
more, at a pace, whenever the line was established anew (a wiped broker has forgotten the retained documents), with the
credentials of all devices; and now and then what a connected device does not seem to have heard. Leaves the outbox to
`assignments` and the line to `link`.

A crash between sending and marking sends the same document again, which does no harm.
"""

from __future__ import annotations

from collections.abc import Callable

from securesystemslib.signer import Signer

from shoal_protocol.mqtt.topics import Down, down
from shoal_server.fleet import assignments, store
from shoal_server.fleet.letting_in import let_in
from shoal_server.link.port import DeviceLink, LettingIn, LinkError
from shoal_server.storage.database import Clock, Database

BATCH = 200
"""Documents of one tick: signing takes about 0.1 ms each, and the transaction stays short."""


REMIND_S = 120.0
"""A connected device that has not told of its newest document for so long gets it again, and then as often."""


class Publisher:
    """One worker; `tick` is called in a loop.

    Args:
        database: With the outbox.
        link: The line to the devices.
        signer: Returns the key of the timestamp role, which may change.
        clock: Seconds since the epoch.
        letting_in: `Services.letting_in`; by default nobody else tells this line whom to let in.
        batch: Documents of one tick.
    """

    def __init__(
        self,
        *,
        database: Database,
        link: DeviceLink,
        signer: Callable[[], Signer],
        clock: Clock,
        letting_in: LettingIn | None = None,
        batch: int = BATCH,
    ) -> None:
        self._database = database
        self._link = link
        self._signer = signer
        self._clock = clock
        self._letting_in = letting_in or LettingIn()
        self._batch = batch
        self._connections = -1
        self._again_after: str | None = None
        self._reminded_at = clock()
        self._reminded = ""

    def tick(self) -> int:
        """Publish what is due; returns how many documents were sent.

        Raises:
            LinkError: The broker does not take the devices' credentials; the next tick tries again.
        """
        if not self._link.connected:
            return 0
        connections = self._link.connections
        if connections != self._connections:
            let_in(self._database, self._link, self._letting_in)
            self._connections, self._again_after = connections, ""
        elif self._letting_in.is_due:  # a revocation, say, that the broker did not take when it was told
            let_in(self._database, self._link, self._letting_in)
        now = self._clock()
        with self._database.read() as session:
            wanted = assignments.due(session, now=now, limit=self._batch)
        sent = self._send(wanted, now)
        if len(wanted) < self._batch and self._again_after is not None:
            sent += self._send_again(now)
        if not sent and not REMIND_S > now - self._reminded_at >= 0:  # only in a quiet moment
            self._reminded_at = now
            sent += self._remind(now)
        return sent

    def _remind(self, now: float) -> int:
        """Send once more what connected devices don't seem to have heard; it may have been lost on the way."""
        with self._database.read() as session:
            devices = assignments.lagging(
                session, after=self._reminded, published_before=now - REMIND_S, limit=self._batch
            )
        self._reminded = devices[-1] if len(devices) == self._batch else ""
        return self._send(devices, now)

    def _send_again(self, now: float) -> int:
        """Send the next batch of everything, after the line was established anew."""
        assert self._again_after is not None
        with self._database.read() as session:
            devices = assignments.after(session, self._again_after, limit=self._batch)
        sent = self._send(devices, now)
        if sent == len(devices):
            self._again_after = devices[-1] if len(devices) == self._batch else None
        return sent

    def _send(self, devices: list[str], now: float) -> int:
        """Sign where that is due, then send, then mark; stops at the first that the line does not take."""
        if not devices:
            return 0
        signer = self._signer()
        with self._database.write() as session:
            # by id, as all who change several: two orders would let two transactions wait for each other
            signed = {name: assignments.document(session, name, signer=signer, now=now) for name in sorted(devices)}
        published: dict[str, tuple[int, float]] = {}
        for document in (signed[device] for device in devices):
            try:
                if self._sent(document):
                    published[document.device] = (document.generation, document.issued_at)
            except LinkError:
                break
        with self._database.write() as session:
            assignments.mark_published(session, published)
        return len(published)

    def _sent(self, document: assignments.SignedDocument) -> bool:
        """Send one document, unless its device was thrown out meanwhile; tells whether it was sent.

        Whoever throws a device out takes the same lock afterwards, and then clears what is stored for it: no document
        comes after that.

        Raises:
            LinkError: The line does not take it.
        """
        with self._letting_in.order:
            with self._database.read() as session:
                if not store.is_accepted(session, document.device):
                    return False
            self._link.publish(down(document.device, Down.DESIRED), document.envelope, retain=True)
            return True
