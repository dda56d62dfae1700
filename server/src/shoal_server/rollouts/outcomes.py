"""What became of each device's offer.

Owns the one reading of a device's report by which devices are counted. "Installed" is not success: a device is HEALTHY
when the digest that it reports as running is the bundle and its own trial has passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shoal_protocol.mqtt.messages import SlotReport
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts.gates import Counts, Evidence
from shoal_server.rollouts.rollout import Member

_UNDONE = frozenset({"rejected", "rolling_back", "rolled_back"})
"""States of the agent's slot machine in which its target has failed."""


@dataclass(frozen=True, kw_only=True)
class DeviceFact:
    """What the controller knows of one device, about the rollout's slot.

    Attributes:
        accepted: Whether it weighs anything in a decision.
        eligible: Accepted, in the cohort, not pinned, the rollout's bundle not denied to it.
        online: Connected now.
        last_seen_at: When its last message came; None: never.
        generation_reported: Of the newest assignment that it has seen.
        report: What the slot really does.
        desired: What the slot should do by the present assignment.
        stratum: For sampling.
        denied: Digests that must not be installed on it.
    """

    accepted: bool = True
    eligible: bool = True
    online: bool = False
    last_seen_at: float | None = None
    generation_reported: int = 0
    report: SlotReport | None = None
    desired: SlotTarget | None = None
    stratum: str = ""
    denied: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a step of the controller is decided by.

    Attributes:
        devices: By id; a device that is not there does not exist any more.
        newcomers: Devices in the cohort that no rollout holds and that are no members, with their facts in `devices`.
        evidence: Of the present stage.
        claimed: Devices on which another rollout has a better claim to the slot, as far as that matters now.
    """

    devices: Mapping[str, DeviceFact] = field(default_factory=dict)
    newcomers: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    claimed: frozenset[str] = frozenset()


_FAULT_CHARS = 300


class Outcome(StrEnum):
    """What became of a member."""

    EXCLUDED = "excluded"  # gone, revoked, pinned or no longer in the cohort
    WAITING = "waiting"  # offline before it could be offered the bundle: no failure
    QUEUED = "queued"  # could be offered the bundle now
    UNREACHED = "unreached"  # was offered it, fell silent and never took the offer: no failure
    WORKING = "working"  # took the offer or is about to, no outcome yet
    HEALTHY = "healthy"  # runs the bundle, its trial passed
    FAILED = "failed"  # refused it or took it back
    LOST = "lost"  # took the offer, then fell silent


def outcome(member: Member, fact: DeviceFact | None, *, digest: str, lost_after_s: float, now: float) -> Outcome:
    """Return what became of a member.

    Args:
        member: Who.
        fact: None: the device does not exist any more.
        digest: Of the rollout's bundle.
        lost_after_s: Silence that makes a device lost.
        now: Seconds since the epoch.
    """
    if fact is None or not fact.accepted:
        return Outcome.EXCLUDED
    if member.offered_at is None:
        return _before_offer(fact)
    silent = is_silent(fact, since=member.offered_at, longer_than_s=lost_after_s, now=now)
    if member.generation is None or fact.generation_reported < member.generation:
        return Outcome.UNREACHED if silent else Outcome.WORKING
    report = fact.report
    if report is not None and _failed(member, report, digest):
        return Outcome.FAILED
    if silent:
        return Outcome.LOST
    healthy = report is not None and report.active == digest and report.proven == digest
    return Outcome.HEALTHY if healthy else Outcome.WORKING


def fault_of(report: SlotReport | None, digest: str) -> str:
    """Return why a device failed with a bundle, ``code: message``; empty: it says nothing of it."""
    error = None if report is None else report.error
    return "" if error is None or error.digest != digest else f"{error.code}: {error.message[:_FAULT_CHARS]}"


def faults(members: Iterable[Member]) -> dict[str, list[str]]:
    """Return the devices by the reason that they gave for failing, the most frequent reason first."""
    found: dict[str, list[str]] = {}
    for member in sorted(members, key=lambda member: member.device):
        if member.fault:
            found.setdefault(member.fault, []).append(member.device)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def causes(members: Iterable[Member]) -> str:
    """Return the most frequent reason for failing in one line; empty: nobody gave one."""
    found = faults(members)
    if not found:
        return ""
    first = next(iter(found))
    return first + (f" (and {len(found) - 1} more reasons)" if len(found) > 1 else "")


def is_silent(fact: DeviceFact, *, since: float, longer_than_s: float, now: float) -> bool:
    """Tell whether nothing came from a device for that long, counted from `since` at the earliest."""
    return not fact.online and now - max(fact.last_seen_at or 0.0, since) > longer_than_s


def count(outcomes: Iterable[Outcome]) -> Counts:
    """Return the denominators."""
    number = Counter(outcomes)
    reported = sum(number[one] for one in (Outcome.HEALTHY, Outcome.FAILED, Outcome.LOST))
    offered = reported + number[Outcome.WORKING] + number[Outcome.UNREACHED]
    return Counts(
        eligible=offered + number[Outcome.WAITING] + number[Outcome.QUEUED],
        offered=offered,
        reported=reported,
        healthy=number[Outcome.HEALTHY],
        failed=number[Outcome.FAILED],
        lost=number[Outcome.LOST],
        working=number[Outcome.WORKING],
        queued=number[Outcome.QUEUED],
        out_of_reach=number[Outcome.WAITING] + number[Outcome.UNREACHED],
    )


def _before_offer(fact: DeviceFact) -> Outcome:
    if not fact.eligible:
        return Outcome.EXCLUDED
    return Outcome.QUEUED if fact.online else Outcome.WAITING


def _failed(member: Member, report: SlotReport, digest: str) -> bool:
    if report.attempt < member.attempt:
        return False  # speaks of an earlier attempt
    if report.error is not None and report.error.digest == digest:
        return True
    if report.target == digest and report.state in _UNDONE:
        return True
    return member.proven_at is not None and report.active != digest
