"""`/api/v1/contracts`: the rules of the bundles that run, and how often they were broken, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shoal_server.access.guard import Program, Viewer
from shoal_server.contracts.report import gather

router = APIRouter(prefix="/api/v1/contracts", tags=["contracts"])


@router.get("", operation_id="contracts_show")
def show(
    program: Program,
    _principal: Viewer,
    *,
    slot: str | None = None,
    hours: Annotated[float, Query(gt=0, le=168, description="Length of the span until now, hours.")] = 1.0,
) -> dict[str, Any]:
    """Show each rule of each bundle that ran in a span of time: rows checked, rows that broke it, by whom."""
    end_ms = round(1000 * program.clock()) + 1
    with program.database.read() as session:
        found = gather(
            session, program.bundles.schema, start_ms=end_ms - round(3_600_000 * hours), end_ms=end_ms, slot=slot
        )
    return {
        "hours": hours,
        "items": [
            {"slot": one.slot, "digest": one.digest, "rules": [state.as_json() for state in one.rules]} for one in found
        ],
    }
