"""Webhooks over HTTP: who sees what, edits that don't overwrite each other, tests, the log, sending again."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shoal_server.access import Role, audit
from shoal_server.alerts import routes as alert_routes
from shoal_server.alerts.store import raise_alert
from shoal_server.outbox.event_types import EventType
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, program_of
from shoal_server.webhooks.courier import Courier
from shoal_server.webhooks.routes import router
from webhook_receiver import Receiver, status

from .conftest import say

HOOKS = "/api/v1/webhooks"


@pytest.fixture
def database(on_sqlite: Database) -> Database:
    return on_sqlite


@pytest.fixture
def client(program: Services) -> TestClient:
    return TestClient(program_of(program, [router, alert_routes.router]))


@pytest.fixture
def admin(client: TestClient) -> dict[str, str]:
    return as_(client, Role.ADMIN)


def as_(client: TestClient, role: Role) -> dict[str, str]:
    return {"authorization": f"Bearer {api_token(client.app.state.shoal, role)}"}


def make(client: TestClient, admin: dict[str, str], url: str, **more: Any) -> Any:
    answer = client.post(HOOKS, json={"name": "ops", "url": url, **more}, headers=admin)
    assert answer.status_code == 201, answer.text
    return answer.json()


def actions(program: Services, name: str = "ops") -> list[str]:
    with program.database.read() as session:
        return [row.action for row in reversed(audit.rows(session, subject=f"webhook:{name}"))]


def test_a_webhook_is_made_with_a_secret_that_is_shown_once(
    client: TestClient, program: Services, admin: dict[str, str], receiver: Receiver
) -> None:
    made = make(client, admin, receiver.url, types=["dev.shoal.rollout.*", "alert.opened"], min_severity="warning")
    assert made["secret"].startswith("whsec_")
    assert (made["types"], made["min_severity"]) == (["rollout.*", "alert.opened"], "warning")
    assert (made["format"], made["enabled"]) == ("cloudevents", True)
    for shown in (
        client.get(HOOKS, headers=admin).json()["items"][0],
        client.get(f"{HOOKS}/ops", headers=admin).json(),
    ):
        assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert actions(program) == ["webhook.create"]
    assert program.signals.counters()["webhooks"] == 1


def test_who_only_looks_sees_no_path_of_a_url(client: TestClient, admin: dict[str, str], receiver: Receiver) -> None:
    make(client, admin, f"{receiver.url}/T0/secret", name="chat")
    shown = client.get(f"{HOOKS}/chat", headers=as_(client, Role.OPERATOR)).json()
    assert shown["url"] == receiver.url.removesuffix("/hook") + "/…"
    with client.app.state.shoal.database.read() as session:
        (row,) = audit.rows(session, subject="webhook:chat")
    assert "secret" not in str(row.after)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "https://10.0.0.1/x"}, "10.0.0.1 is a private address"),
        ({"url": "http://127.0.0.2:1/x"}, "is a loopback address"),
        ({"url": "hooks.example.com"}, "expected a URL"),
        ({"types": ["rollouts.*"]}, "no event has a type like 'rollouts.*'"),
        ({"types": []}, "patterns of event types"),
        ({"min_severity": "high"}, "info, warning, critical"),
        ({"format": "discord"}, "cloudevents, slack, teams"),
        ({"name": "Ops Team"}, "is no name for a webhook"),
        ({"name": "taken"}, "there is already a webhook taken"),
    ],
)
def test_what_can_not_be_is_refused_with_advice(
    client: TestClient, admin: dict[str, str], receiver: Receiver, change: dict[str, Any], says: str
) -> None:
    make(client, admin, receiver.url, name="taken")
    body = {"name": "ops", "url": receiver.url, **change}
    answer = client.post(HOOKS, json=body, headers=admin)
    assert answer.status_code == (409 if "already" in says else 400), answer.json()
    assert says in answer.json()["detail"]
    assert answer.json()["hint"] or "expected" in says or "among" in answer.json()["detail"]


def test_an_edit_names_the_state_that_it_edits(
    client: TestClient, program: Services, admin: dict[str, str], receiver: Receiver
) -> None:
    first = client.get(f"{HOOKS}/{make(client, admin, receiver.url)['name']}", headers=admin).headers["etag"]
    change = {"types": ["alert.*"], "min_severity": "critical"}
    assert client.patch(f"{HOOKS}/ops", json=change, headers=admin).status_code == 428
    edited = client.patch(f"{HOOKS}/ops", json=change, headers={**admin, "if-match": first})
    assert (edited.json()["types"], edited.json()["min_severity"]) == (["alert.*"], "critical")
    assert edited.json()["url"] == receiver.url
    assert edited.headers["etag"] not in ("", first)
    stale = client.patch(f"{HOOKS}/ops", json={"enabled": False}, headers={**admin, "if-match": first})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    again = {**admin, "if-match": edited.headers["etag"]}
    lifted = client.patch(f"{HOOKS}/ops", json={"min_severity": None}, headers=again)
    assert lifted.json()["min_severity"] is None
    assert actions(program) == ["webhook.create", "webhook.edit", "webhook.edit"]


def test_deleting_ends_it_and_what_waited(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    make(client, admin, receiver.url)
    say(program, "cam")
    assert client.delete(f"{HOOKS}/ops", headers=admin).status_code == 204
    courier.tick()
    assert receiver.got == []
    assert client.get(f"{HOOKS}/ops", headers=admin).status_code == 404
    assert client.delete(f"{HOOKS}/ops", headers=admin).json()["hint"] == "shoalctl webhook list"
    assert actions(program)[-1] == "webhook.delete"


def test_a_test_is_sent_at_once_and_says_what_came_of_it(
    client: TestClient, program: Services, admin: dict[str, str], receiver: Receiver
) -> None:
    make(client, admin, receiver.url, types=["rollout.*"], enabled=False)
    receiver.answer = status(200, 500)
    operator = as_(client, Role.OPERATOR)
    good = client.post(f"{HOOKS}/ops/test", headers=operator).json()
    bad = client.post(f"{HOOKS}/ops/test", headers=operator).json()
    assert (good["state"], good["status"], good["response_head"]) == ("delivered", 200, "as told")
    assert (bad["state"], bad["error"], bad["attempts"]) == ("failed", "answered 500 Internal Server Error", 1)
    assert receiver.types == ["webhook.test"] * 2
    log = client.get(f"{HOOKS}/ops/deliveries", headers=operator).json()["items"]
    assert [one["id"] for one in log] == [bad["id"], good["id"]]
    assert actions(program) == ["webhook.create", "webhook.test", "webhook.test"]


def test_the_log_comes_in_pages_and_by_state_and_an_event_can_be_sent_again(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    made = make(client, admin, receiver.url)
    say(program, "one", "two", "three")
    operator, log = as_(client, Role.OPERATOR), f"{HOOKS}/ops/deliveries"
    waiting = client.get(log, params={"limit": 1}, headers=operator).json()["items"][0]
    assert client.post(f"{log}/{waiting['id']}/redeliver", headers=operator).status_code == 409
    courier.tick()
    first = client.get(log, params={"limit": 2, "state": "delivered"}, headers=operator).json()
    rest = client.get(log, params={"limit": 2, "cursor": first["next_cursor"]}, headers=operator).json()
    assert [one["subject"] for one in first["items"] + rest["items"]] == ["device:three", "device:two", "device:one"]
    one = rest["items"][0]
    assert (one["type"], one["status"], one["attempts"]) == ("dev.shoal.device.enrolled.v1", 204, 1)
    again = client.post(f"{log}/{one['id']}/redeliver", headers=operator).json()
    assert (again["event"], again["redelivery_of"], again["state"]) == (one["event"], one["id"], "pending")
    courier.tick()
    assert [received.id for received in receiver.got].count(one["event"]) == 2
    assert client.post(f"{log}/999/redeliver", headers=operator).status_code == 404
    off = {**admin, "if-match": made["etag"]}
    assert client.patch(f"{HOOKS}/ops", json={"enabled": False}, headers=off).status_code == 200
    assert "--enable" in client.post(f"{log}/{one['id']}/redeliver", headers=operator).json()["hint"]


def test_a_new_secret_signs_beside_the_old_one_for_a_day(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    made = make(client, admin, receiver.url)
    rotated = client.post(f"{HOOKS}/ops/rotate", headers=admin).json()
    assert rotated["secret"] != made["secret"]
    say(program, "one")
    courier.tick()
    program.clock.advance(86_400)
    say(program, "two")
    courier.tick()
    assert [len(one.headers["webhook-signature"].split()) for one in receiver.got] == [2, 1]
    assert actions(program)[-1] == "webhook.rotate"


def test_enabling_a_disabled_webhook_ends_its_alert(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    make(client, admin, receiver.url)
    receiver.answer = status(410, 204)
    say(program, "one")
    courier.tick()
    shown = client.get(f"{HOOKS}/ops", headers=admin)
    assert (shown.json()["enabled"], "410" in shown.json()["disabled_reason"]) == (False, True)
    headers = {**admin, "if-match": shown.headers["etag"]}
    enabled = client.patch(f"{HOOKS}/ops", json={"enabled": True}, headers=headers).json()
    assert (enabled["enabled"], enabled["disabled_reason"], enabled["failures"]) == (True, "", 0)
    alerts = client.get("/api/v1/alerts", headers=admin).json()["items"]
    assert [(one["kind"], one["state"]) for one in alerts] == [("webhook", "resolved")]


def test_an_alert_says_the_same_in_the_api_and_in_the_webhook(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    make(client, admin, receiver.url, types=["alert.*"], min_severity="warning")
    told = {
        "kind": "drift",
        "subject": "slot:q",
        "title": "temp drifts",
        "body": "temp at site=bern drifts\nby 1.84 sd",
    }
    for severity in ("info", "warning", "critical"):
        with program.database.write() as session:
            alert = raise_alert(session, key="k", severity=severity, now=program.clock(), **told)
    operator = as_(client, Role.OPERATOR)
    client.post(f"/api/v1/alerts/{alert.id}/ack", headers=operator)
    courier.tick()
    assert receiver.types == ["alert.worsened", "alert.worsened", "alert.acknowledged"]
    shown = client.get(f"/api/v1/alerts/{alert.id}", headers=operator).json()
    data = receiver.got[-1].event["data"]
    assert (data["title"], data["text"], data["severity"]) == (shown["title"], shown["body"], shown["severity"])
    assert data["url"] == "https://shoal.example/drift?slot=q"
    assert {name: data[name] for name in ("kind", "key", "count", "raised_at")} == {
        name: shown[name] for name in ("kind", "key", "count", "raised_at")
    }


def test_a_silenced_alert_sends_nothing_but_its_end(
    client: TestClient, program: Services, admin: dict[str, str], courier: Courier, receiver: Receiver
) -> None:
    from shoal_server.alerts.store import resolve_alert

    make(client, admin, receiver.url, types=["alert.*"])
    told = {"kind": "drift", "subject": "slot:q", "title": "t", "body": "b", "key": "k", "now": program.clock()}
    with program.database.write() as session:
        alert = raise_alert(session, severity="info", **told)
    client.post(f"/api/v1/alerts/{alert.id}/silence", json={"seconds": 3600}, headers=as_(client, Role.OPERATOR))
    with program.database.write() as session:
        raise_alert(session, severity="critical", **told)
        resolve_alert(session, "k", now=program.clock())
    courier.tick()
    assert receiver.types == ["alert.opened", "alert.resolved"]


def test_the_types_can_be_asked_for(client: TestClient) -> None:
    items = client.get("/api/v1/event-types", headers=as_(client, Role.VIEWER)).json()["items"]
    assert len(items) == len(EventType) - 1
    assert {
        "type": "dev.shoal.alert.opened.v1",
        "short": "alert.opened",
        "when": "people are told of something new; not while its cause is silenced",
    } in items
