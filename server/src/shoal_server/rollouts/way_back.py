"""The way back: every touched device returns to its own last good bundle.

Owns the rollback of a rollout: explicit digests from what each device had proven before, and the wait for the reports
that say so. Rate limits do not hold here.

Invariants: a device that something newer was assigned to since is left alone; a rollback ends only by reports, or by
naming the devices that are out of reach.
"""

from __future__ import annotations

from dataclasses import replace

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts.effects import Assign
from shoal_server.rollouts.machine import Event
from shoal_server.rollouts.outcomes import DeviceFact, is_silent
from shoal_server.rollouts.rollout import Member
from shoal_server.rollouts.turn import MAX_ASSIGNMENTS, Turn, listed

OUT_OF_REACH_S = 60.0
"""Silence after which a rollback no longer waits for a device; its assignment stands."""


def take_back(turn: Turn) -> None:
    """Assign every touched device its way back, then wait until their reports say that they went it."""
    touched = turn.rollout.touched()
    returning: dict[str, Member] = {}
    for member in touched:
        if not member.sent_back and len(returning) < MAX_ASSIGNMENTS:
            returning[member.device] = _sent_back(turn, member)
    turn.rollout = turn.rollout.with_members(returning)
    if returning:
        return
    waiting: list[str] = []
    unreachable: list[str] = []
    for member in touched:
        fact = turn.facts.devices.get(member.device)
        if fact is None or not fact.accepted or has_returned(member, fact, turn.rollout.digest):
            continue
        silent = is_silent(fact, since=0.0, longer_than_s=OUT_OF_REACH_S, now=turn.now)
        (unreachable if silent else waiting).append(member.device)
    if waiting:
        reason = f"{_cause(turn.rollout.reason)}; waiting for {listed(waiting)} to return"
        if reason != turn.rollout.reason:
            turn.rollout = replace(turn.rollout, reason=reason)
        return
    reason = f"{_cause(turn.rollout.reason)}; {len(touched) - len(unreachable)} of {len(touched)} devices have returned"
    if unreachable:
        reason += f"; out of reach, their assignment stands: {listed(unreachable)}"
    turn.move(Event.RETURN, reason, ended_at=turn.now)
    turn.notify("rollout.rolled_back", "critical", f"Rollout {turn.rollout.name} was rolled back")


def _sent_back(turn: Turn, member: Member) -> Member:
    fact = turn.facts.devices.get(member.device)
    if fact is None or fact.desired is None or fact.desired.digest != turn.rollout.digest:
        return replace(member, sent_back=True)  # gone, or something newer has been assigned since
    previous = None if member.previous in fact.denied else member.previous
    name = member.previous_name if previous is not None else None
    target = SlotTarget(digest=previous, name=name, attempt=max(member.attempt, fact.desired.attempt))
    turn.effects.append(Assign(device=member.device, target=target))
    return replace(member, sent_back=True, generation=None)


def has_returned(member: Member, fact: DeviceFact, digest: str) -> bool:
    """Tell whether a device has seen its way back and reports that the bundle runs no more."""
    if fact.generation_reported < (member.generation or 0):  # without one, nothing had to be assigned
        return False
    report = fact.report
    return report is None or digest not in (report.active, report.target)


def _cause(reason: str) -> str:
    """Return the reason for the rollback, without how far it is."""
    return reason.partition("; waiting for ")[0]
