"""What devices say about themselves, brought into the store.

Owns the order of presence, birth and reported messages: the newest (epoch, boot, seq) of each kind holds, so that
duplicates, late wills and replays change nothing; a will never begins an epoch. Leaves windows and events to telemetry.

What a device says is believed only in the form that it can have: digests are digests, numbers are bounded.
"""

from __future__ import annotations

import math

import msgspec
from sqlmodel import Session

from shoal_protocol.canonical import DIGEST_RE
from shoal_protocol.mqtt.messages import Birth, Fault, HoldReport, Message, Presence, Reported, ShadowReport, SlotReport
from shoal_protocol.trust.assignment import LATEST_MS, MAX_SLOTS
from shoal_server.fleet import assignments, clones
from shoal_server.fleet.devices import POLL_S, DeviceState
from shoal_server.fleet.tables import DeviceRow

MAX_ATTEMPT = 2**31 - 2
"""Of what is believed: an attempt that is offered is one more, and must fit a database's integer."""

_KEPT_EPOCHS = 20
_RETURN_S = 600.0
"""So long after a rotation an epoch that was past may return: of two machines, either may be the one that stays."""

_MAX_FACT_CHARACTERS = 128
_MAX_SAID_NAME = 64
_MOST_SAID = 16

SAID = "said."
"""Begins the names of facts that a device says of itself by labels of its own."""
_MAX_FAULT = 1000
_MAX_SLOT_NAME = 64


def on_presence(session: Session, device_id: str, message: Presence, now: float) -> bool:
    """Note whether the device is connected; tells whether anything was news."""
    if message.online:  # a will says when its connection was made, long ago
        _watch_runs(session, device_id, message, now)
    row = _newer(session, device_id, "presence", message, now)
    if row is None:
        return False
    row.online = message.online
    session.add(row)
    return True


def on_birth(session: Session, device_id: str, message: Birth, now: float) -> bool:
    """Note what the device is.

    Labels of its own are kept as facts ``said.NAME``, for people: they select nothing, since labels decide much.
    """
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
    kept = {key: value for key, value in row.facts.items() if not key.startswith(SAID)}
    own = {SAID + _words(key, _MAX_SAID_NAME): value for key, value in list(message.labels.items())[:_MOST_SAID]}
    told = {key: _words(value, _MAX_FACT_CHARACTERS) for key, value in {**said, **own}.items() if value}
    row.facts = {**kept, **told}
    session.add(row)
    return True


def on_reported(session: Session, device_id: str, message: Reported, now: float) -> bool:
    """Note what really runs."""
    _watch_runs(session, device_id, message, now)
    row = _newer(session, device_id, "reported", message, now)
    if row is None:
        return False
    slots = [(slot, report) for slot, report in message.slots.items() if slot == _words(slot, _MAX_SLOT_NAME)]
    row.reported = {slot: msgspec.to_builtins(_believable(report)) for slot, report in slots[:MAX_SLOTS]}
    row.hold = None if message.hold is None else msgspec.to_builtins(_believable_hold(message.hold))
    row.generation_reported = min(max(message.generation, 0), assignments.MAX_GENERATION)
    session.add(row)
    assignments.on_generation(session, device_id, reported=row.generation_reported, now=now)
    return True


def on_poll(session: Session, device_id: str, now: float) -> None:
    """Note that a device asks over HTTP what it should run; polls shortly after another are not written."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is not None and not polled_lately(row.polled_at, now):
        row.polled_at = row.last_seen_at = now
        session.add(row)


def on_fetched_by_hand(session: Session, device_id: str, now: float) -> None:
    """Note that somebody fetches what a device should run, to carry it there: for a while it counts as within reach."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is not None and row.state == DeviceState.ACCEPTED:
        row.polled_at = now
        session.add(row)


def polled_lately(polled_at: float | None, now: float) -> bool:
    """Tell whether a poll is not worth writing down, so soon after another."""
    return polled_at is not None and 0 <= now - polled_at < POLL_S / 3


def _watch_runs(session: Session, device_id: str, message: Presence | Reported, now: float) -> None:
    """Look whether two machines speak as this device."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is None or row.state != DeviceState.ACCEPTED:
        return
    if clones.takes_turns(row, message.run, sent_at=message.sent_at):
        why = "two runs of its agent take turns, each with the other's numbers"
        clones.suspect(session, device_id, why=why, now=now)
    session.add(row)


def _believable(report: SlotReport) -> SlotReport:
    """Return a report whose every field is of the form that decisions, signatures and databases can bear."""
    return msgspec.structs.replace(
        report,
        state=_words(report.state, _MAX_FACT_CHARACTERS),
        active=_digest(report.active),
        variant=None if report.variant is None else _words(report.variant),
        previous=_digest(report.previous),
        proven=_digest(report.proven),
        fallback=_digest(report.fallback),
        target=_digest(report.target),
        attempt=min(max(report.attempt, 0), MAX_ATTEMPT),
        progress=min(max(report.progress, 0.0), 1.0) if math.isfinite(report.progress) else 0.0,
        error=_believable_fault(report.error),
        waiting=_believable_fault(report.waiting),
        shadow=_believable_shadow(report.shadow),
        revoked=None if report.revoked is None else _words(report.revoked),
    )


def _believable_fault(fault: Fault | None) -> Fault | None:
    if fault is None:
        return None
    code = _words(fault.code, _MAX_FACT_CHARACTERS)
    return Fault(code=code, message=_words(fault.message), digest=_digest(fault.digest))


def _believable_shadow(shadow: ShadowReport | None) -> ShadowReport | None:
    digest = None if shadow is None else _digest(shadow.digest)
    if shadow is None or digest is None:
        return None
    state = _words(shadow.state, _MAX_FACT_CHARACTERS)
    return ShadowReport(digest=digest, state=state, error=_believable_fault(shadow.error))


def _believable_hold(hold: HoldReport) -> HoldReport:
    """Return a hold whose times have a date."""
    until = None if hold.until is None else min(max(hold.until, 0), LATEST_MS)
    return HoldReport(since=min(max(hold.since, 0), LATEST_MS), until=until, reason=_words(hold.reason))


def _words(text: str, at_most: int = _MAX_FAULT) -> str:
    return text.replace("\0", "")[:at_most]  # PostgreSQL bears no NUL, neither in text nor in JSON


def _digest(text: str | None) -> str | None:
    return text if text is not None and DIGEST_RE.fullmatch(text) else None


def _newer(session: Session, device_id: str, kind: str, message: Message, now: float) -> DeviceRow | None:
    """Return the device's row, for changing it, if the message is its newest of that kind."""
    row = session.get(DeviceRow, device_id, with_for_update=True)
    if row is None or row.state != DeviceState.ACCEPTED:
        return None
    if message.epoch != row.epoch:
        is_will = isinstance(message, Presence) and not message.online
        if is_will or (message.epoch in row.past_epochs and now - row.credential_at > _RETURN_S):
            return None
        past = [epoch for epoch in (*row.past_epochs, row.epoch) if epoch and epoch != message.epoch]
        row.past_epochs = past[-_KEPT_EPOCHS:]
        row.epoch, row.seen, row.boot, row.seq = message.epoch, {}, 0, 0
    boot, seq, sent_at = row.seen.get(kind, (-1, -1, 0))
    if message.order <= (boot, seq):
        if message.boot < boot and message.sent_at > sent_at and kind != "presence":
            why = "an earlier start of its agent speaks after the newest"
            clones.suspect(session, device_id, why=why, now=now)
        return None
    row.seen = {**row.seen, kind: [message.boot, message.seq, message.sent_at]}
    row.boot, row.seq = max((row.boot, row.seq), message.order)
    row.last_seen_at = now
    return row
