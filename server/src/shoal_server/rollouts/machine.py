"""Every transition of a rollout and of its stages, as two tables.

Owns the states, the events and which event leads where. Leaves to `controller` when an event happens and what follows
from it. The diagrams of docs/reference/rollout-states.md are made from these tables by `diagram`.

Invariants: an event that a table does not name is an `IllegalEventError` and changes nothing; from every state that is
not final, an operator can stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from shoal_server.errors import ConflictError


class RolloutState(StrEnum):
    """Where a rollout as a whole stands."""

    DRAFT = "draft"  # being made; never seen outside the transaction that creates it
    AWAITING_APPROVAL = "awaiting_approval"  # a person has to approve before anything happens
    SCHEDULED = "scheduled"  # begins when its time has come
    RUNNING = "running"  # offers, soaks and judges
    PAUSED = "paused"  # offers nothing, decides nothing; devices keep what they have
    COMPLETED = "completed"  # the last stage passed; the standing assignment of its cohort
    ROLLING_BACK = "rolling_back"  # every touched device is on its way back
    ROLLED_BACK = "rolled_back"  # final: every touched device has reported, or is listed as out of reach
    CANCELLED = "cancelled"  # final: ended without a rollback


class StageState(StrEnum):
    """Where one stage stands."""

    PENDING = "pending"  # its turn has not come
    AWAITING_APPROVAL = "awaiting_approval"  # its turn has come, a person has to approve
    ROLLING = "rolling"  # its devices are offered the bundle
    SOAKING = "soaking"  # its devices have an outcome, the gates watch
    PASSED = "passed"  # all its gates passed
    FAILED = "failed"  # a gate failed


class Event(StrEnum):
    """What can happen to a rollout."""

    ASK = "ask"  # its plan wants an approval
    SUBMIT = "submit"  # its plan wants none
    APPROVE = "approve"  # a person approves it, or its waiting stage
    START = "start"  # its time has come
    PAUSE = "pause"  # a person stops it where it is
    HOLD = "hold"  # it stops itself: out of time, or a gate failed and the plan says pause
    RESUME = "resume"  # a person lets it go on
    FAIL = "fail"  # a gate failed and the plan says rollback
    ABORT = "abort"  # a person wants everything taken back
    LEAVE = "leave"  # a person ends it, devices keep what they have
    CANCEL = "cancel"  # a person ends it before it ran
    FINISH = "finish"  # the last stage passed
    PROMOTE = "promote"  # a person ends a soak early; the gates still judge
    RETRY = "retry"  # a person lets the failed devices try again
    UNDO = "undo"  # a person wants a completed rollout taken back
    RETURN = "return"  # no touched device is left to wait for


class StageEvent(StrEnum):
    """What can happen to a stage."""

    ASK = "ask"  # its turn has come and it wants an approval
    OPEN = "open"  # its turn has come
    SKIP = "skip"  # its turn has come and it adds no device to the stage before
    SETTLE = "settle"  # its devices have an outcome
    PASS = "pass"  # its soak is over and every gate passed  # noqa: S105
    FAIL = "fail"  # a gate failed
    REOPEN = "reopen"  # resumed or retried: its devices settle and soak anew, its gates judge anew


_R, _E, _S, _SE = RolloutState, Event, StageState, StageEvent

ROLLOUT_TABLE: Mapping[tuple[RolloutState, Event], RolloutState] = MappingProxyType(
    {
        (_R.DRAFT, _E.ASK): _R.AWAITING_APPROVAL,
        (_R.DRAFT, _E.SUBMIT): _R.SCHEDULED,
        (_R.AWAITING_APPROVAL, _E.APPROVE): _R.SCHEDULED,
        (_R.AWAITING_APPROVAL, _E.CANCEL): _R.CANCELLED,
        (_R.SCHEDULED, _E.START): _R.RUNNING,
        (_R.SCHEDULED, _E.CANCEL): _R.CANCELLED,
        (_R.RUNNING, _E.APPROVE): _R.RUNNING,
        (_R.RUNNING, _E.PAUSE): _R.PAUSED,
        (_R.RUNNING, _E.HOLD): _R.PAUSED,
        (_R.RUNNING, _E.FAIL): _R.ROLLING_BACK,
        (_R.RUNNING, _E.ABORT): _R.ROLLING_BACK,
        (_R.RUNNING, _E.LEAVE): _R.CANCELLED,
        (_R.RUNNING, _E.PROMOTE): _R.RUNNING,
        (_R.RUNNING, _E.RETRY): _R.RUNNING,
        (_R.RUNNING, _E.FINISH): _R.COMPLETED,
        (_R.PAUSED, _E.RESUME): _R.RUNNING,
        (_R.PAUSED, _E.RETRY): _R.RUNNING,
        (_R.PAUSED, _E.ABORT): _R.ROLLING_BACK,
        (_R.PAUSED, _E.LEAVE): _R.CANCELLED,
        (_R.COMPLETED, _E.RETRY): _R.COMPLETED,
        (_R.COMPLETED, _E.UNDO): _R.ROLLING_BACK,
        (_R.ROLLING_BACK, _E.RETURN): _R.ROLLED_BACK,
    }
)

STAGE_TABLE: Mapping[tuple[StageState, StageEvent], StageState] = MappingProxyType(
    {
        (_S.PENDING, _SE.ASK): _S.AWAITING_APPROVAL,
        (_S.PENDING, _SE.OPEN): _S.ROLLING,
        (_S.PENDING, _SE.SKIP): _S.PASSED,
        (_S.AWAITING_APPROVAL, _SE.OPEN): _S.ROLLING,
        (_S.ROLLING, _SE.SETTLE): _S.SOAKING,
        (_S.ROLLING, _SE.FAIL): _S.FAILED,
        (_S.ROLLING, _SE.REOPEN): _S.ROLLING,
        (_S.SOAKING, _SE.PASS): _S.PASSED,
        (_S.SOAKING, _SE.FAIL): _S.FAILED,
        (_S.SOAKING, _SE.REOPEN): _S.ROLLING,
        (_S.PASSED, _SE.FAIL): _S.FAILED,
        (_S.FAILED, _SE.REOPEN): _S.ROLLING,
    }
)

FINAL = frozenset({_R.ROLLED_BACK, _R.CANCELLED})
"""States that nothing leads out of."""

ACTIVE = frozenset({_R.DRAFT, _R.AWAITING_APPROVAL, _R.SCHEDULED, _R.RUNNING, _R.PAUSED, _R.ROLLING_BACK})
"""States in which a rollout holds its slot on its devices against another rollout."""

ALREADY: Mapping[Event, frozenset[RolloutState]] = MappingProxyType(
    {
        _E.PAUSE: frozenset({_R.PAUSED}),
        _E.RESUME: frozenset({_R.RUNNING}),
        _E.ABORT: frozenset({_R.ROLLING_BACK, _R.ROLLED_BACK}),
        _E.UNDO: frozenset({_R.ROLLING_BACK, _R.ROLLED_BACK}),
        _E.CANCEL: frozenset({_R.CANCELLED}),
        _E.LEAVE: frozenset({_R.CANCELLED}),
    }
)
"""Where an operator's wish is fulfilled already, so that asking twice does no harm."""


class IllegalEventError(ConflictError):
    """The table names no transition for this event in this state; nothing was changed."""

    code = "illegal_transition"


def next_state(state: RolloutState, event: Event) -> RolloutState:
    """Return where an event leads.

    Raises:
        IllegalEventError: Nowhere; the message says what can be done instead.
    """
    try:
        return ROLLOUT_TABLE[state, event]
    except KeyError:
        possible = ", ".join(str(known) for at, known in ROLLOUT_TABLE if at is state) or "nothing, it is final"
        raise IllegalEventError(
            f"a rollout that is {state} can't {event}", hint=f"possible is: {possible}", state=str(state)
        ) from None


def next_stage_state(state: StageState, event: StageEvent) -> StageState:
    """Return where an event leads a stage.

    Raises:
        IllegalEventError: Nowhere.
    """
    try:
        return STAGE_TABLE[state, event]
    except KeyError:
        raise IllegalEventError(f"a stage that is {state} can't {event}", state=str(state)) from None
