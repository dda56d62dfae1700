"""`/api/v1/alerts`: what people are told, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlmodel import Session

from shoal_server.access.guard import Operator, Program, Viewer, record_change
from shoal_server.alerts import store
from shoal_server.alerts.rules import AlertState
from shoal_server.alerts.tables import Alert
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])

MAX_SILENCE_S = 30 * 86_400.0


class Silence(BaseModel):
    """For how long an alert shall be kept out of sight; 0: no longer."""

    seconds: float = Field(ge=0, le=MAX_SILENCE_S)


@router.get("", operation_id="alerts_list")
def list_alerts(
    program: Program,
    _principal: Viewer,
    *,
    state: Annotated[list[AlertState] | None, Query(description="any of these; all when left out")] = None,
    kind: str | None = None,
    subject: str | None = None,
    silenced: Annotated[bool, Query(description="also those that somebody keeps out of sight for now")] = False,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List alerts, the newest first."""
    with program.database.read() as session:
        found = store.alerts(
            session,
            states=state or (),
            kind=kind,
            subject=subject,
            before_id=decode_cursor(cursor),
            audible_at=None if silenced else program.clock(),
            limit=limit + 1,
        )
    return page(found, limit=limit, position=lambda alert: alert.id, item=alert_json)


@router.get("/{alert_id}", operation_id="alerts_show")
def show_alert(alert_id: int, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Show one alert."""
    with program.database.read() as session:
        return alert_json(store.get(session, alert_id))


@router.post("/{alert_id}/ack", operation_id="alerts_ack")
def ack_alert(alert_id: int, request: Request, program: Program, principal: Operator) -> dict[str, Any]:
    """Say that somebody has seen to it; again and again does no harm."""
    with program.database.write() as session:
        before = _state(session, alert_id)
        alert = store.acknowledge(session, alert_id, by=principal.actor, now=program.clock())
        if alert.state != before["state"]:
            record_change(
                session,
                request,
                action="alert.ack",
                subject=f"alert:{alert_id}",
                before=before,
                after={"state": alert.state},
            )
    program.signals.bump("alerts")
    return alert_json(alert)


@router.post("/{alert_id}/silence", operation_id="alerts_silence")
def silence_alert(
    alert_id: int, body: Silence, request: Request, program: Program, _principal: Operator
) -> dict[str, Any]:
    """Keep an alert out of sight for a while, also when its cause goes and is back; or no longer."""
    until = program.clock() + body.seconds if body.seconds else None
    with program.database.write() as session:
        alert = store.silence(session, alert_id, until=until)
        record_change(
            session, request, action="alert.silence", subject=f"alert:{alert_id}", after={"silenced_until": until}
        )
    program.signals.bump("alerts")
    return alert_json(alert)


def alert_json(alert: Alert) -> dict[str, Any]:
    """Return what people and programs see of an alert."""
    times = ("raised_at", "updated_at", "acknowledged_at", "resolved_at", "silenced_until")
    return {**alert.model_dump(exclude=set(times)), **{name: rfc3339(getattr(alert, name)) for name in times}}


def _state(session: Session, alert_id: int) -> dict[str, Any]:
    return {"state": store.get(session, alert_id).state}
