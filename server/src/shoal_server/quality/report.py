"""The quality of the models of a slot over a span of time: truth, estimate, label shift, hours and segments.

Owns which rows are put together: only those of accepted devices, of a cohort where one is asked for. The figures are
`truth`'s and `estimates`'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.labels import ErrorSums, label_classes
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.states import current
from shoal_server.errors import NotFoundError
from shoal_server.fleet import store as fleet
from shoal_server.fleet.cohort import Cohort
from shoal_server.fleet.devices import DeviceState
from shoal_server.quality import estimates, store
from shoal_server.quality.outputs import OutputLayout
from shoal_server.quality.truth import MIN_LABELS, Cell, Truth, segments_json, truth_json
from shoal_server.quality.watch import summed
from shoal_server.registry.store import version_of_digest
from shoal_server.telemetry.labels import label_cells, label_errors
from shoal_server.timestamps import rfc3339

NO_VALUE = "(none)"
"""The segment of devices without the label that segments are made by."""


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """What bundles say of themselves, by digest; both raise `NotFoundError` for a digest that nobody pushed."""

    reference: Callable[[str], Reference | None]
    schema: Callable[[str], ModelSchema]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        slot: Whose models.
        start_ms, end_ms: Hours of the predictions that begin in [start, end).
        digest: Only this bundle.
        cohort: Only these devices.
        segment_by: Label or fact of devices, such as ``site``; empty: no segments.
    """

    slot: str
    start_ms: int
    end_ms: int
    digest: str | None = None
    cohort: Cohort | None = None
    segment_by: str = ""


@dataclass
class Gathered:
    """Rows of one bundle, as they came from the stores."""

    said: list[store.SaidHour] = field(default_factory=list)
    cells: list[tuple[int, Cell]] = field(default_factory=list)
    errors: list[tuple[int, str, ErrorSums]] = field(default_factory=list)

    def truth(self) -> Truth:
        """Return all labels."""
        return Truth.of((cell for _, cell in self.cells), ((device, sums) for _, device, sums in self.errors))


def quality_of(session: Session, asked: Question, bundles: Bundles) -> list[dict[str, Any]]:
    """Answer for every bundle that predicted, or whose predictions were labelled, in the span."""
    facts = facts_of(session, asked.cohort)
    drifting = _drifting(session, asked.slot)
    answers = []
    for digest, gathered in gather(session, asked, facts).items():
        name = version_of_digest(session, digest)
        answers.append(
            {
                "slot": asked.slot,
                "digest": digest,
                "bundle": None if name is None else f"{name.model}:{name.version}",
                "from": rfc3339(asked.start_ms / 1000),
                "until": rfc3339(asked.end_ms / 1000),
                **_answer(digest, gathered, bundles, facts=facts, segment_by=asked.segment_by),
                "drifting": drifting.get(digest, []),
            }
        )
    return answers


def facts_of(session: Session, cohort: Cohort | None) -> dict[str, dict[str, str]]:
    """Return labels and facts of the devices that count."""
    found = fleet.devices(session, cohort=cohort)
    return {device.id: device.cohort_facts() for device in found if device.state is DeviceState.ACCEPTED}


def gather(session: Session, asked: Question, devices: Mapping[str, object]) -> dict[str, Gathered]:
    """Return what was said and what was true, by bundle."""
    found: dict[str, Gathered] = defaultdict(Gathered)
    for one in store.said_hours(
        session, slot=asked.slot, start_ms=asked.start_ms, end_ms=asked.end_ms, digest=asked.digest
    ):
        if one.device in devices:
            found[one.digest].said.append(one)
    span = {"slot": asked.slot, "start_ms": asked.start_ms, "end_ms": asked.end_ms, "digest": asked.digest}
    for digest, device, hour, true, said, cell, n in label_cells(session, **span):  # type: ignore[arg-type]  # mixed
        if device in devices:
            found[digest].cells.append((hour, (device, true, said, cell, n)))
    for digest, device, hour, sums in label_errors(session, **span):  # type: ignore[arg-type]  # likewise
        if device in devices:
            found[digest].errors.append((hour, device, sums))
    return found


def _answer(
    digest: str, gathered: Gathered, bundles: Bundles, *, facts: Mapping[str, Mapping[str, str]], segment_by: str
) -> dict[str, Any]:
    reference, classes = _known(digest, bundles)
    layout = OutputLayout(reference.spec) if reference is not None else None
    truth = gathered.truth()
    answer: dict[str, Any] = {
        "predictions": sum(one.n for one in gathered.said),
        "reference": {"accuracy": estimates.reference_accuracy(reference), **_regression_reference(reference)},
        "truth": truth_json(truth, classes),
        "estimate": {"verdict": "cant_tell", "reason": "can't tell: no reference in the bundle"},
        "label_shift": {"verdict": "cant_tell", "reason": "can't tell: no reference in the bundle"},
        "hours": _hours(gathered, reference, layout),
    }
    if layout is not None:
        said = summed(gathered.said, layout)
        answer["estimate"] = estimates.estimate_json(reference, said)
        answer["label_shift"] = estimates.label_shift_json(reference, said)
    if segment_by:
        answer["segments"] = {"by": segment_by, **_segments(gathered, facts, segment_by)}
    return answer


def _known(digest: str, bundles: Bundles) -> tuple[Reference | None, Sequence[str]]:
    try:
        reference = bundles.reference(digest)
        return reference, label_classes(bundles.schema(digest), None if reference is None else reference.spec)
    except (NotFoundError, ContentError, OSError):
        return None, ()


def _regression_reference(reference: Reference | None) -> dict[str, float]:
    quality = None if reference is None else reference.quality
    if quality is None or quality.error_std is None:
        return {}
    bias = quality.error_mean or 0.0
    return {"bias": bias, "rmse": round((quality.error_std**2 + bias**2) ** 0.5, 6)}


def _hours(gathered: Gathered, reference: Reference | None, layout: OutputLayout | None) -> list[dict[str, Any]]:
    """Return accuracy by the hour, as the labels and as the confidences have it; none where there is too little."""
    said: dict[int, list[store.SaidHour]] = defaultdict(list)
    for one in gathered.said:
        said[one.hour_ms].append(one)
    cells: dict[int, list[Cell]] = defaultdict(list)
    for hour, cell in gathered.cells:
        cells[hour].append(cell)
    errors: dict[int, list[tuple[str, ErrorSums]]] = defaultdict(list)
    for hour, device, sums in gathered.errors:
        errors[hour].append((device, sums))
    hours = []
    for hour in sorted({*said, *cells, *errors}):
        truth = Truth.of(cells[hour], errors[hour])
        entry: dict[str, Any] = {
            "at": rfc3339(hour / 1000),
            "predictions": sum(one.n for one in said[hour]),
            "labels": truth.n,
            "truth": truth.accuracy().as_json() if truth.rows and truth.n >= MIN_LABELS else None,
            "estimate": None,
        }
        if layout is not None and said[hour]:
            with suppress(estimates.NoEstimateError):
                entry["estimate"] = estimates.accuracy(reference, summed(said[hour], layout)).as_json()
        hours.append(entry)
    return hours


def _segments(gathered: Gathered, facts: Mapping[str, Mapping[str, str]], by: str) -> dict[str, Any]:
    cells: dict[str, list[Cell]] = defaultdict(list)
    errors: dict[str, list[tuple[str, ErrorSums]]] = defaultdict(list)
    for _, cell in gathered.cells:
        cells[facts[cell[0]].get(by) or NO_VALUE].append(cell)
    for _, device, sums in gathered.errors:
        errors[facts[device].get(by) or NO_VALUE].append((device, sums))
    return segments_json({name: Truth.of(cells[name], errors[name]) for name in {*cells, *errors}})


def _drifting(session: Session, slot: str) -> dict[str, list[str]]:
    """Return the streams that drift in the fleet, by bundle: an estimate says little where its inputs are new."""
    found: dict[str, list[str]] = defaultdict(list)
    for state in current(session, slot, scope=None):
        if state.verdict == "drift" and state.feature not in found[state.digest]:
            found[state.digest].append(state.feature)
    return found
