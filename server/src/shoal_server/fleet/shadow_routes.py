"""HTTP of shadow models: which cohort's slot runs a bundle beside the active one, and how far they agree."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from shoal_protocol.errors import CallerError
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access.guard import Operator, Program, Viewer, record_change
from shoal_server.fleet import assignments, store
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.registry.store import resolve
from shoal_server.services import Services
from shoal_server.telemetry.shadows import EDGES, ShadowSummary, summaries

router = APIRouter(prefix="/api/v1/shadows", tags=["fleet"])

_MAX_HOURS = 90 * 24


class WantedShadow(BaseModel):
    """A bundle that should see the same inputs as the active one and answer nobody."""

    slot: str = Field(min_length=1, max_length=64)
    bundle: str = Field(description="name:version, name@alias or name@sha256:…")
    cohort: str = Field(description="which devices, as they are now")


class UnwantedShadow(BaseModel):
    """Where no shadow should run any more."""

    slot: str = Field(min_length=1, max_length=64)
    cohort: str = Field(default="all", description="which devices")


@router.post("", operation_id="shadows_set")
def set_shadow(request: Request, program: Program, _who: Operator, wanted: WantedShadow) -> dict[str, Any]:
    """Let a cohort's devices run a bundle as the shadow of a slot."""
    with program.database.read() as session:
        bundle = resolve(session, wanted.bundle)
    return _change(request, program, slot=wanted.slot, cohort=wanted.cohort, shadow=bundle.digest)


@router.post("/unset", operation_id="shadows_unset")
def unset_shadow(request: Request, program: Program, _who: Operator, unwanted: UnwantedShadow) -> dict[str, Any]:
    """End the shadows of a slot."""
    return _change(request, program, slot=unwanted.slot, cohort=unwanted.cohort, shadow=None)


@router.get("", operation_id="shadows_list")
def list_shadows(
    program: Program,
    _who: Viewer,
    *,
    slot: str | None = None,
    device: str | None = None,
    hours: Annotated[int, Query(ge=1, le=_MAX_HOURS, description="of the last hours")] = 24,
) -> dict[str, Any]:
    """Show how far shadows agreed with the active models, and where they are wanted."""
    since_ms = int((program.clock() - hours * 3600) * 1000)
    with program.database.read() as session:
        found = summaries(session, since_ms=since_ms, slot=slot, device=device)
        wanted: dict[tuple[str, str], list[str]] = {}
        for one in store.devices(session, ids=None if device is None else [device]):
            for name, target in assignments.targets(session, one.id).items():
                if target.shadow is not None and slot in {None, name}:
                    wanted.setdefault((name, target.shadow), []).append(one.id)
    return {
        "items": [summary_json(one) for one in found],
        "wanted": [
            {"slot": name, "shadow": digest, "devices": devices} for (name, digest), devices in sorted(wanted.items())
        ],
        "difference_edges": list(EDGES),
    }


def summary_json(found: ShadowSummary) -> dict[str, Any]:
    """Return one summary as HTTP tells it."""
    said: dict[str, Any] = msgspec.to_builtins(found)
    said["pairs"] = [{"active": first, "shadow": second, "rows": n} for first, second, n in found.pairs]
    said["latency_us"] = {who: {"p50": p50, "p95": p95} for who, (p50, p95) in found.latency_us.items()}
    mean = found.difference / found.n if found.n else None
    return said | {"agreement": found.agreement, "mean_difference": mean, "mean_absolute": found.mean_absolute}


def _change(request: Request, program: Services, *, slot: str, cohort: str, shadow: str | None) -> dict[str, Any]:
    now = program.clock()

    def changed(target: SlotTarget) -> SlotTarget:
        return msgspec.structs.replace(target, shadow=None if shadow == target.digest else shadow)

    with program.database.write() as session:
        matched = [device.id for device in store.devices(session, cohort=parse_cohort(cohort))]
        present = assignments.slot_targets(session, slot)
        same = {name for name in matched if shadow is not None and name in present and present[name].digest == shadow}
        done = assignments.adjust_all(session, slot, matched, changed, now=now)
        devices = [name for name in done if name not in same]
        if not matched:
            raise CallerError(
                f"no device matches the cohort {cohort!r:.80}", hint="shoalctl device list --cohort QUERY"
            )
        if not devices:
            raise CallerError(
                f"the cohort matches {len(matched)} devices, none of which runs another bundle in slot {slot!r:.80}",
                hint="a shadow runs beside an active model: see `shoalctl device list`",
            )
        after = {"slot": slot, "shadow": shadow, "cohort": cohort, "devices": len(devices)}
        action = "shadow.unset" if shadow is None else "shadow.set"
        record_change(session, request, action=action, subject=f"slot:{slot}", after=after)
    program.signals.bump("desired")
    skipped = sorted({*matched}.difference(devices))
    return {"slot": slot, "shadow": shadow, "devices": devices, "skipped": skipped}
