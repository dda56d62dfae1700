"""Pages of devices: the list with its filter, one device with its slots, and the forms that change one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.messages import SlotReport
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access import Role, audit
from shoal_server.access.guard import Operator, Program, Viewer
from shoal_server.contracts.report import gather
from shoal_server.errors import NotFoundError
from shoal_server.fleet import assignments, store
from shoal_server.fleet import routes as fleet_routes
from shoal_server.fleet.cohort import CohortError, parse_cohort
from shoal_server.fleet.devices import ALL_SLOTS, Device, DeviceState
from shoal_server.telemetry.shadows import ShadowSummary, summaries
from shoal_server.timestamps import rfc3339
from shoal_server.web.bundle_names import names_of
from shoal_server.web.charts import columns
from shoal_server.web.recent_windows import RecentWindow, recent_windows
from shoal_server.web.site import PageRoute, address, page, redirect, segment
from shoal_server.web.words import plural

router = APIRouter(prefix="/devices", route_class=PageRoute, include_in_schema=False)
_PAGE = 50
_WINDOWS = 48
_CONTRACT_SPAN_MS = 3_600_000
_SHADOW_S = 86_400.0


@dataclass(frozen=True)
class SlotView:
    """One slot of a device: what should run and what it says that runs.

    Attributes:
        shadow: How far its shadow agreed with the active model in the last day.
        agrees: Whether both are the same bundle, proven by its trial; None when nothing is desired.
    """

    name: str
    desired: SlotTarget | None
    report: SlotReport | None
    pinned: str | None
    shadow: ShadowSummary | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the device runs what it should."""
        if self.desired is None:
            return None
        return self.report is not None and self.report.active == self.desired.digest == self.report.proven


def has_trouble(device: Device) -> bool:
    """Tell whether somebody should look at the device: a slot failed or is empty, or it seems to be cloned."""
    slots = device.reported.values()
    return device.clone_suspected_at is not None or any(s.error is not None or s.state == "no_model" for s in slots)


_SHOWN: Mapping[str, Callable[[Device], bool]] = {
    "all": lambda _device: True,
    "online": lambda device: device.online,
    "offline": lambda device: not device.online and device.state is DeviceState.ACCEPTED,
    "trouble": has_trouble,
    "pending": lambda device: device.state is DeviceState.PENDING,
}


@router.get("", response_class=HTMLResponse)
def show_devices(
    request: Request,
    *,
    program: Program,
    principal: Viewer,
    q: Annotated[str, Query(max_length=4096)] = "",
    show: Annotated[str, Query(max_length=20)] = "all",
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """List devices, filtered by a cohort query and by state."""
    problem = ""
    with program.database.read() as session:
        try:
            found = store.devices(session, cohort=parse_cohort(q) if q.strip() else None)
        except CohortError as error:
            found, problem = [], error.message
        counts = {name: sum(map(test, found)) for name, test in _SHOWN.items()}
        wanted = [device for device in found if _SHOWN.get(show, _SHOWN["all"])(device) and device.id > after]
        shown = wanted[:_PAGE]
        digests = [report.active for device in shown for report in device.reported.values()]
        names = names_of(session, digests)
        fleet_is_empty = not found and not q and store.devices(session) == []
    next_url = address("/devices", q=q, show=show, after=shown[-1].id) if len(wanted) > _PAGE else ""
    return page(
        request,
        "devices.html",
        devices=shown,
        names=names,
        q=q,
        show=show,
        after=after,
        counts=counts,
        problem=problem,
        next_url=next_url,
        first_url=address("/devices", q=q, show=show) if after else "",
        tabs=[(name, address("/devices", q=q, show=name)) for name in _SHOWN],
        fleet_is_empty=fleet_is_empty,
        may_operate=principal.may(Role.OPERATOR),
    )


@router.get("/{device_id}", response_class=HTMLResponse)
def show_device(device_id: str, request: Request, program: Program, principal: Viewer) -> Response:
    """Show one device: its slots, facts, labels, last windows and what was changed about it."""
    with program.database.read() as session:
        device = store.device(session, device_id)
        since_ms = int((program.clock() - _SHADOW_S) * 1000)
        compared = {one.slot: one for one in summaries(session, since_ms=since_ms, device=device_id)}
        slots = [
            replace(slot, shadow=compared.get(slot.name))
            for slot in slot_views(device, assignments.targets(session, device_id))
        ]
        digests = [digest for slot in slots for digest in _digests(slot)]
        windows = recent_windows(session, device_id, limit=_WINDOWS)
        until = round(1000 * program.clock()) + 1
        contracts = gather(
            session, program.bundles.schema, start_ms=until - _CONTRACT_SPAN_MS, end_ms=until, device=device_id
        )
        names = names_of(session, [*digests, *(w.digest for w in windows), *(c.digest for c in contracts)])
        changes = audit.rows(session, subject=f"device:{device_id}", limit=10)
    return page(
        request,
        "device.html",
        device=device,
        slots=slots,
        names=names,
        changes=changes,
        contracts=contracts,
        windows=windows,
        windows_chart=columns([(window.n, _window_title(window)) for window in reversed(windows)]),
        all_slots=ALL_SLOTS,
        may_operate=principal.may(Role.OPERATOR),
    )


@router.post("/{device_id}/labels")
def change_labels(
    device_id: str,
    *,
    request: Request,
    program: Program,
    principal: Operator,
    key: Annotated[str, Form(max_length=128)],
    value: Annotated[str, Form(max_length=128)] = "",
    remove: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Set one label, or take it away."""
    changes = fleet_routes.LabelChanges(labels={key.strip(): None if remove else value.strip()})
    fleet_routes.label_device(request, program, principal, device_id, changes)
    return redirect(f"/devices/{segment(device_id)}")


@router.post("/{device_id}/pins")
def change_pins(
    device_id: str,
    *,
    request: Request,
    program: Program,
    principal: Operator,
    slot: Annotated[str, Form(max_length=64)] = ALL_SLOTS,
    reason: Annotated[str, Form(max_length=500)] = "",
    remove: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Keep rollouts from changing the device, or let them again."""
    if remove:
        fleet_routes.unpin_device(request, program, principal, device_id, fleet_routes.Unpin(slot=slot))
    else:
        pin = fleet_routes.Pin(slot=slot, reason=reason or "pinned in the dashboard")
        fleet_routes.pin_device(request, program, principal, device_id, pin)
    return redirect(f"/devices/{segment(device_id)}")


@router.post("/{device_id}/actions/{verb}")
def act(device_id: str, verb: str, request: Request, program: Program, principal: Operator) -> Response:
    """Accept, revoke or decommission a device."""
    acts: Mapping[str, Callable[..., Any]] = {
        "accept": fleet_routes.accept_device,
        "revoke": fleet_routes.revoke_device,
        "decommission": fleet_routes.decommission_device,
    }
    if verb not in acts:
        raise NotFoundError(f"a device can't be {verb!r:.40}")
    acts[verb](request, program, principal, device_id)
    return redirect("/devices" if verb == "decommission" else f"/devices/{segment(device_id)}")


@router.post("/join")
def create_token(
    request: Request,
    program: Program,
    principal: Operator,
    uses: Annotated[int, Form(ge=1, le=100_000)] = 1,
    labels: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Make a join token and show the line to paste on the device; it is shown this once."""
    wanted = fleet_routes.NewJoinToken(uses=uses, labels=_labels(labels))
    made = fleet_routes.create_join_token(request, program, principal, wanted)
    return page(request, "joined.html", made=made)


def slot_views(device: Device, targets: Mapping[str, SlotTarget]) -> list[SlotView]:
    """Join what should run with what runs, slot by slot."""
    return [
        SlotView(name, targets.get(name), device.reported.get(name), device.pin(name))
        for name in sorted({*targets, *device.reported})
    ]


def _window_title(window: RecentWindow) -> str:
    errors = f", {plural(window.errors, 'error')}" if window.errors else ""
    return f"{rfc3339(window.start_ms / 1000)}: {plural(window.n, 'prediction')}{errors}"


def _digests(slot: SlotView) -> list[str | None]:
    desired = [slot.desired.digest, slot.desired.shadow] if slot.desired else []
    if slot.report is None:
        return desired
    faulty = slot.report.error.digest if slot.report.error else None
    return [*desired, slot.report.active, slot.report.previous, slot.report.proven, slot.report.target, faulty]


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for word in text.replace(",", " ").split():
        key, sign, value = word.partition("=")
        if not sign:
            raise CallerError(f"expected labels such as site=bern, got {word!r:.80}")
        labels[key] = value
    return labels
