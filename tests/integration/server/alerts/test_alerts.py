"""Alerts in the database and over HTTP."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import shoal_server.access.audit
import shoal_server.access.tables
from shoal_server.access import Role
from shoal_server.alerts import store
from shoal_server.alerts.routes import router
from shoal_server.alerts.rules import AlertState
from shoal_server.alerts.tables import Alert
from shoal_server.errors import NotFoundError
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, fake_services, program_of


def told(database: Database, key: str = "k", severity: str = "warning", now: float = 10.0, **changes: str) -> Alert:
    fields = {"kind": "drift", "subject": "slot:reader", "title": "t", "body": "b", **changes}
    with database.write() as session:
        return store.raise_alert(session, key=key, severity=severity, now=now, **fields)


def test_one_cause_is_one_alert_until_it_is_resolved(database: Database) -> None:
    first = told(database)
    again = told(database, now=20.0, title="more")
    assert (again.id, again.count, again.title, again.raised_at, again.updated_at) == (first.id, 2, "more", 10.0, 20.0)
    with database.write() as session:
        resolved = store.resolve_alert(session, "k", now=30.0)
        assert resolved is not None
        assert (resolved.state, resolved.resolved_at) == (AlertState.RESOLVED, 30.0)
        assert store.resolve_alert(session, "k", now=31.0) is None
    assert told(database, now=40.0).id != first.id


def test_an_acknowledged_alert_stays_quiet_unless_it_gets_worse(database: Database) -> None:
    first = told(database)
    with database.write() as session:
        store.acknowledge(session, first.id, by="person:ann", now=11.0)
        assert store.acknowledged_keys(session, kind="drift") == {"k"}
        assert store.acknowledge(session, first.id, by="person:bob", now=12.0).acknowledged_by == "person:ann"
    assert told(database).state == AlertState.ACKNOWLEDGED
    assert told(database, severity="critical").state == AlertState.OPEN
    assert told(database, severity="info").severity == "critical"


def test_alerts_are_listed_newest_first_and_by_state(database: Database) -> None:
    ids = [told(database, key=str(at), subject=f"slot:{at}").id for at in range(4)]
    with database.write() as session:
        store.acknowledge(session, ids[1], by="a", now=1.0)
        store.resolve_alert(session, "2", now=1.0)
    with database.read() as session:
        assert [alert.id for alert in store.alerts(session)] == ids[::-1]
        assert [alert.id for alert in store.alerts(session, open_only=True)] == [ids[3], ids[0]]
        unresolved = (AlertState.OPEN, AlertState.ACKNOWLEDGED)
        assert [alert.id for alert in store.alerts(session, states=unresolved, before_id=ids[3])] == [ids[1], ids[0]]
        assert [alert.id for alert in store.alerts(session, subject="slot:2")] == [ids[2]]
        with pytest.raises(NotFoundError):
            store.get(session, 999)


@pytest.fixture
def client(database: Database, tmp_path: Path) -> TestClient:
    return TestClient(program_of(fake_services(database, tmp_path), [router]))


def as_(client: TestClient, role: Role) -> dict[str, str]:
    return {"authorization": f"Bearer {api_token(client.app.state.shoal, role)}"}


def test_listing_over_http_comes_in_pages(client: TestClient, database: Database) -> None:
    for at in range(3):
        told(database, key=str(at))
    viewer = as_(client, Role.VIEWER)
    first = client.get("/api/v1/alerts", params={"limit": 2, "state": "open"}, headers=viewer).json()
    second = client.get("/api/v1/alerts", params={"limit": 2, "cursor": first["next_cursor"]}, headers=viewer).json()
    assert [item["key"] for item in first["items"] + second["items"]] == ["2", "1", "0"]
    assert second["next_cursor"] is None
    assert first["items"][0]["raised_at"] == "1970-01-01T00:00:10.000Z"
    assert client.get("/api/v1/alerts", params={"state": "nonsense"}, headers=viewer).status_code == 422


def test_acknowledging_over_http_needs_an_operator_and_is_audited_once(client: TestClient, database: Database) -> None:
    alert = told(database)
    assert client.post(f"/api/v1/alerts/{alert.id}/ack", headers=as_(client, Role.VIEWER)).status_code == 403
    operator = as_(client, Role.OPERATOR)
    for _ in range(2):
        answer = client.post(f"/api/v1/alerts/{alert.id}/ack", headers=operator)
        assert (answer.status_code, answer.json()["state"]) == (200, "acknowledged")
    assert answer.json()["acknowledged_by"] == "token:operator"
    with database.read() as session:
        rows = shoal_server.access.audit.rows(session, before_id=None, subject=f"alert:{alert.id}", limit=10)
    assert [row.action for row in rows] == ["alert.ack"]
    assert client.app.state.shoal.signals.counters()["alerts"] == 2
    assert client.post("/api/v1/alerts/999/ack", headers=operator).status_code == 404


def test_silencing_over_http(client: TestClient, database: Database) -> None:
    alert = told(database)
    operator = as_(client, Role.OPERATOR)
    answer = client.post(f"/api/v1/alerts/{alert.id}/silence", json={"seconds": 60}, headers=operator).json()
    assert answer["silenced_until"] == "2027-01-15T08:01:00.000Z"
    assert client.get("/api/v1/alerts", headers=operator).json()["items"] == []
    shown = client.get("/api/v1/alerts?silenced=true", headers=operator).json()["items"]
    assert [one["id"] for one in shown] == [alert.id]
    ended = client.post(f"/api/v1/alerts/{alert.id}/silence", json={"seconds": 0}, headers=operator).json()
    assert ended["silenced_until"] is None
    assert [one["id"] for one in client.get("/api/v1/alerts", headers=operator).json()["items"]] == [alert.id]
    assert client.post(f"/api/v1/alerts/{alert.id}/silence", json={"seconds": -1}, headers=operator).status_code == 422


def test_a_silence_holds_for_a_cause_that_comes_and_goes_unless_it_gets_worse(database: Database) -> None:
    first = told(database)
    with database.write() as session:
        store.silence(session, first.id, until=100.0)
        store.resolve_alert(session, "k", now=20.0)
    back = told(database, now=30.0)
    assert back.id != first.id
    assert back.silenced_until == 100.0
    with database.write() as session:
        assert [alert.id for alert in store.alerts(session, audible_at=50.0)] == []
        store.resolve_alert(session, "k", now=40.0)
    assert told(database, key="other", now=50.0).silenced_until is None
    worse = told(database, severity="critical", now=60.0)
    assert worse.silenced_until is None
    with database.write() as session:
        store.silence(session, worse.id, until=100.0)
        store.resolve_alert(session, "k", now=70.0)
    assert told(database, now=110.0).silenced_until is None, "it is over"


def test_what_got_worse_was_seen_by_nobody(database: Database) -> None:
    first = told(database)
    with database.write() as session:
        store.acknowledge(session, first.id, by="person:ann", now=11.0)
    worse = told(database, severity="critical", now=12.0)
    assert (worse.state, worse.acknowledged_by, worse.acknowledged_at) == (AlertState.OPEN, None, None)
