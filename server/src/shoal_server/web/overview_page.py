"""The first page: is the fleet well, what runs, what is under way, what needs somebody, what was changed last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from shoal_server.access import audit
from shoal_server.access.guard import Program, Viewer
from shoal_server.alerts import store as alerts
from shoal_server.alerts.rules import AlertState
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import Device, DeviceState
from shoal_server.registry import store as registry
from shoal_server.registry import trust_status
from shoal_server.rollouts import store as rollouts
from shoal_server.rollouts.machine import ACTIVE, RolloutState
from shoal_server.web.bundle_names import names_of
from shoal_server.web.fleet_pages import has_trouble
from shoal_server.web.rollout_views import summary
from shoal_server.web.site import PageRoute, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_ROWS = 6


@router.get("/", response_class=HTMLResponse)
def show_overview(request: Request, program: Program, _principal: Viewer) -> Response:
    """Show the state of everything, each part with the way to more."""
    with program.database.read() as session:
        devices = [device for device in fleet.devices(session) if device.state is not DeviceState.REVOKED]
        recent = rollouts.recent(session, limit=30)
        open_alerts = alerts.alerts(session, states=[AlertState.OPEN], audible_at=program.clock(), limit=_ROWS)
        changes = [row for row in audit.rows(session, limit=60) if not row.action.startswith("session.")]
        running = running_versions(devices)
        names = names_of(session, [digest for _slot, digest, _count in running])
        has_models = bool(registry.models(session, limit=1))
    active = [row for row in recent if RolloutState(row.state) in ACTIVE]
    shown = active[:_ROWS] or recent[:3]
    accepted = [device for device in devices if device.state is DeviceState.ACCEPTED]
    return page(
        request,
        "overview.html",
        total=len(accepted),
        online=sum(device.online for device in accepted),
        pending=len(devices) - len(accepted),
        trouble=sum(map(has_trouble, accepted)),
        running=running,
        names=names,
        active=len(active),
        rollouts=[summary(row) for row in shown],
        alerts=open_alerts,
        changes=changes[:8],
        has_models=has_models,
        trust_mode=program.trust.mode.value,
        trust_warnings=trust_status.warnings(program.trust, now=program.clock()),
    )


def running_versions(devices: Iterable[Device]) -> list[tuple[str, str | None, int]]:
    """Count devices by (slot, active digest), the most frequent first; None: the slot has no model."""
    counts = Counter(
        (slot, report.active)
        for device in devices
        if device.state is DeviceState.ACCEPTED
        for slot, report in device.reported.items()
    )
    return [(slot, digest, count) for (slot, digest), count in counts.most_common(12)]
