"""Pages of models: what there is, what runs where, what is inside one bundle."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlmodel import Session

from shoal_protocol.errors import ShoalError
from shoal_server.access import Role
from shoal_server.access.guard import Program, Releaser, Viewer
from shoal_server.errors import NotFoundError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import Device, DeviceState
from shoal_server.quality import store as quality_store
from shoal_server.quality.comparison import compare
from shoal_server.quality.report import Question, facts_of, gather, quality_of
from shoal_server.quality.routes import bundles_of
from shoal_server.registry import routes as registry_routes
from shoal_server.registry import store
from shoal_server.registry.lineage import lineage_of
from shoal_server.registry.tables import ModelVersion
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.web.quality_views import accuracy_chart
from shoal_server.web.site import PageRoute, address, page, redirect, segment

router = APIRouter(prefix="/models", route_class=PageRoute, include_in_schema=False)
_PAGE = 50

QUALITY_HOURS = 168
"""Hours of a bundle's quality that its page shows: a week."""


@router.get("", response_class=HTMLResponse)
def show_models(
    request: Request,
    program: Program,
    _principal: Viewer,
    *,
    q: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """List models with their newest version and where they run."""
    q = q.strip()
    with program.database.read() as session:
        names = store.models(session, after=after, limit=_PAGE + 1, matching=q)
        running = running_devices(session)
        models = [_summary(session, name, running) for name in names[:_PAGE]]
    next_url = address("/models", q=q or None, after=names[_PAGE - 1]) if len(names) > _PAGE else ""
    first_url = address("/models", q=q or None) if after else ""
    return page(request, "models.html", models=models, q=q, next_url=next_url, first_url=first_url)


@router.get("/{model}", response_class=HTMLResponse)
def show_model(model: str, request: Request, program: Program, principal: Viewer) -> Response:
    """Show a model's versions, aliases with their history, and the devices that run it."""
    with program.database.read() as session:
        versions = store.versions(session, model, limit=200)
        if not versions:
            raise NotFoundError(f"there is no model {model!r}", hint="the models that exist are listed under Models")
        aliases = store.aliases(session, model)
        history = {alias.alias: store.alias_history(session, model, alias.alias) for alias in aliases}
        running = running_devices(session)
    by_version: dict[str, list[str]] = defaultdict(list)
    for alias in aliases:
        by_version[alias.version].append(alias.alias)
    return page(
        request,
        "model.html",
        model=model,
        versions=versions,
        aliases=aliases,
        history=history,
        alias_names=by_version,
        running=running,
        may_release=principal.may(Role.RELEASER),
    )


@router.get("/{model}/compare", response_class=HTMLResponse)
def compare_versions(
    model: str,
    *,
    request: Request,
    program: Program,
    principal: Viewer,
    old: Annotated[str, Query(max_length=128)],
    new: Annotated[str, Query(max_length=128)],
) -> Response:
    """Show what differs between two versions: what they answered where both ran, and what they are made of."""
    found = registry_routes.diff_versions(model, program, principal, old=old, new=new)
    with program.database.read() as session:
        digests = [store.version(session, model, version).digest for version in (old, new)]
        slots = _slots_of_both(session, program, digests[0], digests[1])
    return page(request, "compare.html", model=model, slots=slots, **found)


@router.get("/{model}/{version}", response_class=HTMLResponse)
def show_version(model: str, version: str, request: Request, program: Program, principal: Viewer) -> Response:
    """Show what is inside one bundle."""
    with program.database.read() as session:
        row = store.version(session, model, version)
        devices = running_devices(session).get(row.digest, [])
        quality = _quality(session, program, row.digest)
        lineage = lineage_of(session, program.bundles, row)
    return page(
        request,
        "version.html",
        quality=quality,
        lineage=lineage,
        row=row,
        devices=devices,
        may_release=principal.may(Role.RELEASER),
        **_contents(program, row),
    )


@router.post("/{model}/aliases")
def set_alias(
    model: str,
    *,
    request: Request,
    program: Program,
    principal: Releaser,
    alias: Annotated[str, Form(max_length=128)],
    version: Annotated[str, Form(max_length=128)],
) -> Response:
    """Point an alias at a version."""
    target = registry_routes.AliasTarget(version=version)
    registry_routes.set_alias(model, alias, target, request, program, principal)
    return redirect(f"/models/{segment(model)}")


@router.post("/{model}/{version}/deprecate")
def deprecate_version(
    model: str,
    *,
    version: str,
    request: Request,
    program: Program,
    principal: Releaser,
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Say why a version should no longer be taken, or nothing to take that back."""
    body = registry_routes.Deprecation(reason=reason)
    registry_routes.deprecate_version(model, version, body, request, program, principal)
    return redirect(f"/models/{segment(model)}/{segment(version)}")


@router.post("/{model}/{version}/{verb}")
def change_version(
    model: str, *, version: str, verb: str, request: Request, program: Program, principal: Releaser
) -> Response:
    """Deny a version, or allow it again."""
    acts = {"deny": registry_routes.deny_version, "allow": registry_routes.allow_version}
    if verb not in acts:
        raise NotFoundError(f"a version can't be {verb!r:.40}")
    acts[verb](model, version, request, program, principal)
    return redirect(f"/models/{segment(model)}/{segment(version)}")


def running_devices(session: Session) -> dict[str, list[Device]]:
    """Return the accepted devices that report each digest as active in any slot."""
    found: dict[str, list[Device]] = defaultdict(list)
    for device in fleet.devices(session):
        if device.state is DeviceState.ACCEPTED:
            for digest in {report.active for report in device.reported.values() if report.active}:
                found[digest].append(device)
    return found


def _summary(session: Session, name: str, running: Mapping[str, list[Device]]) -> dict[str, Any]:
    versions = store.versions(session, name)
    counts = Counter({row.version: len(running.get(row.digest, [])) for row in versions})
    return {
        "name": name,
        "newest": versions[0],
        "count": len(versions),
        "aliases": store.aliases(session, name),
        "running": [(version, count) for version, count in counts.most_common(4) if count],
    }


def _quality(session: Session, program: Program, digest: str) -> list[dict[str, Any]]:
    """Return the quality of a bundle in each slot that ran it lately, by site, with the chart of its hours."""
    end_ms = (round(program.clock() * 1000) // HOUR_MS + 1) * HOUR_MS
    start_ms = end_ms - QUALITY_HOURS * HOUR_MS
    found = []
    for slot in [slot for slot, used in quality_store.used(session, start_ms=start_ms) if used == digest]:
        asked = Question(slot=slot, start_ms=start_ms, end_ms=end_ms, digest=digest, segment_by="site")
        for item in quality_of(session, asked, bundles_of(program)):
            chart = accuracy_chart(item["hours"], item["reference"].get("accuracy"))
            found.append({**item, "chart": chart, "is_regression": "rmse" in item["truth"]})
    return found


def _slots_of_both(session: Session, program: Program, old: str, new: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the comparison of two bundles in each slot that lately ran both."""
    end_ms = (round(program.clock() * 1000) // HOUR_MS + 1) * HOUR_MS
    start_ms = end_ms - QUALITY_HOURS * HOUR_MS
    used = set(quality_store.used(session, start_ms=start_ms))
    found = []
    for slot in sorted({slot for slot, _ in used if {(slot, old), (slot, new)} <= used}):
        asked = Question(slot=slot, start_ms=start_ms, end_ms=end_ms)
        gathered = gather(session, asked, facts_of(session, None))
        found.append((slot, compare(gathered, old, new, bundles_of(program))))
    return found


def _contents(program: Program, row: ModelVersion) -> dict[str, Any]:
    """Read the bundle's own documents; a page without them says why."""
    bundles = program.bundles
    try:
        return {
            "info": bundles.info(row.digest),
            "schema": bundles.schema(row.digest),
            "files": sorted(bundles.manifest(row.digest).files().items()),
            "reference": bundles.reference(row.digest),
            "problem": "",
        }
    except (ShoalError, OSError) as error:
        return {"info": None, "schema": None, "files": [], "reference": None, "problem": str(error)}
