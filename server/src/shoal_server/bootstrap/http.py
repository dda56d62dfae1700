"""The HTTP program: every room's routes, and which of them are open to everybody."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from shoal_server.access import routes as access_routes
from shoal_server.access.guard import unguarded
from shoal_server.alerts import routes as alert_routes
from shoal_server.contracts import routes as contract_routes
from shoal_server.drift import routes as drift_routes
from shoal_server.fleet import (
    counting_routes,
    credential_routes,
    device_routes,
    parcel_routes,
    sampling_routes,
    shadow_routes,
)
from shoal_server.fleet import routes as fleet_routes
from shoal_server.loops import Loop
from shoal_server.quality import routes as quality_routes
from shoal_server.registry import blob_routes, manifest_routes, trust_routes
from shoal_server.registry import routes as model_routes
from shoal_server.rollouts import routes as rollout_routes
from shoal_server.services import Services
from shoal_server.telemetry import routes as telemetry_routes
from shoal_server.web import health, pages, problems
from shoal_server.web.gauges import gauges
from shoal_server.web.metrics import ProgramMetrics, RequestMetrics
from shoal_server.webhooks import routes as webhook_routes

PUBLIC: tuple[tuple[str, str], ...] = (
    *health.PUBLIC,
    *pages.PUBLIC,
    ("*", "/static"),  # style sheets and scripts of the dashboard
    ("POST", "/api/v1/login"),  # how a person gets a session
    ("POST", "/api/v1/device/enrol"),  # carries a join token of its own
    *credential_routes.PUBLIC,  # worth nothing to who can't sign it
    ("GET", "/trust/{file}"),  # signed, and no secret
    ("GET", "/trust/ca.pem"),  # a device compares it with the digest in its join token
)
"""Routes that need no credentials; every other one has a guard, or the server doesn't start."""


MAX_BODY_BYTES = 8 * 1024**2
"""Of a request, where its route doesn't say otherwise as uploads do."""


ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    access_routes.router,
    device_routes.router,
    credential_routes.router,
    telemetry_routes.router,
    fleet_routes.router,
    parcel_routes.router,
    shadow_routes.router,
    sampling_routes.router,
    counting_routes.router,
    blob_routes.router,
    manifest_routes.router,
    model_routes.router,
    trust_routes.router,
    trust_routes.api,
    rollout_routes.router,
    drift_routes.router,
    quality_routes.router,
    contract_routes.router,
    alert_routes.router,
    webhook_routes.router,
)


def build_app(program: Services, loops: Sequence[Loop], *, routers: Sequence[APIRouter] = ROUTERS) -> FastAPI:
    """Make the HTTP program.

    Raises:
        RuntimeError: a route has neither a guard nor a place among `PUBLIC`.
    """
    app = FastAPI(title="Shoal", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=MAX_BODY_BYTES)
    app.state.shoal = program
    problems.install(app)
    app.add_middleware(RequestMetrics, registry=program.metrics)
    for router in routers:
        app.include_router(router)
    pages.install(app)
    program.metrics.register(ProgramMetrics(loops=lambda: [loop.health for loop in loops], gauges=gauges(program)))
    open_routes = unguarded(app, public=PUBLIC)
    if open_routes:
        raise RuntimeError(f"these routes have no guard: {', '.join(open_routes)}")
    return app
