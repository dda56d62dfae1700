"""A rollout plan: what an operator wants to be done, checked before anything happens.

Owns the plan's types and its parser, which reports all faults together and refuses what it does not support instead of
ignoring it. Leaves selection of devices to `stages`, resolution of the bundle to the registry, and every decision to
`gates` and `controller`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal_protocol.errors import ContentError
from shoal_protocol.maintenance import parse_windows
from shoal_protocol.refs import parse_ref
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.rollouts.fields import Reader, choice, count, flag, instant, matching, number, positive_duration
from shoal_server.rollouts.quantities import parse_bound, parse_duration, parse_floor, parse_percent

DEFAULT_TOLERANCE = 0.1
"""Of the output gate, in the unit of `drift.compare`."""

NAME_RE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SLOT_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class PlanError(ContentError):
    """A plan can't be carried out; `data["faults"]` lists `{where, what}` for each fault."""

    code = "plan"


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One step of a rollout.

    Attributes:
        share: Of the cohort that has the bundle when this stage is done, 0 to 1 (cumulative).
        at_least: Devices, where the share would be fewer.
        soak_s: How long the gates watch after the stage's devices run the bundle.
        approval: Whether a person must approve before the stage begins.
    """

    share: float
    at_least: int = 0
    soak_s: float = 0.0
    approval: bool = False


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast devices are offered the bundle; None: no limit.

    Attributes:
        per_minute: Offers in any 60 seconds.
        in_flight: Devices that were offered it and have not come to an outcome.
        growth: Factor on `per_minute` for every stage that has passed.
    """

    per_minute: int | None = None
    in_flight: int | None = None
    growth: float = 1.0


@dataclass(frozen=True, kw_only=True)
class InstallGate:
    """How many devices may fail to run the bundle.

    Attributes:
        failed: Largest share of devices with an outcome that failed.
        lost: Largest share that fell silent after they took the offer.
        min_devices: With an outcome; None: 3, or all where a stage has fewer.
    """

    failed: float = 0.05
    lost: float = 0.02
    min_devices: int | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorsGate:
    """How far the share of failed predictions may rise against the control.

    Attributes:
        increase: Largest rise, share of 1.
        min_devices: With evidence; None: 3, or all where a stage has fewer.
        min_predictions: By all canary devices.
    """

    increase: float
    min_devices: int | None = None
    min_predictions: int = 200


@dataclass(frozen=True, kw_only=True)
class OutputGate:
    """How far the predictions may move against the control, beyond what the references explain.

    Attributes:
        tolerance: Largest shift, in the unit of `drift.compare`.
        min_devices: With evidence; None: 3, or all where a stage has fewer.
        min_predictions: By all canary devices.
    """

    tolerance: float = DEFAULT_TOLERANCE
    min_devices: int | None = None
    min_predictions: int = 200


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """How accurate the bundle must be; at least one of both is asked.

    Attributes:
        estimated: Smallest accuracy that its confidences promise; None: not asked.
        feedback: Smallest accuracy by true labels that came back; None: not asked.
        min_devices: With evidence; None: 3, or all where a stage has fewer.
        min_predictions: By all canary devices, for the estimate.
        min_labels: Of all canary devices, for the feedback.
    """

    estimated: float | None = None
    feedback: float | None = None
    min_devices: int | None = None
    min_predictions: int = 200
    min_labels: int = 100


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What every stage must pass; the install gate always stands."""

    install: InstallGate = InstallGate()
    errors: ErrorsGate | None = None
    output: OutputGate | None = None
    accuracy: AccuracyGate | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked plan.

    Attributes:
        name: Of the rollout, unique for ever.
        slot: Which model of the devices it changes.
        bundle: Reference as written; resolved once, at creation.
        cohort: Query that chooses the devices.
        stages: At least one, growing.
        gates: Checks that each stage must pass.
        rate: Limits on offers.
        roll_back_on_failure: Else the rollout pauses and leaves the devices as they are.
        deadline_s: How long one stage may take, approvals apart, before the rollout pauses.
        lost_after_s: Silence after which a device that took the offer is lost.
        standing: Whether devices that enter the cohort after completion get the bundle too.
        dynamic: Whether devices that enter the cohort meanwhile join a later stage.
        approval: Whether a person must approve before it runs at all.
        start_at: Seconds since the epoch before which it does not begin; None: at once.
        windows: Spans of the week in which devices may activate the bundle; none: at any time.
        lift_denial: Reason for using a digest that an earlier rollback denied; empty: refuse it.
    """

    name: str
    slot: str
    bundle: str
    cohort: str
    stages: tuple[StagePlan, ...]
    gates: Gates = Gates()
    rate: Rate = Rate()
    roll_back_on_failure: bool = True
    deadline_s: float = 3 * 86_400.0
    lost_after_s: float = 1800.0
    standing: bool = True
    dynamic: bool = False
    approval: bool = False
    start_at: float | None = None
    windows: tuple[str, ...] = ()
    lift_denial: str = ""


def parse_plan(document: Mapping[str, Any]) -> Plan:
    """Check a plan as it comes from YAML or JSON.

    Raises:
        PlanError: It has faults; all of them are named.
    """
    if not isinstance(document, Mapping):
        raise PlanError(f"a rollout plan is a mapping, got {type(document).__name__}", faults=[])
    faults: list[dict[str, str]] = []
    reader = Reader(document, "", faults)
    plan = _read_plan(reader)
    if faults:
        lines = "; ".join(f"{fault['where']}: {fault['what']}" if fault["where"] else fault["what"] for fault in faults)
        raise PlanError(
            f"the rollout plan has {len(faults)} fault{'s' if len(faults) > 1 else ''}: {lines}",
            hint="see docs/how-to/write-a-rollout-plan.md",
            faults=faults,
        )
    return plan


def _read_plan(reader: Reader) -> Plan:
    bundle = reader.require("bundle", _bundle, "")
    stages = _read_stages(reader)
    reader.read("strategy", _strategy, "canary")
    reader.refuse("arms", "comparing arms is not supported yet: leave it out")
    whole = bool(stages) and stages[-1].share == 1
    plan = Plan(
        name=reader.require("name", matching(NAME_RE, "a name of lower-case letters, digits, '.', '_' and '-'"), ""),
        slot=reader.read("slot", matching(SLOT_RE, "a slot name"), re.split("[:@]", bundle)[0]),
        bundle=bundle,
        cohort=reader.require("cohort", _cohort, "all"),
        stages=stages,
        gates=_read_gates(reader),
        rate=_read_rate(reader),
        roll_back_on_failure=reader.read("on_failure", choice("rollback", "pause"), "rollback") == "rollback",
        deadline_s=reader.read("deadline", positive_duration, Plan.deadline_s),
        lost_after_s=reader.read("lost_after", positive_duration, Plan.lost_after_s),
        standing=reader.read("standing", flag, whole),
        dynamic=reader.read("dynamic", flag, Plan.dynamic),
        approval=reader.read("approval", choice("required", "none"), "none") == "required",
        start_at=reader.read("start", instant, None),
        windows=reader.read("windows", _windows, ()),
        lift_denial=_read_override(reader),
    )
    if plan.standing and stages and not whole:
        reader.fault(
            "a standing assignment needs a last stage of 100 percent, since it reaches the whole cohort", "standing"
        )
    reader.close()
    return plan


def _read_stages(reader: Reader) -> tuple[StagePlan, ...]:
    stages: list[StagePlan] = []
    if not reader.has("stages"):
        reader.fault("is missing: at least one stage is needed, for example [{devices: {percent: 100}}]", "stages")
    for inner in reader.children("stages"):
        devices = inner.child("devices")
        if devices is None:
            if not inner.has("devices"):
                inner.fault("is missing: for example devices: {percent: 5, min: 3}")
            continue
        stage = StagePlan(
            share=devices.require("percent", parse_percent, 1.0),
            at_least=devices.read("min", count(1), 0),
            soak_s=inner.read("soak", parse_duration, 0.0),
            approval=inner.read("approval", choice("required", "none"), "none") == "required",
        )
        if stage.share == 0:
            devices.fault("a stage of 0 percent changes nothing", "percent")
        if stages and stage.share <= stages[-1].share:
            inner.fault("percentages count all devices up to a stage, so each must be above the one before")
        devices.close()
        inner.close()
        stages.append(stage)
    return tuple(stages)


def _read_gates(reader: Reader) -> Gates:
    gates = reader.child("gates")
    if gates is None:
        return Gates()
    for name, why in {
        "latency": "judging latency is not supported yet: leave this gate out",
    }.items():
        gates.refuse(name, why)
    read = Gates(
        install=_read_install(gates.child("install")),
        errors=_read_errors(gates.child("errors")),
        output=_read_output(gates.child("output")),
        accuracy=_read_accuracy(gates.child("accuracy")),
    )
    rule = gates.child("input")
    if rule is not None:
        rule.require("drift_vs", choice("reference"), "reference")
        rule.require("on", choice("alert"), "alert")
        rule.close()
    gates.close()
    return read


def _read_install(gate: Reader | None) -> InstallGate:
    if gate is None:
        return InstallGate()
    read = InstallGate(
        failed=gate.read("failed", parse_bound, InstallGate.failed),
        lost=gate.read("lost", parse_bound, InstallGate.lost),
        min_devices=gate.read("min_devices", count(1), None),
    )
    gate.close()
    return read


def _read_errors(gate: Reader | None) -> ErrorsGate | None:
    if gate is None:
        return None
    gate.require("vs", choice("control"), "control")
    read = ErrorsGate(
        increase=gate.require("increase", parse_bound, 0.0),
        min_devices=gate.read("min_devices", count(1), None),
        min_predictions=gate.read("min_predictions", count(1), ErrorsGate.min_predictions),
    )
    gate.close()
    return read


def _read_output(gate: Reader | None) -> OutputGate | None:
    if gate is None:
        return None
    gate.require("drift_vs", choice("control"), "control")
    gate.read("level", choice("alarm"), "alarm")
    read = OutputGate(
        tolerance=gate.read("tolerance", number(0, 1), DEFAULT_TOLERANCE),
        min_devices=gate.read("min_devices", count(1), None),
        min_predictions=gate.read("min_predictions", count(1), OutputGate.min_predictions),
    )
    gate.close()
    return read


def _read_accuracy(gate: Reader | None) -> AccuracyGate | None:
    if gate is None:
        return None
    read = AccuracyGate(
        estimated=gate.read("estimated", parse_floor, None),
        feedback=gate.read("feedback", parse_floor, None),
        min_devices=gate.read("min_devices", count(1), None),
        min_predictions=gate.read("min_predictions", count(1), AccuracyGate.min_predictions),
        min_labels=gate.read("min_labels", count(1), AccuracyGate.min_labels),
    )
    if not (gate.has("estimated") or gate.has("feedback")):
        gate.fault("asks for nothing: give estimated, feedback or both, for example estimated: '>= 0.93'")
    gate.close()
    return read


def _read_rate(reader: Reader) -> Rate:
    rate = reader.child("rate")
    if rate is None:
        return Rate()
    read = Rate(
        per_minute=rate.read("per_minute", count(1), None),
        in_flight=rate.read("in_flight", count(1), None),
        growth=rate.read("growth", number(1, 100), 1.0),
    )
    rate.close()
    return read


def _read_override(reader: Reader) -> str:
    override = reader.child("override")
    if override is None:
        return ""
    reason = override.require("denied", _reason, "")
    override.close()
    return reason


def _strategy(value: object) -> str:
    if value in ("ab", "shadow"):
        raise ValueError(f"the strategy {value} is not supported yet: use canary")
    return choice("canary")(value)


def _bundle(value: object) -> str:
    if isinstance(value, str):
        return str(parse_ref(value))
    raise ValueError(f"expected a reference such as name:1.4.0, got {value!r:.60}")


def _cohort(value: object) -> str:
    if isinstance(value, str):
        return parse_cohort(value).text
    raise ValueError(f"expected a query such as 'site = bern' or 'all', got {value!r:.60}")


def _windows(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected a list of windows such as ['Mon-Fri 22:00-04:00']")
    return tuple(map(str, parse_windows("; ".join(texts))))


def _reason(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError("expected the reason why the denial is lifted, in words")
