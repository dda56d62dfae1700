"""When a model's quality is an alert: truth or estimate over the last day, surely below the reference by an amount.

Owns the rule and the words. It is asked once an hour, with bounds at one in ten thousand, so that a model that is as
good as its reference less the amount alarms about once in ten thousand hours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from scipy.special import ndtri
from sqlmodel import Session

from shoal_protocol.profile.reference import Reference
from shoal_server.alerts import store as alerts
from shoal_server.quality import estimates, store
from shoal_server.quality.outputs import OutputLayout, Outputs
from shoal_server.quality.truth import Truth
from shoal_server.statistics.proportions import CONFIDENCE, Estimate
from shoal_server.telemetry.labels import label_cells, label_errors
from shoal_server.telemetry.rollup import HOUR_MS

DAY_MS = 24 * HOUR_MS
KIND = "quality"

Known: TypeAlias = Callable[[str], tuple[Reference, OutputLayout] | None]


@dataclass(frozen=True)
class Rules:
    """What is alarming.

    Attributes:
        drop: Accuracy may fall so far below the reference's.
        rmse_ratio: A regression's RMSE may be so many times the reference's.
        confidence: Of the bounds that must be beyond.
        min_labels: Labels, or predictions for the estimate, below which nothing is told.
    """

    drop: float = 0.05
    rmse_ratio: float = 1.25
    confidence: float = 0.9998
    min_labels: int = 200


RULES = Rules()


def watch_hour(
    session: Session, *, end_ms: int, known: Known, accepted: Collection[str], now: float, rules: Rules = RULES
) -> None:
    """Raise and resolve the alerts of every bundle that predicted in the day before an hour.

    Args:
        session: Of `Database.write()`.
        end_ms: End of the day that is judged.
        known: Bundle digest -> its reference and the layout of its outputs, None when it has none.
        accepted: Devices that count.
        now: Seconds since the epoch.
        rules: What is alarming.
    """
    start_ms = end_ms - DAY_MS
    for slot, digest in store.used(session, start_ms=start_ms):
        found = known(digest)
        if found is None:
            continue
        reference, layout = found
        span = {"slot": slot, "start_ms": start_ms, "end_ms": end_ms, "digest": digest}
        cells = [row for row in label_cells(session, **span) if row[1] in accepted]  # type: ignore[arg-type]  # mixed values
        errors = [row for row in label_errors(session, **span) if row[1] in accepted]  # type: ignore[arg-type]  # likewise
        truth = Truth.of(((row[1], *row[3:]) for row in cells), ((row[1], row[3]) for row in errors))
        said = summed([one for one in store.said_hours(session, **span) if one.device in accepted], layout)  # type: ignore[arg-type]  # likewise
        about = _About(session, slot, digest, now)
        _settle(about, "truth", truth_fault(truth, reference, rules))
        # the truth, where there is enough of it, replaces the estimate
        _settle(about, "estimate", "" if truth.n >= rules.min_labels else estimate_fault(said, reference, rules))


def summed(hours: Collection[store.SaidHour], layout: OutputLayout) -> Outputs:
    """Return what was said in all these hours together."""
    fitting = [one for one in hours if len(one.cells) == len(layout.cells)]
    cells = layout.cells * 0
    for one in fitting:
        cells = cells + one.cells
    return layout.read(sum(one.n for one in fitting), cells)


def truth_fault(truth: Truth, reference: Reference, rules: Rules) -> str:
    """Say what is wrong by the labels; empty: nothing, or too few to say."""
    if truth.n < rules.min_labels:
        return ""
    if truth.errors:
        return _error_fault(truth, reference, rules)
    usual = estimates.reference_accuracy(reference)
    found = truth.accuracy(confidence=rules.confidence, cap=2.0)
    if usual is None or found.high >= usual - rules.drop:
        return ""
    return (
        f"By {found.n} true labels from {found.devices} devices its accuracy over the last day is {found.value:.1%} "
        f"(surely below {found.high:.1%}); on its reference it was {usual:.1%}, {rules.drop:.0%} less is allowed."
    )


def _error_fault(truth: Truth, reference: Reference, rules: Rules) -> str:
    quality = reference.quality
    if quality is None or quality.error_std is None:
        return ""
    usual = quality.error_std**2 + (quality.error_mean or 0.0) ** 2
    found = truth.squared_error(confidence=rules.confidence)
    if not usual or found.devices < 2 or found.low <= usual * rules.rmse_ratio**2:
        return ""
    return (
        f"By {found.n} true values from {found.devices} devices its RMSE over the last day is {found.value**0.5:.4g} "
        f"(surely above {found.low**0.5:.4g}); on its reference it was {usual**0.5:.4g}, {rules.rmse_ratio:g} times "
        "that is allowed."
    )


def estimate_fault(said: Outputs, reference: Reference, rules: Rules) -> str:
    """Say what is wrong by the confidences; empty: nothing, or it can't be told."""
    usual = estimates.reference_accuracy(reference)
    if usual is None or said.n < rules.min_labels:
        return ""
    try:
        found = estimates.accuracy(reference, said)
    except estimates.NoEstimateError:
        return ""
    if _wider(found, rules.confidence) >= usual - rules.drop:
        return ""
    return (
        f"By its confidences, without labels, its accuracy over the last day is estimated at {found.value:.1%} from "
        f"{found.n} predictions; on its reference it was {usual:.1%}, {rules.drop:.0%} less is allowed. The estimate "
        "supposes that only the mix of inputs changed: look at the drift, and send true labels back."
    )


def _wider(found: Estimate, confidence: float) -> float:
    """Return the upper bound of an estimate at another confidence."""
    return found.value + (found.high - found.value) * float(ndtri(0.5 + confidence / 2) / ndtri(0.5 + CONFIDENCE / 2))


@dataclass(frozen=True)
class _About:
    session: Session
    slot: str
    digest: str
    now: float


def _settle(about: _About, source: str, fault: str) -> None:
    key = f"{KIND}:{about.slot}:{about.digest}:{source}"
    if not fault:
        alerts.resolve_alert(about.session, key, now=about.now)
        return
    how = "answers worse than its reference" if source == "truth" else "probably answers worse than its reference"
    alerts.raise_alert(
        about.session,
        kind=KIND,
        subject=f"slot:{about.slot}",
        title=f"The model in slot {about.slot} {how}",
        body=f"{fault}\nBundle {about.digest}. See: shoalctl quality show {about.slot}",
        severity="critical" if source == "truth" else "warning",
        key=key,
        now=about.now,
    )
