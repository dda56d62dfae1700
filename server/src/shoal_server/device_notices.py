"""What devices say once and people should hear: refusals, roll-backs, losses, clones, as alerts.

Owns which event becomes which alert. Telemetry counts each event once; what is kept of it is its alert, raised in the
transaction that takes the event in.
"""

from typing import NamedTuple

from sqlmodel import Session

from shoal_protocol.mqtt.messages import Event
from shoal_server.alerts.store import raise_alert
from shoal_server.fleet.clones import suspect
from shoal_server.registry.store import version_of_digest

_LONGEST = 500


class _Notice(NamedTuple):
    severity: str
    title: str


_NOTICES = {
    "refused": _Notice("critical", "{device} refused what it was sent"),
    "rolled_back": _Notice("warning", "{device} went back to its previous model in {slot}"),
    "rejected": _Notice("warning", "{device} did not take a model into {slot}"),
    "revoked": _Notice("critical", "{device} runs a revoked bundle in {slot}"),
    "lost": _Notice("warning", "{device} lost statistics"),
}
"""Events that somebody should look at; the others are history only."""


def on_event(session: Session, device: str, event: Event, now: float) -> None:
    """Raise the alert that an event calls for, if any; the same device and kind again is told as the same alert."""
    notice = _NOTICES.get(event.kind)
    if notice is None:
        return
    slot = event.slot or "its slot"
    details = [str(event.data[name])[:_LONGEST] for name in ("code", "message", "count") if name in event.data]
    about = [f"bundle {_bundle_name(session, event.digest)}"] if event.digest else []
    raise_alert(
        session,
        kind=f"device_{event.kind}",
        subject=f"device:{device}",
        title=notice.title.format(device=device, slot=slot),
        body="; ".join([*about, *details]),
        severity=notice.severity,
        key=f"device_{event.kind}:{device}:{event.slot or ''}",
        now=now,
    )


def _bundle_name(session: Session, digest: str) -> str:
    row = version_of_digest(session, digest)
    return digest if row is None else f"{row.model}:{row.version}"


def on_clone(session: Session, device: str, seq: int, now: float) -> None:
    """Raise the alert that two devices speak under one name."""
    suspect(session, device, why=f"message {seq} came with two contents", now=now)
