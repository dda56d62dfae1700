"""HTTP of rollouts for operators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response, status
from pydantic import BaseModel, Field

from shoal_server.access.guard import Operator, Program, Viewer, request_id
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.rollouts import creation, store, views, wishes
from shoal_server.rollouts.carry_out import Circumstances
from shoal_server.rollouts.commands import Verb, Wish
from shoal_server.rollouts.plan import parse_plan
from shoal_server.services import Services

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class Why(BaseModel):
    """Why something is wanted."""

    reason: str = Field(default="", max_length=1000)
    leave: bool = Field(default=False, description="abort: end it, and leave the bundle where it is")


@router.post("", operation_id="rollouts_create", status_code=status.HTTP_201_CREATED)
def create_rollout(  # noqa: PLR0917 - FastAPI passes by name
    request: Request,
    response: Response,
    program: Program,
    who: Operator,
    plan: Annotated[dict[str, Any], Body(description="docs/how-to/write-a-rollout-plan.md")],
    dry_run: Annotated[bool, Query(description="only show the devices of each stage")] = False,  # noqa: FBT002 - a query parameter
) -> dict[str, Any]:
    """Begin a rollout, or show what it would do."""
    now = program.clock()
    if dry_run:
        with program.database.read() as session:
            made = creation.draft(session, parse_plan(plan), references=program.reference, actor=who.actor, now=now)
        response.status_code = status.HTTP_200_OK
        return views.dry_run_json(made)
    with program.database.write() as session:
        begun = creation.create(
            session, plan, references=program.reference, actor=who.actor, about=_about(request, program)
        )
    program.signals.bump("rollouts")
    return views.rollout_json(begun)


@router.get("", operation_id="rollouts_list")
def list_rollouts(program: Program, _who: Viewer, limit: Limit = 100, cursor: str | None = None) -> dict[str, Any]:
    """List rollouts, the newest first."""
    before = decode_cursor(cursor)
    with program.database.read() as session:
        rows = store.recent(session, before=None if before is None else tuple(before), limit=limit + 1)
    return page(
        rows,
        limit=limit,
        position=lambda row: [row.created_at, row.name],
        item=lambda row: views.row_json(row, parse_plan(row.plan)),
    )


@router.get("/{name}", operation_id="rollouts_show")
def show_rollout(program: Program, _who: Viewer, name: str) -> dict[str, Any]:
    """Show one rollout: its stages, their denominators and gates, and why it stands where it stands."""
    with program.database.read() as session:
        return views.rollout_json(store.read(session, name))


@router.get("/{name}/devices", operation_id="rollouts_devices")
def list_members(program: Program, _who: Viewer, name: str) -> dict[str, Any]:
    """List the devices of a rollout with their stages."""
    with program.database.read() as session:
        return {"items": views.members_json(store.read(session, name)), "next_cursor": None}


@router.get("/{name}/history", operation_id="rollouts_history")
def show_history(
    program: Program, _who: Viewer, name: str, limit: Limit = 100, cursor: str | None = None
) -> dict[str, Any]:
    """Tell what happened to a rollout, the oldest first."""
    with program.database.read() as session:
        store.read(session, name)
        rows = store.history(session, name, after_id=int(decode_cursor(cursor) or 0), limit=limit + 1)
    return page(rows, limit=limit, position=lambda row: row.id, item=views.event_json)


@router.post("/{name}/actions/{verb}", operation_id="rollouts_act")
def act_on_rollout(  # noqa: PLR0917 - FastAPI passes by name
    request: Request, program: Program, who: Operator, name: str, verb: Verb, why: Why | None = None
) -> dict[str, Any]:
    """Carry out a verb; asking twice does no harm."""
    why = why or Why()
    wish = Wish(verb=verb, actor=who.actor, reason=why.reason, leave=why.leave)
    with program.database.write() as session:
        after = wishes.act(session, name, wish, _about(request, program))
    program.signals.bump("rollouts")
    return views.rollout_json(after)


def _about(request: Request, program: Services) -> Circumstances:
    return Circumstances(now=program.clock(), request_id=request_id(request))
