"""What a step of the controller is decided by, gathered from the stores.

Owns the translation of devices, assignments, denials and other rollouts into `outcomes.Facts`. Leaves the evidence of
the gates to `evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlmodel import Session

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.fleet import assignments
from shoal_server.fleet import store as fleet
from shoal_server.fleet.cohort import Cohort, parse_cohort
from shoal_server.fleet.devices import Device, DeviceState
from shoal_server.rollouts import store
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.outcomes import DeviceFact, Facts
from shoal_server.rollouts.rollout import Rollout
from shoal_server.rollouts.stages import stratum
from shoal_server.rollouts.tables import DenialRow

_OFFERS = frozenset({RolloutState.RUNNING, RolloutState.COMPLETED})


def gather(session: Session, rollout: Rollout, *, now: float, evidence: Evidence | None = None) -> Facts:
    """Return the facts of one rollout.

    Args:
        session: Of an open transaction.
        rollout: As stored.
        now: Seconds since the epoch.
        evidence: Of its present stage; None: not yet measured, so that devices that could be its control count too.
    """
    cohort = parse_cohort(rollout.plan.cohort)
    if needs_whole_cohort(rollout):
        known = {device.id: device for device in fleet.devices(session) if _concerns(device, rollout, cohort)}
    else:
        known = {device.id: device for device in fleet.devices(session, ids=_concerned(rollout, evidence))}
    desired = assignments.slot_targets(session, rollout.slot)
    bars = Bars(store.denials(session, rollout.slot))
    facts = {
        device.id: device_fact(
            device,
            rollout,
            cohort=cohort,
            bars=bars,
            target=desired.get(device.id),
            now=now,
        )
        for device in known.values()
    }
    if rollout.state not in _OFFERS:
        return Facts(devices=facts)
    free = {
        device: fact
        for device, fact in facts.items()
        if fact.eligible and (device not in rollout.members or rollout.members[device].offered_at is None)
    }
    asked = facts.keys() if rollout.retry_wanted else free.keys()
    claimed = _claimed(session, rollout, [known[device] for device in asked]) if asked else frozenset[str]()
    facts.update((device, replace(free[device], eligible=False)) for device in claimed & free.keys())
    newcomers = tuple(sorted(free.keys() - claimed - rollout.members.keys()))
    return Facts(devices=facts, newcomers=newcomers, evidence=evidence or Evidence(), claimed=claimed)


def needs_whole_cohort(rollout: Rollout) -> bool:
    """Tell whether devices that are no members matter now: as newcomers, or as control."""
    if rollout.state is RolloutState.COMPLETED:
        return rollout.plan.standing
    return rollout.state is RolloutState.RUNNING and (rollout.plan.dynamic or rollout.plan.stages[-1].share < 1)


class Bars:
    """The denied bundles of one slot, asked by device."""

    def __init__(self, rows: Sequence[DenialRow]) -> None:
        self._rows = [(row, parse_cohort(row.cohort)) for row in rows]

    def of(self, device: Device) -> frozenset[str]:
        """Return the digests that must not be installed on a device."""
        if not self._rows:
            return frozenset()
        known = device.cohort_facts()
        return frozenset(row.digest for row, cohort in self._rows if cohort.matches(known))

    def why(self, device: Device, digest: str) -> DenialRow | None:
        """Return why a digest must not be installed on a device, None when it may be."""
        known = device.cohort_facts()
        return next((row for row, cohort in self._rows if row.digest == digest and cohort.matches(known)), None)


def device_fact(
    device: Device, rollout: Rollout, *, cohort: Cohort, bars: Bars, target: SlotTarget | None, now: float
) -> DeviceFact:
    """Return what matters of one device for a rollout's slot."""
    slot = rollout.slot
    known = device.cohort_facts()
    accepted = device.state is DeviceState.ACCEPTED
    denied = bars.of(device)
    return DeviceFact(
        accepted=accepted,
        eligible=accepted and device.pin(slot) is None and rollout.digest not in denied and cohort.matches(known),
        online=device.reachable(now),
        last_seen_at=max((at for at in (device.last_seen_at, device.polled_at) if at is not None), default=None),
        generation_reported=device.generation_reported,
        report=device.reported.get(slot),
        desired=target,
        stratum=stratum(known),
        denied=denied,
    )


def _concerned(rollout: Rollout, evidence: Evidence | None) -> list[str]:
    """Return the members that this step can be about: those of later stages only as control."""
    if rollout.state is RolloutState.SCHEDULED:
        return []
    gates, current = rollout.plan.gates, rollout.current
    compares = evidence is None and (gates.errors is not None or gates.output is not None)
    if rollout.state is not RolloutState.RUNNING or compares or current is None:
        return list(rollout.members)
    return [
        member.device for member in rollout.members.values() if member.stage <= current or member.offered_at is not None
    ]


def _concerns(device: Device, rollout: Rollout, cohort: Cohort) -> bool:
    return device.id in rollout.members or cohort.matches(device.cohort_facts())


def _claimed(session: Session, rollout: Rollout, devices: Sequence[Device]) -> frozenset[str]:
    """Return the devices that are to be offered the bundle, and that something else has a better claim on."""
    claimed = frozenset(store.holders(session, rollout.slot, apart_from=rollout.name))
    if rollout.state is not RolloutState.COMPLETED:
        return claimed
    newer = [parse_cohort(cohort) for cohort in store.newer_standing_cohorts(session, rollout)]
    standing = {
        device.id for device in devices if newer and any(cohort.matches(device.cohort_facts()) for cohort in newer)
    }
    return claimed | standing | store.superseded(session, rollout)
