"""Pages of rollouts: the list, and one rollout live with its stages, gates, devices and history."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_server.access import Role
from shoal_server.access.guard import Operator, Program, Viewer
from shoal_server.paging import decode_cursor, encode_cursor
from shoal_server.registry.versions import ResolvedBundle
from shoal_server.rollouts import facts, routes, store, views
from shoal_server.rollouts.commands import Verb
from shoal_server.web.bundle_names import names_of
from shoal_server.web.rollout_views import KINDS, action_of, actions, by_urgency, fate, stage_views, summary
from shoal_server.web.site import PageRoute, address, page, redirect, segment

router = APIRouter(prefix="/rollouts", route_class=PageRoute, include_in_schema=False)
_PAGE = 30
_MOST_DEVICES = 200
_MOST_COMPARED = 3


@router.get("", response_class=HTMLResponse)
def show_rollouts(
    request: Request, program: Program, _principal: Viewer, cursor: Annotated[str | None, Query(max_length=500)] = None
) -> Response:
    """List rollouts, the newest first."""
    with program.database.read() as session:
        rows = store.recent(session, before=_position(cursor), limit=_PAGE + 1)
    next_url = ""
    if len(rows) > _PAGE:
        last = rows[_PAGE - 1]
        next_url = address("/rollouts", cursor=encode_cursor((last.created_at, last.name)))
    rollouts = [summary(row) for row in rows[:_PAGE]]
    return page(request, "rollouts.html", rollouts=rollouts, next_url=next_url, first_url="/rollouts" if cursor else "")


@router.get("/{name}", response_class=HTMLResponse)
def show_rollout(name: str, request: Request, program: Program, principal: Viewer) -> Response:
    """Show one rollout, live."""
    now = program.clock()
    with program.database.read() as session:
        rollout = store.read(session, name)
        known = facts.gather(session, rollout, now=now).devices
        history = _newest_history(session, name)
        before = Counter(member.previous for member in rollout.members.values() if member.previous)
        names = names_of(session, [rollout.digest, *before])
    fates = [(member, fate(member, known.get(member.device), rollout, now)) for member in rollout.members.values()]
    devices = by_urgency(fates)
    return page(
        request,
        "rollout.html",
        rollout=rollout,
        reason=views.reason(rollout),
        stages=stage_views(rollout),
        kinds=KINDS,
        devices=devices[:_MOST_DEVICES],
        more_devices=max(0, len(devices) - _MOST_DEVICES),
        history=history,
        names=names,
        compared=_compared(names.get(rollout.digest), [names[one] for one, _ in before.most_common() if one in names]),
        actions=actions(rollout) if principal.may(Role.OPERATOR) else [],
        all_actions=[action_of(verb, rollout) for verb in Verb] if principal.may(Role.OPERATOR) else [],
    )


@router.post("/{name}/{verb}")
def act(
    name: str,
    *,
    verb: str,
    request: Request,
    program: Program,
    principal: Operator,
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Do what a button asks for."""
    if verb not in {known.value for known in Verb}:
        raise CallerError(f"a rollout can't be asked to {verb!r:.40}")
    routes.act_on_rollout(request, program, principal, name, Verb(verb), routes.Why(reason=reason.strip()))
    return redirect(f"/rollouts/{segment(name)}")


def _compared(bundle: ResolvedBundle | None, before: list[ResolvedBundle]) -> list[tuple[str, str]]:
    """Return name and page of each comparison with what devices ran before."""
    if bundle is None:
        return []
    path = f"/models/{segment(bundle.model)}/compare"
    return [
        (one.name, address(path, old=one.version, new=bundle.version))
        for one in before[:_MOST_COMPARED]
        if one.model == bundle.model and one.digest != bundle.digest
    ]


def _newest_history(session: Session, name: str) -> list[Any]:
    entries: list[Any] = []
    while batch := store.history(session, name, after_id=entries[-1].id if entries else 0, limit=500):
        entries.extend(batch)
    return entries[::-1][:100]


def _position(cursor: str | None) -> tuple[float, str] | None:
    place = decode_cursor(cursor)
    if place is None:
        return None
    match place:
        case [float() | int() as at, str() as name]:
            return float(at), name
    raise CallerError("this cursor was not given out by a list", hint="start again without a cursor")
