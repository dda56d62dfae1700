"""Whether the program lives, whether it can do its work, what it measures, which version it is."""

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shoal_server.access.guard import Program, RequireViewerOrLocal
from shoal_server.access.roles import Principal
from shoal_server.registry import trust_status
from shoal_server.services import Services

_log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

PUBLIC = (("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/version"))
"""Routes that need no credentials."""


class _NotReadyError(Exception):
    """A part can't do its work now."""


@router.get("/healthz", operation_id="health_live")
def healthz() -> dict[str, Any]:
    """Answer while the process lives at all."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="health_ready")
def readyz(program: Program) -> JSONResponse:
    """Say of each part whether it can do its work; 503 when one can't."""
    parts = {name: _state(name, check, program) for name, check in CHECKS.items()}
    ready = all(state == "ok" for state in parts.values())
    soon = {"warnings": found} if (found := _warnings(program)) else {}
    return JSONResponse({"status": "ok" if ready else "unavailable", **parts, **soon}, 200 if ready else 503)


@router.get("/metrics", operation_id="health_metrics")
def metrics(program: Program, _principal: Annotated[Principal | None, Depends(RequireViewerOrLocal())]) -> Response:
    """Return all metrics in Prometheus' text form."""
    return Response(generate_latest(program.metrics), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", operation_id="health_version")
def show_version(program: Program) -> dict[str, Any]:
    """Name the version, and who holds the signing keys."""
    return {"name": "shoal-server", "version": version("shoal-server"), "trust": program.trust.mode.value}


def _warnings(program: Services) -> list[str]:
    """Return what will need somebody soon; a part that can't say is told by its own check."""
    try:
        return trust_status.warnings(program.trust, now=program.clock())
    except Exception:  # noqa: BLE001 - advice must not cost the answer
        _log.warning("the trust can't be looked at", exc_info=True)
        return []


def _check_broker(program: Services) -> None:
    if not program.link.connected:
        raise _NotReadyError("not connected")


def _check_ingest(program: Services) -> None:
    status = program.ingest.status()
    if not status.ready:
        raise _NotReadyError(status.reason)


CHECKS: dict[str, Callable[[Services], None]] = {
    "database": lambda program: program.database.check(),
    "broker": _check_broker,
    "storage": lambda program: program.blobs.check(),
    "ingest": _check_ingest,
}


def _state(name: str, check: Callable[[Services], None], program: Services) -> str:
    try:
        check(program)
    except _NotReadyError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the part is not ready
        _log.warning("not ready: %s", name, exc_info=error)
        return f"failed ({type(error).__name__})"  # details are for the log: they may name hosts and paths
    return "ok"
