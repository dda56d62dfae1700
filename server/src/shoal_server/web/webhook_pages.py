"""Pages of webhooks: who receives events, one receiver with its last deliveries, and the forms that change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response

from shoal_protocol.errors import ShoalError
from shoal_server.access import Role
from shoal_server.access.guard import Admin, Operator, Program, Viewer
from shoal_server.errors import NotFoundError
from shoal_server.outbox.event_types import EventType
from shoal_server.outbox.filters import SEVERITIES
from shoal_server.outbox.reference import meanings
from shoal_server.services import Services
from shoal_server.web.problems import status_of
from shoal_server.web.site import PageRoute, address, page, redirect, segment
from shoal_server.webhooks import routes, store
from shoal_server.webhooks.bodies import Format
from shoal_server.webhooks.targets import MAX_URL
from shoal_server.webhooks.views import masked

router = APIRouter(prefix="/webhooks", route_class=PageRoute, include_in_schema=False)
_PAGE = 50


@router.get("", response_class=HTMLResponse)
def show_webhooks(request: Request, program: Program, principal: Viewer) -> Response:
    """List webhooks, with the form for another one."""
    return _list(request, program, may_change=principal.may(Role.ADMIN))


@router.post("", response_class=HTMLResponse)
def create_webhook(
    *,
    request: Request,
    program: Program,
    principal: Admin,
    name: Annotated[str, Form(max_length=63)],
    url: Annotated[str, Form(max_length=MAX_URL)],
    types: Annotated[str, Form(max_length=4000)] = "",
    min_severity: Annotated[str, Form(max_length=20)] = "",
    form: Annotated[str, Form(alias="format", max_length=20)] = Format.CLOUDEVENTS.value,
) -> Response:
    """Make a webhook and show its secret, this once; a form with a mistake comes back as it was filled in."""
    given = {"name": name.strip(), "url": url.strip(), "types": types, "min_severity": min_severity, "format": form}
    patterns = types.replace(",", " ").split() or ["*"]
    try:
        wanted = routes.NewWebhook(
            name=given["name"],
            url=given["url"],
            types=patterns,
            min_severity=min_severity or None,
            format=form,
        )
        made = routes.create_webhook(wanted, request, Response(), program, principal)
    except ShoalError as error:
        return _list(request, program, may_change=True, given=given, error=error)
    return page(request, "webhook_made.html", made=made, renewed=False)


@router.get("/{name}", response_class=HTMLResponse)
def show_webhook(
    name: str,
    request: Request,
    program: Program,
    principal: Viewer,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Show one webhook; operators see its last deliveries too."""
    may_operate = principal.may(Role.OPERATOR)
    with program.database.read() as session:
        hook = store.get(session, name)
        found = store.deliveries(session, hook, before_id=before, limit=_PAGE + 1) if may_operate else []
    path = f"/webhooks/{segment(name)}"
    return page(
        request,
        "webhook.html",
        hook=hook,
        url=hook.url if principal.may(Role.ADMIN) else masked(hook.url),
        path=path,
        deliveries=found[:_PAGE],
        wire_name=lambda name: EventType(name).value,
        next_url=address(path, before=found[_PAGE - 1][0].id) if len(found) > _PAGE else "",
        first_url=path if before else "",
        may_operate=may_operate,
        may_change=principal.may(Role.ADMIN),
    )


@router.post("/{name}/test")
def try_webhook(name: str, request: Request, program: Program, principal: Operator) -> Response:
    """Send a test event; what came of it is the newest delivery of the page."""
    routes.try_webhook(name, request, program, principal)
    return redirect(f"/webhooks/{segment(name)}")


@router.post("/{name}/deliveries/{delivery}/redeliver")
def redeliver(name: str, delivery: int, request: Request, program: Program, principal: Operator) -> Response:
    """Send an event once more."""
    routes.redeliver(name, delivery, request, program, principal)
    return redirect(f"/webhooks/{segment(name)}")


@router.post("/{name}/{verb}", response_class=HTMLResponse)
def change_webhook(name: str, verb: str, request: Request, program: Program, principal: Admin) -> Response:
    """Enable, disable or delete a webhook, or give it a new secret."""
    if verb == "rotate":
        made = routes.rotate_secret(name, request, program, principal)
        return page(request, "webhook_made.html", made=made, renewed=True)
    acts: Mapping[str, Callable[[], Any]] = {
        "enable": lambda: _enable(name, request, program, principal, enabled=True),
        "disable": lambda: _enable(name, request, program, principal, enabled=False),
        "delete": lambda: routes.delete_webhook(name, request, program, principal),
    }
    if verb not in acts:
        raise NotFoundError(f"a webhook can't be {verb!r:.40}")
    acts[verb]()
    return redirect("/webhooks" if verb == "delete" else f"/webhooks/{segment(name)}")


def _enable(name: str, request: Request, program: Services, principal: Admin, *, enabled: bool) -> None:
    changes = routes.WebhookChanges(enabled=enabled)
    routes.edit_webhook(name, changes, request, Response(), program, principal, "*")


def _list(
    request: Request,
    program: Services,
    *,
    may_change: bool,
    given: Mapping[str, str] | None = None,
    error: ShoalError | None = None,
) -> Response:
    with program.database.read() as session:
        hooks = store.webhooks(session)
    texts = meanings()
    return page(
        request,
        "webhooks.html",
        status=200 if error is None else status_of(error),
        hooks=hooks,
        masked=masked,
        formats=[str(one) for one in Format],
        severities=SEVERITIES,
        types=[(type_.value, texts[type_]) for type_ in EventType if type_ is not EventType.WEBHOOK_TEST],
        given=given or {"name": "", "url": "", "types": "", "min_severity": "", "format": Format.CLOUDEVENTS.value},
        problem="" if error is None else error.message,
        hint="" if error is None else error.hint,
        may_change=may_change,
    )
