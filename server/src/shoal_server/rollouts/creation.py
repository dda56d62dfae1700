"""From a plan to a rollout: whom it reaches, and every reason why it can't be begun.

Owns what is decided once and recorded: the bundle's digest, the members, their stages. The same function serves a dry
run, so that what was shown is what is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from shoal_server.errors import ConflictError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.fleet.devices import Device, DeviceState
from shoal_server.registry import store as registry
from shoal_server.registry.versions import ResolvedBundle, VersionState
from shoal_server.rollouts import stages, store
from shoal_server.rollouts.carry_out import Circumstances, carry_out
from shoal_server.rollouts.effects import Effect, LiftDenial, Record
from shoal_server.rollouts.facts import Bars
from shoal_server.rollouts.gates import DEFAULT_MIN_DEVICES
from shoal_server.rollouts.machine import Event
from shoal_server.rollouts.plan import Plan, parse_plan
from shoal_server.rollouts.references import References, known
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.storage.database import lock_for_transaction

_FIGURES: Mapping[str, Callable[[float, float], bool]] = {
    "accuracy": lambda now, before: now < before - 0.01,
    "mean_absolute_error": lambda now, before: now > before * 1.05,
}
"""The figures that bundles state of themselves, and by how much one must be worse to be worth a word."""


class CreationError(ConflictError):
    """A plan is sound, but the fleet or the registry stands against it."""

    code = "rollout_refused"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A rollout that could be begun.

    Attributes:
        rollout: In the state DRAFT.
        notes: What is worth knowing before it is begun, in words.
    """

    rollout: Rollout
    notes: tuple[str, ...]


def draft(session: Session, plan: Plan, *, references: References, actor: str, now: float) -> Draft:
    """Select devices and check everything that stands against a plan.

    Args:
        session: Of an open transaction; a read is enough.
        plan: Checked.
        references: For the comparability of outputs.
        actor: Who wants it.
        now: Seconds since the epoch.

    Raises:
        CreationError: The name is taken, nobody is reached, another rollout holds a device, the bundle is denied, or a
            gate could never answer.
        CallerError: The bundle is not in the registry.
    """
    if store.exists(session, plan.name):
        raise CreationError(f"there is already a rollout {plan.name}", hint="names are used once; choose another")
    bundle = registry.resolve(session, plan.bundle)
    _check_released(session, bundle)
    reached = _reached(session, plan)
    strata = {device.id: stages.stratum(device.cohort_facts()) for device in reached}
    chosen = stages.select(plan.stages, strata, plan.name)
    members = {device: Member(device=device, stage=chosen[device], stratum=strata[device]) for device in sorted(chosen)}
    _check_holders(session, plan, members.keys())
    _check_denials(session, plan, bundle, [device for device in reached if device.id in members])
    _check_minima(plan, members)
    notes = [
        *_deprecation(session, bundle),
        *_worse_figures(session, plan, bundle, reached, references),
        *_check_outputs(plan, bundle, reached, references),
        *_notes(plan, members, reached),
    ]
    rollout = Rollout(
        plan=plan,
        digest=bundle.digest,
        bundle_name=bundle.name,
        salt=plan.name,
        created_at=now,
        created_by=actor,
        stages=tuple(Stage() for _ in plan.stages),
        members=members,
    )
    return Draft(rollout=rollout, notes=tuple(notes))


def create(
    session: Session, document: Mapping[str, Any], *, references: References, actor: str, about: Circumstances
) -> Rollout:
    """Begin a rollout: select, check, record.

    Args:
        session: Of an open write transaction.
        document: The plan as it came.
        references: For the comparability of outputs.
        actor: Who wants it.
        about: When, and on whose request.

    Raises:
        PlanError: The plan has faults.
        CreationError, CallerError: See `draft`.
    """
    plan = parse_plan(document)
    lock_for_transaction(session, "rollouts")
    made = draft(session, plan, references=references, actor=actor, now=about.now).rollout
    event, reason = (Event.ASK, "waits for approval") if plan.approval else (Event.SUBMIT, "")
    if plan.start_at is not None and not plan.approval:
        reason = "waits for its time"
    submitted = made.after(event, reason=reason)
    store.insert(session, submitted, dict(document))
    counts = Counter(member.stage for member in made.members.values())
    shown = {
        "state": submitted.state,
        "plan": dict(document),
        "digest": made.digest,
        "devices": [counts[number] for number in range(len(plan.stages))],
    }
    effects: list[Effect] = [Record(action="rollout.create", reason=reason, actor=actor, after=shown)]
    if plan.lift_denial:
        effects.append(LiftDenial(digest=made.digest, reason=plan.lift_denial))
    carry_out(session, submitted, effects, about)
    return submitted


def _deprecation(session: Session, bundle: ResolvedBundle) -> list[str]:
    row = registry.version_of_digest(session, bundle.digest)
    return [f"{bundle.name} is deprecated: {row.deprecated}"] if row is not None and row.deprecated else []


def _check_released(session: Session, bundle: ResolvedBundle) -> None:
    row = registry.version_of_digest(session, bundle.digest)
    if row is not None and row.state == VersionState.DENIED:
        raise CreationError(
            f"{bundle.name} is on the signed deny list", hint=f"lift it: shoalctl model allow {bundle.name}"
        )
    if row is not None and row.state != VersionState.RELEASED:
        raise CreationError(
            f"{bundle.name} is {row.state}: the signed list does not name it, so no device would install it",
            hint="sign it: shoal-convert push BUNDLE --key KEY",
        )


def _reached(session: Session, plan: Plan) -> list[Device]:
    found = fleet.devices(session, cohort=parse_cohort(plan.cohort))
    accepted = [device for device in found if device.state is DeviceState.ACCEPTED]
    reached = [device for device in accepted if device.pin(plan.slot) is None]
    if not reached:
        why = f"{len(accepted)} match, all of them pinned" if accepted else "no accepted device matches"
        raise CreationError(
            f"the cohort {plan.cohort!r} reaches no device: {why}", hint="try it: shoalctl device list --cohort QUERY"
        )
    return reached


def _check_holders(session: Session, plan: Plan, members: Iterable[str]) -> None:
    held = store.holders(session, plan.slot)
    taken = sorted(device for device in members if device in held)
    if taken:
        other = held[taken[0]]
        raise CreationError(
            f"the rollout {other} is active on the slot {plan.slot} of {len(taken)} of these devices, "
            f"among them {taken[0]}",
            hint=f"wait for {other}, or end it: shoalctl rollout abort {other}",
            rollout=other,
        )


def _check_denials(session: Session, plan: Plan, bundle: ResolvedBundle, members: Sequence[Device]) -> None:
    if plan.lift_denial:
        return
    bars = Bars(store.denials(session, plan.slot))
    for device in members:
        row = bars.why(device, bundle.digest)
        if row is not None:
            raise CreationError(
                f"{bundle.name} was denied for {row.cohort!r} by the rollout {row.rollout}: {row.reason}",
                hint="to try it all the same, say why in the plan: override: {denied: REASON}",
                rollout=row.rollout,
            )


def _check_minima(plan: Plan, members: Mapping[str, Member]) -> None:
    """Refuse a stage that could never pass since it has fewer devices than a gate needs."""
    counts = Counter(member.stage for member in members.values())
    gates = {"install": plan.gates.install, "errors": plan.gates.errors, "output": plan.gates.output}
    for number in range(len(plan.stages)):
        for name, gate in gates.items():
            needed = None if gate is None else gate.min_devices
            if needed is not None and 0 < counts[number] < needed:
                raise CreationError(
                    f"stage {number + 1} adds {counts[number]} devices, but gates.{name}.min_devices is {needed}: "
                    "it could never pass",
                    hint="raise the stage's percent or min, or lower min_devices",
                )


def _running(plan: Plan, reached: Sequence[Device]) -> Counter[str]:
    """Return how many devices have proven which bundle in the plan's slot."""
    reports = [device.reported.get(plan.slot) for device in reached]
    return Counter(report.proven for report in reports if report is not None and report.proven is not None)


def _worse_figures(
    session: Session, plan: Plan, bundle: ResolvedBundle, reached: Sequence[Device], references: References
) -> Iterator[str]:
    """Note where a bundle states worse figures than one that it replaces.

    No gate would: the output gate asks whether each bundle behaves as its own reference says.
    """
    new = known(references, bundle.digest)
    for digest, devices in sorted(_running(plan, reached).items()):
        old = known(references, digest)
        row = registry.version_of_digest(session, digest)
        if new is None or old is None or row is None or digest == bundle.digest:
            continue
        for name, margin in _FIGURES.items():
            now, before = new.metrics.get(name), old.metrics.get(name)
            if now is not None and before is not None and margin(now, before):
                yield (
                    f"{bundle.name} states {name.replace('_', ' ')} {now:.4g}, but {row.model}:{row.version}, which "
                    f"{devices} of these devices run, {before:.4g}: no gate compares these"
                )


def _check_outputs(
    plan: Plan, bundle: ResolvedBundle, reached: Sequence[Device], references: References
) -> tuple[str, ...]:
    """Refuse an output gate whose features can't be compared with those of the bundles that run now."""
    if plan.gates.output is None:
        return ()
    new = known(references, bundle.digest)
    if new is None:
        raise CreationError(
            f"{bundle.name} holds no reference profile, so its outputs can't be judged",
            hint="pack it with a sample, or leave gates.output out",
        )
    grids = {stream.name: stream.grid_hash for stream in new.spec.streams if stream.kind == "output"}
    running = _running(plan, reached)
    notes: list[str] = []
    for digest in sorted(running.keys() - {bundle.digest}):
        parent = known(references, digest)
        if parent is None:
            notes.append(f"{running[digest]} devices run {digest}, which holds no reference: no control for outputs")
            continue
        theirs = {stream.name: stream.grid_hash for stream in parent.spec.streams if stream.kind == "output"}
        unlike = sorted(name for name in grids.keys() | theirs.keys() if grids.get(name) != theirs.get(name))
        if unlike:
            raise CreationError(
                f"the outputs of {bundle.name} can't be compared with {digest}, which {running[digest]} devices run: "
                f"other bins for {', '.join(unlike)}",
                hint="pack it with --parent, or leave gates.output out",
                features=unlike,
            )
    return tuple(notes)


def _notes(plan: Plan, members: Mapping[str, Member], reached: Sequence[Device]) -> list[str]:
    counts = Counter(member.stage for member in members.values())
    notes = [
        f"stage {number + 1} adds no device to the stage before; it passes at once"
        for number in range(1, len(plan.stages))
        if not counts[number]
    ]
    offline = sum(not device.online for device in reached if device.id in members)
    if offline:
        notes.append(f"{offline} of {len(members)} devices are offline now; each is offered the bundle when it is back")
    if counts[0] < DEFAULT_MIN_DEVICES:
        notes.append(f"the first stage has {counts[0]} devices: its gates pass or fail on little evidence")
    return notes
