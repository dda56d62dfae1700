"""Pages of rollouts: the list, and one rollout live with its stages, gates, devices and history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_server.access import Role
from shoal_server.access.guard import Operator, Program, Viewer
from shoal_server.paging import decode_cursor, encode_cursor
from shoal_server.rollouts import facts, routes, store, views
from shoal_server.rollouts.commands import Verb
from shoal_server.rollouts.gates import GateResult
from shoal_server.rollouts.machine import ROLLOUT_TABLE, Event, RolloutState, StageState
from shoal_server.rollouts.outcomes import Outcome, outcome
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.rollouts.tables import RolloutRow
from shoal_server.web import words
from shoal_server.web.bundle_names import names_of
from shoal_server.web.charts import Segment, segments
from shoal_server.web.site import PageRoute, address, page, redirect, segment

router = APIRouter(prefix="/rollouts", route_class=PageRoute, include_in_schema=False)
_PAGE = 30
_MOST_DEVICES = 200
KINDS = ("healthy", "failed", "lost", "working", "queued", "out_of_reach")
"""Parts of a stage's bar, in the order in which they are drawn; together they are all eligible devices."""


@dataclass(frozen=True)
class GateView:
    """One gate's answer in words."""

    name: str
    question: str
    measured: str
    bound: str
    threshold: str
    evidence: str
    result: GateResult


@dataclass(frozen=True)
class StageView:
    """One stage as the page shows it; `number` counts from 1."""

    number: int
    stage: Stage
    share: float
    soak_s: float
    members: int
    segments: list[Segment]
    gates: list[GateView]


@dataclass(frozen=True)
class Action:
    """One thing that can be asked of a rollout now."""

    verb: Verb
    button: str
    title: str
    text: str
    kind: str = ""


_TAKE_BACK = (
    "Every device that got the bundle goes back to its own last good one, and the bundle is denied to this cohort."
)
_ACTIONS: Mapping[Verb, tuple[str, str, str]] = MappingProxyType(
    {
        Verb.APPROVE: ("Approve", "It goes on with the next step at once.", "primary"),
        Verb.RESUME: ("Resume", "The present stage settles and soaks anew, and its gates are judged anew.", "primary"),
        Verb.PAUSE: ("Pause", "No further device is offered the bundle. Devices keep what they have.", ""),
        Verb.PROMOTE: ("End the soak", "The soak ends now. The gates are still judged; none is skipped.", ""),
        Verb.RETRY: ("Try failed devices again", "Devices that failed are offered the bundle once more.", ""),
        Verb.CANCEL: ("Cancel", "It ends before it ran; nothing was changed.", "danger"),
        Verb.ABORT: ("Abort and roll back", _TAKE_BACK, "danger"),
        Verb.UNDO: ("Undo", _TAKE_BACK, "danger"),
    }
)
"""Of each verb: its button, what it does, its look."""


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
        devices = device_outcomes(session, rollout, now)
        history = _newest_history(session, name)
        names = names_of(session, [rollout.digest, *(member.previous for member in rollout.members.values())])
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
        actions=actions(rollout) if principal.may(Role.OPERATOR) else [],
        all_actions=[_action(verb, rollout) for verb in _ACTIONS] if principal.may(Role.OPERATOR) else [],
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


def summary(row: RolloutRow) -> dict[str, Any]:
    """Return what a list shows of a rollout."""
    stages = [store.stage_from_json(stage) for stage in row.stages]
    passed = sum(stage.state is StageState.PASSED for stage in stages)
    totals = {kind: sum(getattr(stage.counts, kind) for stage in stages) for kind in (*KINDS, "eligible", "offered")}
    eligible = max(totals["eligible"], 1)
    return {
        "row": row,
        "passed": passed,
        "stages": len(stages),
        "totals": totals,
        "segments": segments(totals, KINDS, total=eligible),
    }


def stage_views(rollout: Rollout) -> list[StageView]:
    """Return the stages of a rollout in words and parts of bars."""
    shown = []
    for number, (stage, plan) in enumerate(zip(rollout.stages, rollout.plan.stages, strict=True)):
        counts = stage.counts.as_json()
        shown.append(
            StageView(
                number=number + 1,
                stage=stage,
                share=plan.share,
                soak_s=plan.soak_s,
                members=len(rollout.members_of(number)),
                segments=segments(counts, KINDS, total=stage.counts.eligible),
                gates=[gate_view(gate) for gate in stage.gates],
            )
        )
    return shown


def gate_view(gate: GateResult) -> GateView:
    """Put one gate's answer into words."""
    question, unit = _QUESTIONS.get(gate.gate, (gate.gate, words.amount))
    evidence = words.plural(gate.devices, "device")
    if gate.gate not in _COUNTS_DEVICES:
        evidence = f"{words.plural(gate.n, 'prediction')} on {evidence}"
    return GateView(
        name=gate.gate,
        question=question,
        measured=unit(gate.value),
        bound=unit(gate.bound),
        threshold=unit(gate.threshold),
        evidence=evidence,
        result=gate,
    )


def _points(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:+.3g} pp"


_COUNTS_DEVICES = frozenset({"install", "lost"})
_QUESTIONS = MappingProxyType(
    {
        "install": ("Share of devices that refused the bundle or took it back", words.percent),
        "lost": ("Share of devices that fell silent after taking it", words.percent),
        "errors": ("Rise of failed predictions against the control", _points),
        "output": ("Shift of the predictions against the control, beyond what was expected", words.amount),
    }
)


def actions(rollout: Rollout) -> list[Action]:
    """Return what can be asked of a rollout now, as its table says."""
    possible = {event for state, event in ROLLOUT_TABLE if state is rollout.state}
    number = rollout.current
    stage = None if number is None else rollout.stages[number].state
    useful = {
        Verb.APPROVE: rollout.state is RolloutState.AWAITING_APPROVAL or stage is StageState.AWAITING_APPROVAL,
        Verb.PROMOTE: stage is StageState.SOAKING,
        Verb.RETRY: any(stage.counts.failed for stage in rollout.stages),
    }
    return [_action(verb, rollout) for verb in _ACTIONS if Event(verb.value) in possible and useful.get(verb, True)]


def device_outcomes(session: Session, rollout: Rollout, now: float) -> list[tuple[Member, Outcome]]:
    """Return what became of each member; those that need a look come first."""
    known = facts.gather(session, rollout, now=now).devices
    found = [
        (
            member,
            outcome(
                member,
                known.get(member.device),
                digest=rollout.digest,
                lost_after_s=rollout.plan.lost_after_s,
                now=now,
            ),
        )
        for member in rollout.members.values()
    ]
    urgency = {Outcome.FAILED: 0, Outcome.LOST: 1, Outcome.WORKING: 2}
    return sorted(found, key=lambda pair: (urgency.get(pair[1], 3), pair[0].stage, pair[0].device))


def _action(verb: Verb, rollout: Rollout) -> Action:
    button, text, kind = _ACTIONS[verb]
    return Action(verb, button, f"{button}: {rollout.name}?", text, kind)


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
