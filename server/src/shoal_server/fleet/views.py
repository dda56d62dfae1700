"""Devices and join tokens as HTTP tells them to operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.fleet.devices import Device
from shoal_server.fleet.tables import JoinTokenRow
from shoal_server.timestamps import rfc3339


def device_json(device: Device, desired: Mapping[str, SlotTarget]) -> dict[str, Any]:
    """Return one device: who it is, what it should run and what it says that it runs.

    Args:
        device: Of the store.
        desired: What its slots should run.
    """
    return {
        "id": device.id,
        "name": device.name,
        "state": device.state.value,
        "online": device.online,
        "last_seen_at": rfc3339(device.last_seen_at),
        "enrolled_at": rfc3339(device.enrolled_at),
        "agent_version": device.agent_version,
        "labels": dict(device.labels),
        "facts": dict(device.facts),
        "pins": dict(device.pins),
        "generation": device.generation,
        "generation_reported": device.generation_reported,
        "clone_suspected_at": rfc3339(device.clone_suspected_at),
        "hold": _hold_json(device),
        "credential": {
            "number": device.credential,
            "held_since": rfc3339(device.credential_at),
            "rotating": device.credential_wanted > device.credential,
        },
        "slots": {slot: _slot_json(device, desired.get(slot), slot) for slot in sorted({*device.reported, *desired})},
    }


def join_token_json(row: JoinTokenRow) -> dict[str, Any]:
    """Return one join token without its secret, which nobody knows any more."""
    return {
        "id": row.id,
        "labels": dict(row.labels),
        "uses_left": row.uses_left,
        "preauthorised": not row.needs_approval,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
    }


def _hold_json(device: Device) -> dict[str, Any] | None:
    hold = device.hold
    if hold is None:
        return None
    until = None if hold.until is None else rfc3339(hold.until / 1000)
    return {"since": rfc3339(hold.since / 1000), "until": until, "reason": hold.reason}


def _slot_json(device: Device, desired: SlotTarget | None, slot: str) -> dict[str, Any]:
    report = device.reported.get(slot)
    reported: dict[str, Any] = {} if report is None else msgspec.to_builtins(report)
    return {**reported, "desired": None if desired is None else msgspec.to_builtins(desired)}
