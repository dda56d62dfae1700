"""Pages of what happened: the audit of every change."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from shoal_server.access import audit
from shoal_server.access.guard import Program, Viewer
from shoal_server.web.site import PageRoute, address, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_PAGE = 50


@router.get("/audit", response_class=HTMLResponse)
def show_audit(
    request: Request,
    program: Program,
    _principal: Viewer,
    subject: Annotated[str, Query(max_length=300)] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
    verify: Annotated[str, Query(max_length=3)] = "",
) -> Response:
    """List changes, the newest first; on demand, recompute the chain of hashes."""
    with program.database.read() as session:
        rows = audit.rows(session, before_id=before, subject=subject or None, limit=_PAGE + 1)
        last = audit.head(session)
        broken_at = audit.first_break(session) if verify else None
    more = len(rows) > _PAGE
    return page(
        request,
        "audit.html",
        rows=rows[:_PAGE],
        subject=subject,
        head=last,
        verified=bool(verify),
        broken_at=broken_at,
        next_url=address("/audit", subject=subject, before=rows[_PAGE - 1].id) if more else "",
        first_url=address("/audit", subject=subject) if before else "",
    )
