"""The page of alerts: what people are told, and that somebody has seen to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response

from shoal_server.access import Role
from shoal_server.access.guard import Operator, Program, Viewer
from shoal_server.alerts import routes, store
from shoal_server.alerts.rules import AlertState
from shoal_server.outbox.places import page_of
from shoal_server.web.site import PageRoute, address, page, redirect

router = APIRouter(prefix="/alerts", route_class=PageRoute, include_in_schema=False)
_PAGE = 50
_SHOWN: Mapping[str, tuple[AlertState, ...]] = {
    "open": (AlertState.OPEN,),
    "acknowledged": (AlertState.ACKNOWLEDGED,),
    "resolved": (AlertState.RESOLVED,),
    "all": (),
}


@router.get("", response_class=HTMLResponse)
def show_alerts(
    request: Request,
    program: Program,
    principal: Viewer,
    show: Annotated[str, Query(max_length=20)] = "open",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """List alerts, the newest first."""
    with program.database.read() as session:
        audible_at = program.clock() if show == "open" else None
        found = store.alerts(
            session, states=_SHOWN.get(show, ()), before_id=before, audible_at=audible_at, limit=_PAGE + 1
        )
    return page(
        request,
        "alerts.html",
        subject_path=page_of,
        alerts=found[:_PAGE],
        show=show,
        tabs=[(name, address("/alerts", show=name)) for name in _SHOWN],
        next_url=address("/alerts", show=show, before=found[_PAGE - 1].id) if len(found) > _PAGE else "",
        first_url=address("/alerts", show=show) if before else "",
        may_operate=principal.may(Role.OPERATOR),
    )


@router.post("/{alert_id}/ack")
def acknowledge(alert_id: int, request: Request, program: Program, principal: Operator) -> Response:
    """Say that somebody has seen to it."""
    routes.ack_alert(alert_id, request, program, principal)
    return redirect("/alerts")


@router.post("/{alert_id}/silence")
def silence(
    alert_id: int,
    request: Request,
    program: Program,
    principal: Operator,
    hours: Annotated[float, Form(ge=0, le=720)] = 24.0,
) -> Response:
    """Keep it out of sight for a while; no hours: no longer."""
    routes.silence_alert(alert_id, routes.Silence(seconds=hours * 3600), request, program, principal)
    return redirect("/alerts")
