"""The frame of all pages: templates, static files, headers that keep a browser safe, errors as pages.

Owns how a page is rendered and what every page shows around its content. Leaves the content to the modules `*_pages`.

Invariants: everything is escaped when it is written into a page; no page runs a script or style that is not a file of
ours (Content-Security-Policy), none can be framed, none is kept by caches.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal_protocol.errors import ShoalError
from shoal_server.access.guard import authenticate
from shoal_server.alerts import store as alerts
from shoal_server.alerts.rules import AlertState
from shoal_server.errors import UnauthorizedError
from shoal_server.services import Services
from shoal_server.timestamps import rfc3339
from shoal_server.web import words
from shoal_server.web.live import position_of
from shoal_server.web.problems import status_of
from shoal_server.web.quality_views import interval

HERE = Path(__file__).parent
STATIC = HERE / "static"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class Place(NamedTuple):
    """One entry of the menu."""

    path: str
    name: str
    icon: str


PLACES = (
    Place("/", "Overview", "overview"),
    Place("/devices", "Devices", "device"),
    Place("/models", "Models", "model"),
    Place("/rollouts", "Rollouts", "rollout"),
    Place("/drift", "Drift", "drift"),
    Place("/alerts", "Alerts", "alert"),
    Place("/webhooks", "Webhooks", "webhook"),
    Place("/audit", "Audit", "audit"),
    Place("/docs", "API", "api"),
)


class Site:
    """The templates with their filters, made once for a program."""

    def __init__(self) -> None:
        self.process = secrets.token_hex(4)
        """A name of this process; see `live.position_of`."""

    @cached_property
    def templates(self) -> jinja2.Environment:
        """All templates: escaping is on, an unknown name is an error."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(
            static=self.static, look_of=words.look_of, words=words.words, places=PLACES, cause_of=words.cause_of
        )
        environment.filters.update(
            ago=words.ago,
            span=words.span,
            percent=words.percent,
            interval=interval,
            amount=words.amount,
            size=words.size,
            short_digest=words.short_digest,
            plural=words.plural,
            rfc3339=rfc3339,
            segment=segment,
            cohort_query=cohort_query,
            words=words.words,
            json=lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True),
        )
        return environment

    @cached_property
    def _versions(self) -> dict[str, str]:
        files = [path for path in STATIC.rglob("*") if path.is_file()]
        return {str(path.relative_to(STATIC)): hashlib.sha256(path.read_bytes()).hexdigest()[:10] for path in files}

    def static(self, name: str) -> str:
        """Return the address of a static file, which changes with its content."""
        return f"/static/{name}?v={self._versions[name]}"

    def render(self, template: str, **context: Any) -> str:
        """Fill in a template."""
        return self.templates.get_template(template).render(context)


def segment(text: object) -> str:
    """Quote what stands between two slashes of an address."""
    return quote(str(text), safe="")


def cohort_query(name: str) -> str:
    r"""Write a cohort's name as the query that chooses its devices.

    >>> print(cohort_query('site=the "old" mill'))
    site = "the \"old\" mill"
    """
    key, _, value = name.partition("=")
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"


def address(path: str, **parameters: object) -> str:
    """Return a path with those parameters that say something."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a page of somebody who is logged in.

    Args:
        request: whose page it is.
        template: a file of templates/.
        status: HTTP status.
        context: what the template shows besides the frame.
    """
    program: Services = request.app.state.shoal
    frame: dict[str, Any] = {
        "principal": authenticate(request),
        "here": next((place.path for place in reversed(PLACES) if _below(request.url.path, place.path)), ""),
        "now": program.clock(),
        "position": getattr(request.state, "position", "") or _position(request),
        "open_alerts": _open_alerts(program),
        "names": {},
        "request_path": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
    }
    text = request.app.state.site.render(template, **{**frame, **context})
    return HTMLResponse(text, status, headers={"cache-control": "no-store"})


def redirect(path: str) -> RedirectResponse:
    """Send the browser to a page after a form was handled."""
    return RedirectResponse(path, status_code=303)


class PageRoute(APIRoute):
    """A route for browsers: its errors are pages too, and somebody who isn't logged in is sent to do so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            request.state.position = _position(request)  # before anything is read: what changes meanwhile is then told
            try:
                return await handler(request)
            except (ShoalError, RequestValidationError) as error:
                if not _wants_page(request):
                    raise
                return _told(request, error)

        return handle


class SafeHeaders:
    """Adds the headers that keep a browser from doing what a page of ours never wants."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SAFE_HEADERS]
            await send(message)

        await self.app(scope, receive, safe)


_SAFE_HEADERS = [
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }.items()
]


def _position(request: Request) -> str:
    return position_of(request.app.state.shoal.signals, request.app.state.site.process)


def _open_alerts(program: Services) -> int:
    """Count what the menu says needs somebody; from 100 on nobody counts."""
    now = program.clock()
    with program.database.read() as session:
        found = alerts.alerts(session, states=[AlertState.OPEN], limit=100)
    return sum(alert.silenced_until is None or alert.silenced_until <= now for alert in found)


def _below(path: str, place: str) -> bool:
    return path == place or (place != "/" and path.startswith(f"{place}/"))


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def _told(request: Request, error: ShoalError | RequestValidationError) -> Response:
    if isinstance(error, UnauthorizedError):
        return _to_log_in(request)
    if isinstance(error, ShoalError):
        return _error_page(request, status=status_of(error), title=error.message, hint=error.hint)
    faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    return _error_page(request, status=400, title=f"This request is not right: {faults}", hint="")


def _to_log_in(request: Request) -> Response:
    wanted = request.url.path if request.method == "GET" else "/"
    target = address("/login", next=wanted if wanted != "/" else None)
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": target})
    return redirect(target)


def _error_page(request: Request, *, status: int, title: str, hint: str) -> Response:
    context: Mapping[str, Any] = {"status_code": status, "title": title, "hint": hint}
    try:
        return page(request, "error.html", status=status, **context)
    except ShoalError:
        return HTMLResponse(request.app.state.site.render("bare_error.html", **context), status)
