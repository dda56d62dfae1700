"""`/api/v1/webhooks`: receivers of events and the log of what was sent to them, over HTTP.

Everybody who may look sees which webhooks there are, without the paths of their URLs; operators see what came of
deliveries, try a webhook and send again; only administrators decide where events of the fleet go.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, Field

from shoal_server.access import Role
from shoal_server.access.guard import Admin, Operator, Program, Viewer, record_change
from shoal_server.alerts.store import resolve_alert
from shoal_server.errors import PreconditionRequiredError
from shoal_server.outbox.event_types import EventType
from shoal_server.outbox.reference import meanings
from shoal_server.outbox.tables import DeliveryState, WebhookRow
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.webhooks import ping, store
from shoal_server.webhooks.bodies import Format
from shoal_server.webhooks.courier import alert_key
from shoal_server.webhooks.targets import MAX_URL
from shoal_server.webhooks.views import audited, delivery_json, webhook_json

router = APIRouter(prefix="/api/v1", tags=["webhooks"])

Patterns = Annotated[list[str], Field(description="event types with * for anything, such as rollout.* or alert.opened")]
MinSeverity = Annotated[str | None, Field(description="alerts below it are not sent: info, warning, critical")]


class NewWebhook(BaseModel):
    """A receiver of events to make."""

    name: str = Field(max_length=63)
    url: str = Field(max_length=MAX_URL)
    types: Patterns = ["*"]
    min_severity: MinSeverity = None
    format: str = Field(default=Format.CLOUDEVENTS.value, description=", ".join(Format))
    enabled: bool = True

    def wish(self) -> store.Wish:
        """Return what the store is asked for."""
        given = self.model_dump(exclude={"name", "types"})
        return store.Wish(**given, types=tuple(self.types))


class WebhookChanges(BaseModel):
    """What shall be different; what is left out stays."""

    url: str | None = Field(default=None, max_length=MAX_URL)
    types: Annotated[list[str] | None, Field(description="patterns of event types")] = None
    min_severity: Annotated[str | None, Field(description="null: alerts of all severities")] = None
    format: str | None = None
    enabled: bool | None = None

    def wish(self, row: WebhookRow) -> store.Wish:
        """Return what the webhook shall be then."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        kept = {name: value for name, value in given.items() if value is not None or name == "min_severity"}
        present = {name: getattr(row, name) for name in ("url", "types", "min_severity", "format", "enabled")}
        wanted = {**present, **kept}
        return store.Wish(**{**wanted, "types": tuple(wanted["types"])})


@router.get("/event-types", operation_id="webhooks_types")
def list_event_types(_principal: Viewer) -> dict[str, Any]:
    """List the types of events that there are, with what each means."""
    texts = meanings()
    types = [type_ for type_ in EventType if type_ is not EventType.WEBHOOK_TEST]
    items = [{"type": type_.wire_name, "short": type_.value, "when": texts[type_]} for type_ in types]
    return {"items": items, "next_cursor": None}


@router.get("/webhooks", operation_id="webhooks_list")
def list_webhooks(program: Program, principal: Viewer) -> dict[str, Any]:
    """List webhooks, by name; their URLs without the path, unless an administrator asks."""
    with program.database.read() as session:
        rows = store.webhooks(session)
    return {"items": [webhook_json(row, whole=principal.may(Role.ADMIN)) for row in rows], "next_cursor": None}


@router.post("/webhooks", operation_id="webhooks_create", status_code=status.HTTP_201_CREATED)
def create_webhook(
    body: NewWebhook, request: Request, response: Response, program: Program, principal: Admin
) -> dict[str, Any]:
    """Make a webhook; the answer is the only place that ever shows its secret."""
    wish = body.wish().checked()
    program.webhooks.check(wish.url)  # looks the host up, so before the transaction
    with program.database.write() as session:
        row = store.create(session, body.name, wish, by=principal.actor, now=program.clock())
        record_change(session, request, action="webhook.create", subject=f"webhook:{row.name}", after=audited(row))
    program.signals.bump("webhooks")
    response.headers["etag"] = store.entity_tag(row)
    return {**webhook_json(row, whole=True), "secret": row.secret}


@router.get("/webhooks/{name}", operation_id="webhooks_show")
def show_webhook(name: str, response: Response, program: Program, principal: Viewer) -> dict[str, Any]:
    """Show one webhook; its ETag is what an edit has to name."""
    with program.database.read() as session:
        row = store.get(session, name)
    response.headers["etag"] = store.entity_tag(row)
    return webhook_json(row, whole=principal.may(Role.ADMIN))


@router.patch("/webhooks/{name}", operation_id="webhooks_edit")
def edit_webhook(  # noqa: PLR0917 - FastAPI passes by name
    name: str,
    body: WebhookChanges,
    request: Request,
    response: Response,
    program: Program,
    _principal: Admin,
    if_match: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Change a webhook; If-Match names the state that was edited."""
    if if_match is None:
        raise PreconditionRequiredError(
            "an edit has to say which state it edits", hint="send If-Match with the ETag of GET"
        )
    if body.url is not None:
        program.webhooks.check(body.url)
    with program.database.write() as session:
        row = store.locked(session, name)
        store.check_tag(row, if_match)
        before = audited(row)
        store.edit(session, row, body.wish(row))
        if row.enabled and row.id is not None:
            resolve_alert(session, alert_key(row.id), now=program.clock())
        record_change(
            session, request, action="webhook.edit", subject=f"webhook:{name}", before=before, after=audited(row)
        )
    for topic in ("webhooks", "alerts"):
        program.signals.bump(topic)
    response.headers["etag"] = store.entity_tag(row)
    return webhook_json(row, whole=True)


@router.delete("/webhooks/{name}", status_code=204, operation_id="webhooks_delete")
def delete_webhook(name: str, request: Request, program: Program, _principal: Admin) -> None:
    """Delete a webhook and its log; what still waited is not sent."""
    with program.database.write() as session:
        row = store.locked(session, name)
        if row.id is not None:
            resolve_alert(session, alert_key(row.id), now=program.clock())
        record_change(session, request, action="webhook.delete", subject=f"webhook:{name}", before=audited(row))
        store.remove(session, row)
    for topic in ("webhooks", "alerts"):
        program.signals.bump(topic)


@router.post("/webhooks/{name}/rotate", operation_id="webhooks_rotate")
def rotate_secret(name: str, request: Request, program: Program, _principal: Admin) -> dict[str, Any]:
    """Give a webhook a new secret, shown this once; for a day the old one signs as well."""
    with program.database.write() as session:
        row = store.locked(session, name)
        store.rotate(session, row, now=program.clock())
        record_change(session, request, action="webhook.rotate", subject=f"webhook:{name}")
    return {**webhook_json(row, whole=True), "secret": row.secret}


@router.post("/webhooks/{name}/test", operation_id="webhooks_test")
def try_webhook(name: str, request: Request, program: Program, principal: Operator) -> dict[str, Any]:
    """Send a test event now, once, whatever the filter, and say what came of it; also to a disabled webhook."""
    with program.database.read() as session:
        row = store.get(session, name)
    tried, event = asyncio.run(ping.try_out(program, row, actor=principal.actor))
    with program.database.write() as session:
        ping.log(session, tried, event)
        record_change(session, request, action="webhook.test", subject=f"webhook:{name}", after={"state": tried.state})
    program.signals.bump("webhooks")
    return delivery_json(tried, event)


@router.get("/webhooks/{name}/deliveries", operation_id="webhooks_deliveries")
def list_deliveries(
    name: str,
    program: Program,
    _principal: Operator,
    *,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List what was and is to be sent to a webhook, the newest first."""
    with program.database.read() as session:
        row = store.get(session, name)
        found = store.deliveries(session, row, state=state, before_id=decode_cursor(cursor), limit=limit + 1)
    return page(found, limit=limit, position=lambda pair: pair[0].id, item=lambda pair: delivery_json(*pair))


@router.post("/webhooks/{name}/deliveries/{delivery}/redeliver", operation_id="webhooks_redeliver")
def redeliver(name: str, delivery: int, request: Request, program: Program, _principal: Operator) -> dict[str, Any]:
    """Have an event sent once more, with the id that it always had."""
    with program.database.write() as session:
        row = store.get(session, name)
        again, event = store.redeliver(session, row, delivery, now=program.clock())
        record_change(
            session, request, action="webhook.redeliver", subject=f"webhook:{name}", after={"delivery": delivery}
        )
    program.signals.bump("webhooks")
    return delivery_json(again, event)
