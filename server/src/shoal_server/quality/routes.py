"""`/api/v1/quality`: how good the answers of a slot's models are, and two bundles compared, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_server.access.guard import Program, Viewer
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.quality.comparison import compare
from shoal_server.quality.report import Bundles, Question, facts_of, gather, quality_of
from shoal_server.registry.store import resolve
from shoal_server.services import Services
from shoal_server.telemetry.rollup import HOUR_MS

router = APIRouter(prefix="/api/v1/quality", tags=["quality"])

DEFAULT_HOURS = 168
MAX_HOURS = 24 * 92

Hours = Annotated[int, Query(ge=1, le=MAX_HOURS, description="Length of the span, hours.")]
Until = Annotated[datetime | None, Query(description="End of the span; left out: now.")]


@router.get("", operation_id="quality_show")
def show(
    program: Program,
    _principal: Viewer,
    *,
    slot: str,
    model: Annotated[str | None, Query(description="Only this bundle, such as name:1.4.0.")] = None,
    cohort: str | None = None,
    segment_by: Annotated[str, Query(max_length=64, description="A label or fact of devices, such as site.")] = "",
    hours: Hours = DEFAULT_HOURS,
    until: Until = None,
) -> dict[str, Any]:
    """Show truth, estimate, label shift, hours and segments of each bundle that a slot ran in a span of time."""
    with program.database.read() as session:
        start_ms, end_ms = _span(program, hours, until)
        asked = Question(
            slot=slot,
            start_ms=start_ms,
            end_ms=end_ms,
            digest=None if model is None else _digest(session, model),
            cohort=None if cohort is None else parse_cohort(cohort),
            segment_by=segment_by,
        )
        return {"items": quality_of(session, asked, bundles_of(program))}


@router.get("/comparison", operation_id="quality_compare")
def show_comparison(
    program: Program,
    _principal: Viewer,
    *,
    slot: str,
    a: Annotated[str, Query(description="A bundle, such as name:1.4.0.")],
    b: Annotated[str, Query(description="Another bundle.")],
    cohort: str | None = None,
    hours: Hours = DEFAULT_HOURS,
    until: Until = None,
) -> dict[str, Any]:
    """Compare two bundles on true labels and on their outputs; may be looked at as often as one likes."""
    with program.database.read() as session:
        start_ms, end_ms = _span(program, hours, until)
        within = None if cohort is None else parse_cohort(cohort)
        asked = Question(slot=slot, start_ms=start_ms, end_ms=end_ms, cohort=within)
        found = gather(session, asked, facts_of(session, asked.cohort))
        digests = [_digest(session, a), _digest(session, b)]
        return {"slot": slot, "a": a, "b": b, **compare(found, digests[0], digests[1], bundles_of(program))}


def bundles_of(program: Services) -> Bundles:
    """Return the program's bundles as the report takes them."""
    return Bundles(reference=program.reference, schema=program.bundles.schema)


def _digest(session: Session, text: str) -> str:
    return text if text.startswith("sha256:") else resolve(session, text).digest


def _span(program: Services, hours: int, until: datetime | None) -> tuple[int, int]:
    if until is not None and until.tzinfo is None:
        raise CallerError("expected a time with its zone, such as 2026-12-01T22:00:00Z")
    now_ms = round((program.clock() if until is None else until.timestamp()) * 1000)
    end_ms = -(-now_ms // HOUR_MS) * HOUR_MS
    return end_ms - hours * HOUR_MS, end_ms
