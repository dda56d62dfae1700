"""The page about the HTTP API, drawn from the program's own OpenAPI document, and that document.

FastAPI's own pages load their scripts from elsewhere; this one works without a network and without scripts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response

from shoal_server.access.guard import Viewer, endpoints
from shoal_server.web.site import PageRoute, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class Operation:
    """One thing that the API does."""

    method: str
    path: str
    name: str
    summary: str
    needs: str
    parameters: list[dict[str, Any]]
    body: str


@router.get("/docs", response_class=HTMLResponse)
def show_api(request: Request, _principal: Viewer) -> Response:
    """List what the API does, group by group."""
    app: FastAPI = request.app
    return page(request, "api.html", groups=operations(document(app), needs(app)))


@router.get("/openapi.json")
def show_document(request: Request, _principal: Viewer) -> JSONResponse:
    """Return the OpenAPI document, for generators of clients."""
    return JSONResponse(document(request.app))


@lru_cache(maxsize=4)
def document(app: FastAPI) -> dict[str, Any]:
    """Make the OpenAPI document of a program; its routes don't change once it runs."""
    return get_openapi(
        title="Shoal", version="1", description="Fleet, models, rollouts and drift over HTTP.", routes=app.routes
    )


def needs(app: FastAPI) -> dict[tuple[str, str], str]:
    """Return who may call each route, by method and path."""
    return {(found.method, found.path): found.guard.label if found.guard else "everybody" for found in endpoints(app)}


def operations(openapi: dict[str, Any], roles: dict[tuple[str, str], str]) -> dict[str, list[Operation]]:
    """Group a document's operations by their first tag."""
    groups: dict[str, list[Operation]] = defaultdict(list)
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            tag = next(iter(operation.get("tags", [])), "other")
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            groups[tag].append(
                Operation(
                    method=method.upper(),
                    path=path,
                    name=operation.get("operationId", ""),
                    summary=operation.get("description") or operation.get("summary", ""),
                    needs=roles.get((method.upper(), path), ""),
                    parameters=operation.get("parameters", []),
                    body=_fields(openapi, schema),
                )
            )
    return dict(sorted(groups.items()))


def _fields(openapi: dict[str, Any], schema: dict[str, Any]) -> str:
    """Name a body's fields; those that may be left out carry a question mark."""
    reference = schema.get("$ref") or next((one["$ref"] for one in schema.get("anyOf", []) if "$ref" in one), None)
    if reference is None:
        return schema.get("description", "a JSON object") if schema else ""
    found = openapi["components"]["schemas"][reference.rpartition("/")[2]]
    required = set(found.get("required", []))
    names = [name if name in required else f"{name}?" for name in found.get("properties", {})]
    return "{" + ", ".join(names) + "}"
