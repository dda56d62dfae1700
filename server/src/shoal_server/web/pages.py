"""All pages, put into a program.

Owns which modules make up the dashboard. `install` is called once by whoever puts the program together.
"""

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from shoal_server.web import (
    alert_pages,
    api_page,
    drift_pages,
    fleet_pages,
    live,
    model_pages,
    overview_page,
    record_pages,
    rollout_pages,
    session_pages,
    webhook_pages,
)
from shoal_server.web.site import STATIC, SafeHeaders, Site

PUBLIC = session_pages.PUBLIC
"""Pages that need no credentials; the files under /static need none either and hold nothing secret."""

_ROUTERS = (
    session_pages.router,
    overview_page.router,
    fleet_pages.router,
    model_pages.router,
    rollout_pages.router,
    drift_pages.router,
    alert_pages.router,
    webhook_pages.router,
    record_pages.router,
    api_page.router,
    live.router,
)


def install(app: FastAPI) -> None:
    """Add the pages, their files and the headers that keep browsers safe; `app.state.shoal` holds the services."""
    app.state.site = Site()
    app.add_middleware(SafeHeaders)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for router in _ROUTERS:
        app.include_router(router)
