"""Telling the server what became of updates: outcomes and revocations, into the spool.

A spool that takes nothing is logged and keeps no update from going on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shoal_agent.domain.slot import Record, Slot
from shoal_agent.errors import SpoolError
from shoal_agent.ports import BlobStore, Spool
from shoal_agent.updating.bundle_names import shown_stored
from shoal_agent.updating.messages import Messages
from shoal_protocol.mqtt.topics import Up

_log = logging.getLogger(__name__)


class Outcomes:
    """Puts what happened to slots into the spool, each once.

    Args:
        spool: Takes it.
        messages: Makes it.
        store: Knows what the bundles are called.
    """

    def __init__(self, spool: Spool, messages: Messages, store: BlobStore) -> None:
        self._spool = spool
        self._messages = messages
        self._store = store

    def record(self, name: str, slot: Slot, record: Record) -> bool:
        """Tell an outcome, once for each time that the slot came to its state; returns whether this was the first."""
        why = "" if record.fault is None else f": {record.fault.code}, {record.fault.message}"
        level = logging.INFO if record.fault is None else logging.WARNING
        wanted = slot.target.name if slot.target is not None and slot.target.digest == record.digest else ""
        bundle = shown_stored(self._store, record.digest, wanted)
        _log.log(level, "slot %s: %s is %s%s", name, bundle, record.kind.replace("_", " "), why)
        key = f"{name}/{record.kind}/{record.digest}/{int(slot.since * 1000)}"
        return self._append(name, self._messages.outcome(name, record), key=key, what=f"outcome {record.kind!r}")

    def revoked(self, name: str, digest: str, why: str, *, generation: int) -> None:
        """Tell that a running bundle was taken off the signed list; once for each assignment.

        Args:
            name: Of the slot.
            digest: Of the bundle.
            why: As the signed list says.
            generation: Of the assignment.
        """
        _log.warning("slot %s: %s, which runs, is revoked: %s", name, shown_stored(self._store, digest), why)
        event = self._messages.event("revoked", slot=name, digest=digest, data={"message": why[:500]})
        self._append(name, event, key=f"revoked/{name}/{digest}/{generation}", what="revocation")

    def cut_off(self, name: str, digest: str) -> None:
        """Tell that a call of a running bundle did not come back and was cut off.

        Args:
            name: Of the slot.
            digest: Of the bundle.
        """
        event = self._messages.event("call_cut_off", slot=name, digest=digest)
        self._append(name, event, key=None, what="cut call")

    def _append(self, name: str, event: Callable[[int], bytes], *, key: str | None, what: str) -> bool:
        try:
            return self._spool.append(Up.EVENT, event, key=key) is not None
        except SpoolError as error:
            _log.error("slot %s: the %s could not be spooled: %s", name, what, error)
            return True
