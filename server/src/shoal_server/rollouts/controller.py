"""What a rollout does next: `step(rollout, facts, now) -> (rollout, effects)`, pure.

Owns every decision that no person makes: opening, settling, judging and passing stages, offering the bundle at the
plan's rate, pausing, rolling back, ending. Leaves a person's wishes to `commands`, the states' table to `machine`,
counting to `outcomes`, the gates' rule to `gates`, and all reading and writing to `runner`.

Invariants:
    - A step makes at most one transition of the rollout and one of its current stage, so each is saved by itself.
    - A paused rollout decides nothing; a failed gate is looked at before anything advances.
    - No stage passes on silence: it waits for outcomes and evidence, and pauses at its deadline with the reason.
    - A member is offered the bundle once per attempt, only while it is online.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts import stages
from shoal_server.rollouts.effects import Assign, Deny, Effect
from shoal_server.rollouts.gates import GateResult, Verdict, judge, judge_install
from shoal_server.rollouts.machine import Event, RolloutState, StageEvent, StageState
from shoal_server.rollouts.outcomes import DeviceFact, Facts, Outcome, causes, count, fault_of
from shoal_server.rollouts.quantities import duration_text
from shoal_server.rollouts.rollout import Member, Rollout, opening
from shoal_server.rollouts.turn import MAX_ASSIGNMENTS, Turn
from shoal_server.rollouts.way_back import take_back

_MOST_WAITS = 20
"""Words of devices that a stage's reason repeats: a device writes what it likes into them."""


def step(rollout: Rollout, facts: Facts, now: float) -> tuple[Rollout, list[Effect]]:
    """Decide what happens next.

    Args:
        rollout: As it was saved last.
        facts: What is known now about its devices.
        now: Seconds since the epoch, UTC.

    Returns:
        The rollout to save and the effects to carry out, in the same transaction. The same rollout and no effects when
        there is nothing to do.
    """
    turn = Turn(rollout, facts, now)
    act = _ACTS.get(rollout.state)
    if act is not None:
        act(turn)
    return turn.rollout, turn.effects


def _begin(turn: Turn) -> None:
    start_at = turn.rollout.plan.start_at
    if start_at is None or turn.now >= start_at:
        turn.move(Event.START, "its time has come" if start_at else "started", started_at=turn.now)


def _run(turn: Turn) -> None:
    _admit(turn)
    _retry_failed(turn)
    number = turn.rollout.current
    if number is None:
        turn.move(Event.FINISH, "the last stage passed", completed_at=turn.now)
        return
    _look(turn, number)
    if _fails(turn, number):
        return
    match turn.rollout.stages[number].state:
        case StageState.PENDING:
            _open(turn, number)
        case StageState.ROLLING:
            _offer(turn, number)
            _settle(turn, number)
        case StageState.SOAKING:
            _offer(turn, number)
            _pass(turn, number)
        case _:
            pass  # a stage that awaits approval waits for a person, a failed one can't be current while running


def _admit(turn: Turn) -> None:
    """Let devices that entered the cohort meanwhile join a later stage."""
    current = turn.rollout.current
    if not turn.rollout.plan.dynamic or current is None:
        return
    joined: dict[str, Member] = {}
    for device in turn.facts.newcomers:
        stage = stages.stage_of_newcomer(turn.rollout.plan.stages, device, salt=turn.rollout.salt, current=current)
        if stage is not None and device not in turn.rollout.members:
            joined[device] = Member(device=device, stage=stage, stratum=turn.facts.devices[device].stratum)
    turn.rollout = turn.rollout.with_members(joined)


def _retry_failed(turn: Turn) -> None:
    """Make failed devices unoffered again, for a further attempt.

    Of a completed rollout those count as failed, too, that a newer one moved on: they are its business.
    """
    if not turn.rollout.retry_wanted:
        return
    again: dict[str, Member] = {}
    for member in turn.rollout.touched():
        if turn.outcome(member) is Outcome.FAILED and member.device not in turn.facts.claimed:
            report = turn.facts.devices[member.device].report
            seen = 0 if report is None else report.attempt
            again[member.device] = replace(
                member,
                attempt=max(member.attempt, seen) + 1,
                offered_at=None,
                generation=None,
                proven_at=None,
                fault="",
            )
    turn.rollout = replace(turn.rollout.with_members(again), retry_wanted=False)


def _look(turn: Turn, current: int) -> None:
    """Bring counts and gates of the stages that were begun up to date, and remember who has proven the bundle."""
    changed: dict[str, Member] = {}
    for number, stage in enumerate(turn.rollout.stages[: current + 1]):
        members = turn.rollout.members_of(number)
        outcomes = {member.device: turn.outcome(member) for member in members}
        seen = [_seen(turn, member, outcomes[member.device]) for member in members]
        changed.update((new.device, new) for new, old in zip(seen, members, strict=True) if new is not old)
        counts = count(outcomes.values())
        gates = stage.gates
        if number == current and stage.state in (StageState.ROLLING, StageState.SOAKING):
            over = stage.soak_until is not None and turn.now >= stage.soak_until
            gates = judge(turn.rollout.plan.gates, counts, turn.facts.evidence, soak_over=over, causes=causes(seen))
        if (counts, gates) != (stage.counts, stage.gates):
            turn.set_stage(number, counts=counts, gates=gates)
    turn.rollout = turn.rollout.with_members(changed)


def _seen(turn: Turn, member: Member, found: Outcome) -> Member:
    """Return the member with what is to be remembered of its outcome."""
    if found is Outcome.HEALTHY and member.proven_at is None:
        return replace(member, proven_at=turn.now)
    if found is Outcome.FAILED:
        fault = fault_of(turn.facts.devices[member.device].report, turn.rollout.digest)
        return replace(member, fault=fault) if fault and fault != member.fault else member
    return member


def _fails(turn: Turn, current: int) -> bool:
    """End or hold the rollout when a gate has failed; a device may also take a passed stage's bundle back later."""
    for number, stage in enumerate(turn.rollout.stages[:current]):
        why = causes(turn.rollout.members_of(number))
        late = judge_install(turn.rollout.plan.gates.install, stage.counts, soak_over=True, causes=why)[0]
        if late.verdict is Verdict.FAIL:
            _fail(turn, number, late)
            return True
    stage = turn.rollout.stages[current]
    if stage.state in (StageState.ROLLING, StageState.SOAKING):
        failed = next((gate for gate in stage.gates if gate.verdict is Verdict.FAIL), None)
        if failed is not None:
            _fail(turn, current, failed)
            return True
    return False


def _fail(turn: Turn, number: int, gate: GateResult) -> None:
    reason = f"stage {number + 1}, gate {gate.gate}: {gate.reason}"
    turn.move_stage(number, StageEvent.FAIL, gate.reason, soak_until=None)
    if not turn.rollout.plan.roll_back_on_failure:
        turn.hold(reason)
        return
    turn.move(Event.FAIL, reason)
    turn.effects.append(Deny(digest=turn.rollout.digest, reason=f"rollout {turn.rollout.name}: {reason}"))
    turn.notify("rollout.rolling_back", "critical", f"Rollout {turn.rollout.name} is being rolled back")


def _open(turn: Turn, number: int) -> None:
    plan = turn.rollout.plan.stages[number]
    if not turn.rollout.members_of(number) and number > 0:
        turn.move_stage(number, StageEvent.SKIP, "adds no device to the stage before")
    elif plan.approval:
        turn.move_stage(number, StageEvent.ASK, "waits for approval")
        turn.rollout = replace(turn.rollout, reason=f"stage {number + 1} waits for approval")
    else:
        turn.move_stage(number, StageEvent.OPEN, "its turn has come", **opening(turn.rollout, turn.now))
        turn.rollout = replace(turn.rollout, reason="")


def _settle(turn: Turn, number: int) -> None:
    """Begin the soak once every device that can be reached has an outcome, and at least one has a good one."""
    stage = turn.rollout.stages[number]
    counts = stage.counts
    if counts.working == 0 and counts.queued == 0 and counts.healthy > 0:
        soak_s = turn.rollout.plan.stages[number].soak_s
        reason = f"{counts.healthy} of {counts.eligible} devices run it, soaking for {duration_text(soak_s)}"
        turn.move_stage(number, StageEvent.SETTLE, reason, soak_until=turn.now + soak_s)
        return
    parts = (
        (counts.queued, "not offered yet"),
        (counts.working, f"under way{_waits(turn, number)}"),
        (counts.out_of_reach, "out of reach"),
        (counts.failed, "failed"),
        (counts.lost, "lost"),
    )
    rest = ", ".join(f"{devices} {what}" for devices, what in parts if devices)
    _wait(turn, number, f"{counts.healthy} of {counts.eligible} devices run it" + (f"; {rest}" if rest else ""))


def _waits(turn: Turn, number: int) -> str:
    """Say what devices under way wait for, by their own word, such as a maintenance window."""
    codes: Counter[str] = Counter()
    for member in turn.rollout.members_of(number):
        fact = turn.facts.devices.get(member.device)
        waiting = fact.report.waiting if fact is not None and fact.report is not None else None
        if waiting is not None and turn.outcome(member) is Outcome.WORKING:
            codes[waiting.code] += 1
    shown = codes if len(codes) <= _MOST_WAITS else dict(codes.most_common(_MOST_WAITS))
    parts = [f"{count} wait{'s' if count == 1 else ''}: {code}" for code, count in sorted(shown.items())]
    if len(shown) < len(codes):
        parts.append(f"{codes.total() - sum(shown.values())} for other reasons")
    told = ", ".join(parts)
    return f" ({told})" if told else ""


def _pass(turn: Turn, number: int) -> None:
    stage = turn.rollout.stages[number]
    if all(gate.verdict is Verdict.PASS for gate in stage.gates):
        few = [gate.gate for gate in stage.gates if "few devices" in gate.reason]
        note = f"all gates passed ({', '.join(few)} on few devices)" if few else "all gates passed"
        turn.move_stage(number, StageEvent.PASS, note, soak_until=None)
        return
    open_gates = [f"{gate.gate}: {gate.reason}" for gate in stage.gates if gate.verdict is not Verdict.PASS]
    over = stage.soak_until is not None and turn.now >= stage.soak_until
    _wait(turn, number, ("soak extended; " if over else "soaking; ") + "; ".join(open_gates))


def _wait(turn: Turn, number: int, reason: str) -> None:
    """Stay in the stage, say why, and pause when its time is over."""
    stage = turn.rollout.stages[number]
    if stage.reason != reason:
        turn.set_stage(number, reason=reason)
    if stage.deadline_at is not None and turn.now >= stage.deadline_at:
        limit = duration_text(turn.rollout.plan.deadline_s)
        turn.hold(f"stage {number + 1} has not passed within its deadline of {limit}: {reason}")


def _offer(turn: Turn, number: int) -> None:
    """Assign the bundle to members up to a stage that are online, at the plan's rate."""
    waiting = [
        member
        for member in turn.rollout.members.values()
        if member.offered_at is None and member.stage <= number and turn.outcome(member) is Outcome.QUEUED
    ]
    room = _allowance(turn)
    waiting.sort(key=lambda member: (member.stage, stages.position(member.device, turn.rollout.salt), member.device))
    offered: dict[str, Member] = {}
    for member in waiting[:room]:
        fact = turn.facts.devices[member.device]
        offered[member.device] = _offered(member, fact, turn.rollout.digest, turn.now)
        target = SlotTarget(
            digest=turn.rollout.digest,
            name=turn.rollout.bundle_name,
            attempt=offered[member.device].attempt,
            windows=turn.rollout.plan.windows or None,
        )
        turn.effects.append(Assign(device=member.device, target=target))
    turn.rollout = turn.rollout.with_members(offered)
    if offered and number < len(turn.rollout.stages):
        _look(turn, min(number, len(turn.rollout.stages) - 1))


def _offered(member: Member, fact: DeviceFact, digest: str, now: float) -> Member:
    """Return the member with its attempt, and with its way back recorded from its last proven report."""
    report, desired = fact.report, fact.desired
    previous, name = member.previous, member.previous_name
    if report is not None:
        proven = next(
            (one for one in (report.proven, report.previous, report.active) if one not in (None, digest)), None
        )
        previous = proven if proven is not None else previous
    if desired is not None:
        name = desired.name if desired.digest == previous else name
    attempt = max(member.attempt, _next_attempt(fact, digest))
    return replace(member, previous=previous, previous_name=name, attempt=attempt, offered_at=now, generation=None)


def _next_attempt(fact: DeviceFact, digest: str) -> int:
    """Return the attempt of a new offer.

    It grows over all that the slot was assigned before, since an agent remembers for ever that a bundle failed at some
    attempt, and does not report it once something else is wanted. It stays where the bundle is assigned already.
    """
    report, desired = fact.report, fact.desired
    seen = max(0 if report is None else report.attempt, 0 if desired is None else desired.attempt)
    if report is not None and report.error is not None and report.error.digest == digest:
        return seen + 1
    assigned_before = desired is not None and desired.digest != digest
    return seen + 1 if assigned_before else seen


def _allowance(turn: Turn) -> int:
    rate, room = turn.rollout.plan.rate, MAX_ASSIGNMENTS
    touched = turn.rollout.touched()
    if rate.per_minute is not None:
        passed = sum(stage.state is StageState.PASSED for stage in turn.rollout.stages)
        # What lies ahead was offered before the clock was set back, and must not stop the rollout until then.
        ages = (turn.now - member.offered_at for member in touched if member.offered_at is not None)
        recent = sum(-1.0 <= age < 60.0 for age in ages)
        room = min(room, int(rate.per_minute * rate.growth**passed) - recent)
    if rate.in_flight is not None:
        room = min(room, rate.in_flight - sum(turn.outcome(member) is Outcome.WORKING for member in touched))
    return max(0, room)


def _stand(turn: Turn) -> None:
    """Bring a completed rollout's bundle to members that were out of reach, and to who enters its cohort."""
    _retry_failed(turn)
    last = len(turn.rollout.stages) - 1
    if turn.rollout.plan.standing:
        newcomers = {
            device: Member(device=device, stage=last, stratum=turn.facts.devices[device].stratum, late=True)
            for device in turn.facts.newcomers
            if device not in turn.rollout.members
        }
        turn.rollout = turn.rollout.with_members(newcomers)
    waiting = any(member.offered_at is None for member in turn.rollout.members.values())
    if waiting:
        _offer(turn, last)


_ACTS: Mapping[RolloutState, Callable[[Turn], None]] = MappingProxyType(
    {
        RolloutState.SCHEDULED: _begin,
        RolloutState.RUNNING: _run,
        RolloutState.COMPLETED: _stand,
        RolloutState.ROLLING_BACK: take_back,
    }
)
"""What a rollout does by itself, by its state; in the others it waits for a person or is over."""
