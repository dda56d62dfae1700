"""Carries out what was decided, inside the transaction that saves the decision.

Owns the one place where effects become rows: assignments, history, audit and events for webhooks, denials, alerts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from shoal_server.access import audit
from shoal_server.alerts.store import lock_alerts, raise_alert
from shoal_server.fleet import assignments
from shoal_server.rollouts import store
from shoal_server.rollouts.announcements import announce_entry
from shoal_server.rollouts.effects import Assign, Deny, Effect, LiftDenial, Notify, Record
from shoal_server.rollouts.rollout import Rollout

SERVER = "server"
"""The actor of what no person asked for."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Under which effects are carried out.

    Attributes:
        now: Seconds since the epoch.
        request_id: Of the request that caused them; empty: none did.
    """

    now: float
    request_id: str = ""


def carry_out(session: Session, rollout: Rollout, effects: Sequence[Effect], about: Circumstances) -> Rollout:
    """Write all effects.

    Args:
        session: Of the open write transaction.
        rollout: After the decision.
        effects: In order.
        about: When, and on whose request.

    Returns:
        The rollout with the generations of its new assignments, to be saved.
    """
    wanted = {effect.device: effect.target for effect in effects if isinstance(effect, Assign)}
    generations = assignments.assign_all(session, rollout.slot, wanted, now=about.now) if wanted else {}
    if any(isinstance(effect, Notify) for effect in effects):
        lock_alerts(session)  # before the audit, see there
    for effect in effects:
        match effect:
            case Assign():
                pass  # done above, all at once
            case Record():
                _record(session, rollout, effect, about)
            case Notify():
                raise_alert(
                    session,
                    kind=effect.kind,
                    subject=f"rollout:{rollout.name}",
                    title=effect.title,
                    body=effect.body,
                    severity=effect.severity,
                    key=f"rollout:{rollout.name}",
                    now=about.now,
                )
            case Deny():
                store.deny(session, rollout, reason=effect.reason, now=about.now)
            case LiftDenial():
                store.lift_denials(
                    session, slot=rollout.slot, digest=effect.digest, reason=effect.reason, now=about.now
                )
    return rollout.with_generations(generations)


def _record(session: Session, rollout: Rollout, entry: Record, about: Circumstances) -> None:
    actor = entry.actor or SERVER
    store.record(
        session,
        rollout=rollout.name,
        at=about.now,
        actor=actor,
        action=entry.action,
        reason=entry.reason,
        stage=entry.stage,
        before=entry.before,
        after=entry.after,
    )
    after = {"reason": entry.reason, "stage": entry.stage, "is": entry.after}
    audit.record(
        session,
        actor=actor,
        action=entry.action,
        subject=f"rollout:{rollout.name}",
        before=entry.before,
        after=after,
        request_id=about.request_id,
        now=about.now,
    )
    announce_entry(session, rollout, entry, actor=actor, now=about.now)
