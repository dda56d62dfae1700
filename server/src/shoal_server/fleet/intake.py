"""What devices say about themselves, brought into the store.

Owns the order of presence, birth and reported messages: the newest (epoch, boot, seq) of each kind holds, so that
duplicates, late wills and replays change nothing. Leaves windows and events to telemetry.
"""

from __future__ import annotations

import msgspec
from sqlmodel import Session

from shoal_protocol.mqtt.messages import Birth, Message, Presence, Reported
from shoal_server.fleet import assignments
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow

_KEPT_EPOCHS = 20
_MAX_FACT_CHARACTERS = 128


def on_presence(session: Session, device_id: str, message: Presence, now: float) -> bool:
    """Note whether the device is connected; tells whether anything was news."""
    row = _newer(session, device_id, "presence", message, now)
    if row is None:
        return False
    row.online = message.online
    session.add(row)
    return True


def on_birth(session: Session, device_id: str, message: Birth, now: float) -> bool:
    """Note what the device is; its own labels are not believed, since labels decide what it gets."""
    row = _newer(session, device_id, "birth", message, now)
    if row is None:
        return False
    said = {
        "agent": message.agent_version,
        "arch": message.arch,
        "os": message.os,
        "python": message.python,
        "onnxruntime": message.onnxruntime,
    }
    row.facts = {**row.facts, **{key: value[:_MAX_FACT_CHARACTERS] for key, value in said.items() if value}}
    session.add(row)
    return True


def on_reported(session: Session, device_id: str, message: Reported, now: float) -> bool:
    """Note what really runs."""
    row = _newer(session, device_id, "reported", message, now)
    if row is None:
        return False
    row.reported = msgspec.to_builtins(message.slots)
    row.generation_reported = message.generation
    session.add(row)
    assignments.on_generation(session, device_id, reported=message.generation, now=now)
    return True


def touch(session: Session, device_id: str, now: float) -> None:
    """Note that something came from the device."""
    row = session.get(DeviceRow, device_id)
    if row is not None:
        row.last_seen_at = now
        session.add(row)


def _newer(session: Session, device_id: str, kind: str, message: Message, now: float) -> DeviceRow | None:
    """Return the device's row, for changing it, if the message is its newest of that kind."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is None or row.state != DeviceState.ACCEPTED or message.epoch in row.past_epochs:
        return None
    if message.epoch != row.epoch:
        row.past_epochs = [*row.past_epochs, row.epoch][-_KEPT_EPOCHS:] if row.epoch else row.past_epochs
        row.epoch, row.seen, row.boot, row.seq = message.epoch, {}, 0, 0
    boot, seq, sent_at = row.seen.get(kind, (-1, -1, 0))
    if message.order <= (boot, seq):
        if message.boot < boot and message.sent_at > sent_at and kind != "presence":
            row.clone_suspected_at = now  # an earlier boot of the same state speaks, later than the newest one
            session.add(row)
        return None
    row.seen = {**row.seen, kind: [message.boot, message.seq, message.sent_at]}
    row.boot, row.seq = max((row.boot, row.seq), message.order)
    row.last_seen_at = now
    return row
