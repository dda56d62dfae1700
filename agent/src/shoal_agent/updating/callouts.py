"""Telling the integrator's programs what became of a slot, once for each time that it happened.

A hook that fails changes nothing about the update: it is logged, and told to the server as an event.
"""

from __future__ import annotations

import logging

from shoal_agent.domain.occasion import HookKind, Occasion
from shoal_agent.domain.slot import Record, Slot
from shoal_agent.errors import SpoolError
from shoal_agent.ports import HookOutcome, Hooks, Spool
from shoal_agent.updating.messages import Messages
from shoal_protocol.mqtt.topics import Up

_KINDS = {"activated": HookKind.ON_ACTIVATE, "rolled_back": HookKind.ON_ROLLBACK}
_log = logging.getLogger(__name__)


class NoHooks:
    """No program at all."""

    def has(self, kind: HookKind) -> bool:  # noqa: ARG002 - of the port
        """Tell that there is none."""
        return False

    def run(self, occasion: Occasion) -> HookOutcome:
        """Say that there is none; never called."""
        return HookOutcome(fault=f"there is no hook {occasion.hook}")


class Callouts:
    """Calls the hooks of one device.

    Args:
        device: Its id.
        hooks: The integrator's programs.
        spool: Takes what failed.
        messages: Makes it.
    """

    def __init__(self, device: str, hooks: Hooks, *, spool: Spool, messages: Messages) -> None:
        self._device = device
        self._hooks = hooks
        self._spool = spool
        self._messages = messages

    def after(self, name: str, slot: Slot, record: Record) -> None:
        """Call the hook for an outcome, if there is one.

        Args:
            name: Of the slot.
            slot: As it is now.
            record: What became of it.
        """
        kind = _KINDS.get(record.kind)
        if kind is None or not self._hooks.has(kind):
            return
        fault = record.fault
        known = slot.target is not None and slot.target.digest == slot.active
        occasion = Occasion(
            hook=kind,
            device=self._device,
            slot=name,
            digest=slot.active,
            name=slot.target.name if known and slot.target else "",
            other=slot.previous if kind is HookKind.ON_ACTIVATE else record.digest,
            code=fault.code if fault else "",
            message=fault.message if fault else "",
        )
        outcome = self._hooks.run(occasion)
        if outcome.fault or outcome.exit_code:
            self._tell_failed(occasion, outcome.fault or f"it ended with {outcome.exit_code}", outcome.said)

    def _tell_failed(self, occasion: Occasion, fault: str, said: str) -> None:
        message = f"the hook {occasion.hook} failed: {fault}{f'; it said: {said}' if said else ''}"
        _log.warning("slot %s: %s", occasion.slot, message)
        data = {"hook": occasion.hook.value, "message": message[:500]}
        event = self._messages.event("hook_failed", slot=occasion.slot, digest=occasion.digest, data=data)
        try:
            self._spool.append(Up.EVENT, event)
        except SpoolError as error:
            _log.error("slot %s: that could not be spooled: %s", occasion.slot, error)
