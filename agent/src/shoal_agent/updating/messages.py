"""What this device says, as messages: presence, birth, reported, and events for the spool.

Owns the numbering within a boot, the dates, and the translation of slots into reports. Leaves sending to the uplink and
the numbering of spooled messages to the spool.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.outbox import as_ranges
from shoal_agent.domain.slot import Record, Slot, SlotFault, SlotState
from shoal_agent.ports import Clock
from shoal_agent.updating.merging import merged_windows
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import (
    MAX_PAYLOAD,
    Birth,
    Event,
    Fault,
    HoldReport,
    Presence,
    Reported,
    ShadowReport,
    SlotReport,
    encode_message,
)  # fmt: skip
from shoal_protocol.profile.codec import ProfileMessage, decode_profile, encode_counts, encode_profile
from shoal_protocol.profile.labels import LabelGroup

if TYPE_CHECKING:
    from shoal_agent.runtime.windows import ClosedWindow

MAX_REASON = 500
"""Characters of a fault's message that are sent."""

MAX_LOST_RANGES = 512
"""Ranges of lost numbers that one event carries."""


class Messages:
    """Makes the messages of one boot.

    Args:
        epoch: Of the spool.
        boot: Number of this start.
        clock: Seconds UTC.
        first: Number of the first message that is not spooled.
        run: Random bits of this process.
    """

    def __init__(self, *, epoch: str, boot: int, clock: Clock, first: int = 1, run: str = "") -> None:
        self._run = run
        self._epoch, self._boot, self._clock = epoch, boot, clock
        self._numbers = itertools.count(first)

    def greeting(self) -> tuple[bytes, bytes]:
        """Return the presence of a new connection and its will, which is numbered after it and before the next one."""
        online, offline = next(self._numbers), next(self._numbers)
        return self._presence(online, online=True), self._presence(offline, online=False)

    def farewell(self) -> bytes:
        """Return the presence of an orderly end."""
        return self._presence(next(self._numbers), online=False)

    def birth(self, facts: Mapping[str, Any]) -> bytes:
        """Return what the device is; `facts` are the other fields of `Birth`."""
        return encode_message(Birth(**self._head(next(self._numbers)), **facts))

    def reported(
        self,
        state: DeviceState,
        *,
        progress: Mapping[str, float],
        variants: Mapping[str, str],
        shadows: Mapping[str, ShadowReport] | None = None,
        revoked: Mapping[str, str] = MappingProxyType({}),
        troubles: Mapping[str, SlotFault] = MappingProxyType({}),
        hold: Hold | None = None,
    ) -> bytes:
        """Return what really runs.

        Args:
            state: Of the device.
            progress: Share of the download that is there, by slot.
            variants: Path of the variant that runs, by slot.
            shadows: What runs beside the active model, by slot.
            revoked: Why bundles are revoked, by digest.
            troubles: What keeps a slot waiting, by slot.
            hold: The hold of an operator at the device.
        """
        shadows = shadows or {}
        slots = {
            name: slot_report(
                slot,
                progress=progress.get(name, 0.0),
                variant=variants.get(name),
                shadow=shadows.get(name),
                revoked=revoked.get(slot.active or ""),
                waiting=troubles.get(name),
            )
            for name, slot in state.slots.items()
        }
        head = self._head(next(self._numbers))
        return encode_message(
            Reported(**head, generation=state.generation, slots=slots, run=self._run, hold=_hold(hold))
        )

    def outcome(self, slot: str, record: Record) -> Callable[[int], bytes]:
        """Return the builder of an update's outcome, for the spool."""
        data: dict[str, Any] = {"attempt": record.attempt}
        if record.fault is not None:
            data |= {"code": record.fault.code, "message": record.fault.message[:MAX_REASON]}
        return self.event(record.kind, slot=slot, digest=record.digest, data=data)

    def event(
        self, kind: str, *, slot: str | None = None, digest: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Callable[[int], bytes]:
        """Return the builder of an event, for the spool."""
        at = self.now_ms()

        def build(seq: int) -> bytes:
            return encode_message(
                Event(**self._head(seq), at=at, kind=kind, slot=slot, digest=digest, data=dict(data or {}))
            )

        return build

    def merged(self, parts: Sequence[int]) -> Callable[[int], bytes]:
        """Return the builder of an event about windows that were merged into others before they were ever sent.

        Args:
            parts: Their numbers, ascending; the server never gets them, and misses nothing.
        """
        return self.event("merged", data={"ranges": as_ranges(parts)[:MAX_LOST_RANGES], "count": len(parts)})

    def lost(self, dropped: Sequence[int], *, unnumbered: int = 0, rows: int = 0) -> Callable[[int], bytes]:
        """Return the builder of an event about messages that the server will never get.

        Args:
            dropped: Their numbers, ascending.
            unnumbered: So many more never got a number.
            rows: Predicted rows that were counted in them.
        """
        data = {"ranges": as_ranges(dropped)[:MAX_LOST_RANGES], "count": len(dropped) + unnumbered}
        return self.event("lost", data=data | ({"rows": rows} if rows else {}))

    def window(self, seq: int, window: ClosedWindow, labels: tuple[LabelGroup, ...] = ()) -> bytes:
        """Return a closed window's message, which also takes labels of earlier predictions along.

        Raises:
            ContentError: It is larger than any message may be.
        """
        raw = encode_profile(
            ProfileMessage(
                **self._head(seq),
                slot=window.slot,
                digest=window.digest,
                spec_hash=window.spec_hash,
                start_ms=window.start_ms,
                length_ms=window.length_ms,
                n=window.n,
                errors=window.errors,
                latency=window.latency,
                resources=window.resources,
                body=encode_counts(window.profile.cells, window.profile.moments),
                labels=labels,
                shadows=window.shadows,
                violations=window.violations,
                rules=window.rules,
                variant=window.variant,
            )
        )
        return _bounded(raw)

    def merged_window(self, seq: int, bodies: Sequence[bytes]) -> bytes:
        """Return the message of one window that says what several said together.

        Raises:
            ContentError: They can't be merged, or it is larger than any message may be.
        """
        return _bounded(encode_profile(merged_windows([decode_profile(body) for body in bodies], seq=seq)))

    def now_ms(self) -> int:
        """Return the device's time, milliseconds since the epoch."""
        return int(self._clock() * 1000)

    def _presence(self, number: int, *, online: bool) -> bytes:
        return encode_message(Presence(**self._head(number), online=online, run=self._run))

    def _head(self, number: int) -> dict[str, Any]:
        return {"epoch": self._epoch, "boot": self._boot, "seq": number, "sent_at": self.now_ms()}


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MAX_PAYLOAD:
        raise ContentError(f"the window's profile has {len(raw)} bytes, at most {MAX_PAYLOAD} can be sent")
    return raw


def state_word(slot: Slot) -> str:
    """Return the state to report: an idle slot without a model says so loudly."""
    return "no_model" if slot.state is SlotState.IDLE and slot.active is None else slot.state.value


def slot_report(
    slot: Slot,
    *,
    progress: float = 0.0,
    variant: str | None = None,
    shadow: ShadowReport | None = None,
    revoked: str | None = None,
    waiting: SlotFault | None = None,
) -> SlotReport:
    """Return one slot as the server sees it."""
    return SlotReport(
        state=state_word(slot),
        active=slot.active,
        variant=variant if slot.active else None,
        previous=slot.previous,
        proven=slot.proven,
        fallback=slot.fallback,
        target=slot.target.digest if slot.target else None,
        attempt=slot.target.attempt if slot.target else 0,
        progress=round(progress, 3),
        revoked=revoked[:MAX_REASON] if revoked else None,
        error=_fault(slot.fault),
        waiting=_fault(waiting),
        shadow=shadow,
    )


def _hold(hold: Hold | None) -> HoldReport | None:
    if hold is None:
        return None
    return HoldReport(since=hold.since_ms, until=hold.until_ms, reason=hold.reason[:MAX_REASON])


def _fault(fault: SlotFault | None) -> Fault | None:
    if fault is None:
        return None
    return Fault(code=fault.code, message=fault.message[:MAX_REASON], digest=fault.digest or None)
