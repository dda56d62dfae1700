"""Devices as events for webhooks: joining, leaving, and the suspicion of a clone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlmodel import Session

from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import DeviceData
from shoal_server.outbox.places import page_of

TYPE_OF_ACTION: Mapping[str, EventType] = MappingProxyType(
    {
        "device.enrol": EventType.DEVICE_ENROLLED,
        "device.accept": EventType.DEVICE_ACCEPTED,
        "device.revoke": EventType.DEVICE_REVOKED,
        "device.decommission": EventType.DEVICE_DECOMMISSIONED,
    }
)
"""What the audit calls an action -> the event that it is; other actions are told to nobody outside."""

_TITLES: Mapping[EventType, str] = MappingProxyType(
    {
        EventType.DEVICE_ENROLLED: "{device} joined",
        EventType.DEVICE_ACCEPTED: "{device} was accepted",
        EventType.DEVICE_REVOKED: "{device} was revoked",
        EventType.DEVICE_DECOMMISSIONED: "{device} was decommissioned",
        EventType.DEVICE_CLONE_SUSPECTED: "{device} seems to exist twice",
    }
)


def announce_device(
    session: Session,
    type_: EventType,
    device: str,
    *,
    state: str,
    labels: Mapping[str, str],
    actor: str = "server",
    reason: str = "",
    now: float,
) -> None:
    """Announce what became of a device, in the transaction that changes it.

    Args:
        session: Of an open write transaction.
        type_: What happened.
        device: Its id.
        state: That it has now.
        labels: That it has.
        actor: Who caused it, as in the audit.
        reason: More words, where there are any.
        now: Seconds since the epoch.
    """
    waits = "; it waits until an operator accepts it" if state == "pending" else ""
    shown = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    announce(
        session,
        Event(
            type=type_,
            subject=f"device:{device}",
            title=_TITLES[type_].format(device=device) + waits,
            text=reason or (f"Labels: {shown}" if shown else ""),
            page="" if type_ is EventType.DEVICE_DECOMMISSIONED else page_of(f"device:{device}"),
            data=DeviceData(device=device, state=state, labels=dict(labels), actor=actor, reason=reason),
            at=now,
        ),
    )
