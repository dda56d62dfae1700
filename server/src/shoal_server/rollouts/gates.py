"""The gates: checks that a stage must pass, each with its value, bound, threshold and denominators.

Owns the rule by which numbers become PASS, FAIL or INCONCLUSIVE. Leaves the counting to `outcomes`, the measuring of
differences to `errors_rate` and `drift.compare`, and what follows from an answer to `controller`.

Invariants: empty data never passes; FAIL needs proof (the 95 % bound nearest to passing is still beyond the threshold);
devices that are silent, offline or not yet done are in no denominator that they could dilute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from scipy.special import betaincinv

from shoal_server.rollouts.plan import AccuracyGate, ErrorsGate, Gates, InstallGate, OutputGate

CONFIDENCE = 0.95
DEFAULT_MIN_DEVICES = 3
MIN_EVIDENCE_SHARE = 0.5
"""Of a stage's healthy devices that must have sent evidence, so that a few can't speak for all."""


class Verdict(StrEnum):
    """What a gate answers."""

    PASS = "pass"  # noqa: S105 - enough evidence, within the threshold
    FAIL = "fail"  # proven beyond the threshold
    INCONCLUSIVE = "inconclusive"  # not enough evidence, or beyond the threshold without proof


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The denominators of one stage, in devices.

    Attributes:
        eligible: Accepted members that may be changed.
        offered: Of them, those whose assignment names the bundle.
        reported: Of them, those with an outcome: healthy + failed + lost.
        healthy: Run the bundle, their trial passed.
        failed: Refused the bundle or took it back.
        lost: Took the offer, then fell silent.
        working: Offered, on their way.
        queued: Online, not yet offered.
        out_of_reach: Offline before the offer, or silent without having taken it.
    """

    eligible: int = 0
    offered: int = 0
    reported: int = 0
    healthy: int = 0
    failed: int = 0
    lost: int = 0
    working: int = 0
    queued: int = 0
    out_of_reach: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A measured difference between canary and control.

    Attributes:
        value: The estimate; NaN: nothing could be compared.
        low, high: One-sided 95 % bounds; None: too few devices for one.
        n: Predictions of the canary devices.
        devices: Canary devices with evidence.
        against: What it was compared with, in words.
        detail: Where it was largest, or why nothing could be compared, in words.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    devices: int
    against: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A measured accuracy of the canary devices.

    Attributes:
        value: The accuracy; NaN: nothing could be measured.
        low, high: One-sided 95 % bounds.
        n: Predictions, or labels.
        devices: Canary devices with evidence.
        detail: What it rests on, or why nothing could be measured, in words.
    """

    value: float
    low: float = 0.0
    high: float = 1.0
    n: int = 0
    devices: int = 0
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the telemetry says of a stage; None: nothing yet."""

    errors: Difference | None = None
    output: Difference | None = None
    estimated: Level | None = None
    feedback: Level | None = None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate's answer.

    Attributes:
        value: What was measured; None: nothing yet.
        bound: The 95 % bound nearest to passing.
        threshold: What the value may be at most; of accuracy: must be at least.
        n: Predictions, labels, or devices where the gate counts devices.
        devices: With evidence.
        reason: In words, for people.
    """

    gate: str
    verdict: Verdict
    value: float | None
    bound: float | None
    threshold: float
    n: int
    devices: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields, with the verdict as text."""
        return {**asdict(self), "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> GateResult:
        """Return what `as_json` wrote."""
        return cls(**{**stored, "verdict": Verdict(stored["verdict"])})


def judge(
    gates: Gates, counts: Counts, evidence: Evidence, *, soak_over: bool, causes: str = ""
) -> tuple[GateResult, ...]:
    """Answer every gate of a plan for one stage.

    Args:
        gates: Of the plan.
        counts: Of the stage's devices.
        evidence: Of the stage's telemetry.
        soak_over: Whether the soak's time has passed; nothing passes before.
        causes: Why devices failed, as they say.
    """
    results = [*judge_install(gates.install, counts, soak_over=soak_over, causes=causes)]
    for name, gate, measured in (("errors", gates.errors, evidence.errors), ("output", gates.output, evidence.output)):
        if gate is not None:
            results.append(_judge_difference(name, gate, measured, counts, soak_over=soak_over))
    accuracy = gates.accuracy
    if accuracy is not None and accuracy.estimated is not None:
        results.append(
            _judge_level(
                "accuracy_estimated",
                accuracy.estimated,
                evidence.estimated,
                needed=(_needed_devices(accuracy, counts), accuracy.min_predictions, "predictions"),
                soak_over=soak_over,
            )
        )
    if accuracy is not None and accuracy.feedback is not None:
        results.append(
            _judge_level(
                "accuracy_feedback",
                accuracy.feedback,
                evidence.feedback,
                needed=(_needed_devices(accuracy, counts), accuracy.min_labels, "labels"),
                soak_over=soak_over,
            )
        )
    return tuple(results)


def judge_install(
    gate: InstallGate, counts: Counts, *, soak_over: bool, causes: str = ""
) -> tuple[GateResult, GateResult]:
    """Answer the install gate: one result for failed devices, one for lost ones.

    Lost devices are not among those that the failed share is taken of, they would dilute it.
    """
    needed = _needed(gate.min_devices, counts.eligible)
    done = counts.healthy + counts.failed
    failed = _judge_share("install", counts.failed, n=done, threshold=gate.failed, needed=needed, soak_over=soak_over)
    return (
        replace(failed, reason=f"{failed.reason}; {causes}") if causes and counts.failed else failed,
        _judge_share("lost", counts.lost, n=counts.reported, threshold=gate.lost, needed=needed, soak_over=soak_over),
    )


def share_bounds(hits: int, n: int) -> tuple[float, float]:
    """Return the one-sided 95 % Clopper–Pearson bounds, low and high, of a share.

    Source: Clopper and Pearson, Biometrika 26 (1934), by the beta distribution's quantiles.
    """
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, 1 - CONFIDENCE))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, CONFIDENCE))
    return low, high


def _decide(
    *,
    value: float,
    low: float | None,
    high: float | None,
    threshold: float,
    missing: str,
    soak_over: bool,
    show: Callable[[float], str] = "{:.1%}".format,
    beyond: str = "above",
) -> tuple[Verdict, str]:
    """Apply the one rule that all gates share.

    Args:
        value: The estimate.
        low: Its lower one-sided 95 % bound; None: too few devices for one.
        high: Its upper one-sided 95 % bound, likewise.
        threshold: What the value may be at most.
        missing: Which minimum is not met, in words; empty: none.
        soak_over: Whether the gate may pass at all.
        show: Writes a value; as percent unless told otherwise.
        beyond: On which side of the threshold failure lies, as people read it.
    """
    shown = f"{show(value)} (threshold {show(threshold)})"
    if low is not None and low > threshold:
        return Verdict.FAIL, f"{shown}, with 95 % confidence {beyond} {show(low)}"
    if missing:
        return Verdict.INCONCLUSIVE, missing
    if value > threshold:
        return Verdict.INCONCLUSIVE, f"{shown}: beyond the threshold, not yet proven"
    if not soak_over:
        return Verdict.INCONCLUSIVE, f"{shown}: within the threshold, the soak is not over"
    if high is None or high > threshold:
        return Verdict.PASS, f"{shown}: passed on few devices"
    return Verdict.PASS, shown


def _nothing_yet(gate: str, threshold: float, reason: str) -> GateResult:
    return GateResult(
        gate=gate,
        verdict=Verdict.INCONCLUSIVE,
        value=None,
        bound=None,
        threshold=threshold,
        n=0,
        devices=0,
        reason=reason,
    )


def _judge_share(gate: str, hits: int, *, n: int, threshold: float, needed: int, soak_over: bool) -> GateResult:
    if n == 0:
        return _nothing_yet(gate, threshold, "no device has an outcome yet")
    low, high = share_bounds(hits, n)
    verdict, reason = _decide(
        value=hits / n,
        low=low,
        high=high,
        threshold=threshold,
        missing="" if n >= needed else f"{n} of the {needed} devices that are needed have an outcome",
        soak_over=soak_over,
    )
    return GateResult(
        gate=gate,
        verdict=verdict,
        value=hits / n,
        bound=low,
        threshold=threshold,
        n=n,
        devices=n,
        reason=f"{hits} of {n} devices: {reason}",
    )


def _judge_difference(
    name: str, gate: ErrorsGate | OutputGate, measured: Difference | None, counts: Counts, *, soak_over: bool
) -> GateResult:
    threshold = gate.increase if isinstance(gate, ErrorsGate) else gate.tolerance
    if measured is None or measured.n == 0 or not math.isfinite(measured.value):
        why = "no predictions of the bundle can be compared yet"
        return _nothing_yet(name, threshold, why if measured is None or not measured.detail else measured.detail)
    verdict, reason = _decide(
        value=measured.value,
        low=measured.low,
        high=measured.high,
        threshold=threshold,
        missing=_missing(gate, measured, counts),
        soak_over=soak_over,
        show="{:.1%}".format if isinstance(gate, ErrorsGate) else "{:.3g}".format,
    )
    parts = (reason, f"against {measured.against}" if measured.against else "", measured.detail)
    return GateResult(
        gate=name,
        verdict=verdict,
        value=measured.value,
        bound=measured.low,
        threshold=threshold,
        n=measured.n,
        devices=measured.devices,
        reason="; ".join(part for part in parts if part),
    )


def _judge_level(
    name: str, threshold: float, measured: Level | None, *, needed: tuple[int, int, str], soak_over: bool
) -> GateResult:
    """Answer a gate of which the value must be high: judged by what is missing to 1, told as it is."""
    if measured is None or not measured.n or not math.isfinite(measured.value):
        why = "no predictions of the bundle yet" if measured is None or not measured.detail else measured.detail
        return _nothing_yet(name, threshold, why)
    devices, rows, what = needed
    verdict, reason = _decide(
        value=1 - measured.value,
        low=1 - measured.high,
        high=1 - measured.low,
        threshold=1 - threshold,
        missing=_short_of(measured, devices=devices, rows=rows, what=what),
        soak_over=soak_over,
        show=lambda lack: f"{1 - lack:.1%}",
        beyond="below",
    )
    return GateResult(
        gate=name,
        verdict=verdict,
        value=measured.value,
        bound=measured.high,
        threshold=threshold,
        n=measured.n,
        devices=measured.devices,
        reason="; ".join(part for part in (reason, measured.detail) if part),
    )


def _missing(gate: ErrorsGate | OutputGate, measured: Difference, counts: Counts) -> str:
    return _short_of(measured, devices=_needed_devices(gate, counts), rows=gate.min_predictions, what="predictions")


def _short_of(measured: Difference | Level, *, devices: int, rows: int, what: str) -> str:
    if measured.devices < devices:
        return f"{measured.devices} of the {devices} devices that are needed have sent evidence"
    if measured.n < rows:
        return f"{measured.n} of the {rows} {what} that are needed"
    return ""


def _needed_devices(gate: ErrorsGate | OutputGate | AccuracyGate, counts: Counts) -> int:
    return max(_needed(gate.min_devices, counts.eligible), math.ceil(MIN_EVIDENCE_SHARE * counts.healthy))


def _needed(min_devices: int | None, eligible: int) -> int:
    return min_devices if min_devices is not None else max(1, min(DEFAULT_MIN_DEVICES, eligible))
