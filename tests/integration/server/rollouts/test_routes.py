"""Rollouts over HTTP, in the forms that shoalctl and the pages read."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shoal_server.access import Role, audit
from shoal_server.rollouts import routes
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.runner import Runner
from shoal_server.storage.database import Database
from shoal_server.testing.program import FakeClock, api_token, fake_services, program_of
from shoal_server.testing.rollout_world import NEW, OLD, plan_of
from shoal_server.testing.simulated_devices import fleet_of
from shoal_server.testing.stored_fleet import StoredFleet, add_version

STATUS = {"name", "state", "reason", "stages"}
STAGE = {"state", "eligible", "offered", "reported", "healthy", "failed", "lost", "gates"}
GATE = {"gate", "verdict", "value", "bound", "threshold", "n", "devices"}


class Desk:
    """A server's rollout room, an operator, and a fleet."""

    def __init__(self, database: Database, folder: Path) -> None:
        clock = FakeClock()
        self.services = fake_services(database, folder, clock=clock)
        add_version(database, model="quality", version="1.0.0", digest=OLD, counter=1)
        add_version(database, model="quality", version="1.1.0", digest=NEW, counter=2)
        self.fleet = StoredFleet(database, fleet_of(10, active=OLD), clock=clock)
        self.runner = Runner(
            database=database, measure=lambda *_: Evidence(), signals=self.services.signals, clock=clock
        )
        self.client = TestClient(program_of(self.services, [routes.router]))
        self.headers = {"authorization": f"Bearer {api_token(self.services, Role.OPERATOR)}"}

    def get(self, path: str = "") -> Any:
        return self.client.get(f"/api/v1/rollouts{path}", headers=self.headers)

    def post(self, path: str = "", body: Any = None) -> Any:
        return self.client.post(f"/api/v1/rollouts{path}", json=body, headers=self.headers)

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.runner.tick()
            self.fleet.exchange()
            self.services.clock.advance(1.0)


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Desk:
    return Desk(database, tmp_path)


def test_the_status_has_the_promised_form(desk: Desk) -> None:
    made = desk.post(body=plan_of())
    assert made.status_code == 201
    desk.ticks(6)
    status = desk.get("/quality-1.1").json()
    assert status.keys() >= STATUS
    assert (status["state"], status["bundle"], status["digest"]) == ("running", "quality:1.1.0", NEW)
    assert status["reason"].startswith("stage 1: soaking; install: 0 of 3 devices")
    first = status["stages"][0]
    assert first.keys() >= STAGE
    assert {name: first[name] for name in STAGE - {"gates"}} == {
        "state": "soaking",
        "eligible": 3,
        "offered": 3,
        "reported": 3,
        "healthy": 3,
        "failed": 0,
        "lost": 0,
    }
    assert [gate["gate"] for gate in first["gates"]] == ["install", "lost"]
    assert all(gate.keys() >= GATE for gate in first["gates"])
    assert first["gates"][0]["verdict"] == "inconclusive"


def test_a_dry_run_lists_the_exact_devices_and_changes_nothing(desk: Desk) -> None:
    shown = desk.post("?dry_run=true", plan_of())
    assert shown.status_code == 200
    assert [len(stage["devices"]) for stage in shown.json()["stages"]] == [3, 7]
    assert desk.get().json()["items"] == []
    desk.post(body=plan_of())
    members = desk.get("/quality-1.1/devices").json()["items"]
    first = [member["device"] for member in members if member["stage"] == 1]
    assert first == shown.json()["stages"][0]["devices"]


def test_a_plan_with_faults_is_refused_with_all_of_them(desk: Desk) -> None:
    refused = desk.post(body=plan_of(strategy="ab", deadline="soon"))
    assert (refused.status_code, refused.json()["code"]) == (422, "plan")
    assert [fault["where"] for fault in refused.json()["faults"]] == ["strategy", "deadline"]


def test_verbs_need_no_etag_and_may_be_repeated(desk: Desk) -> None:
    desk.post(body=plan_of())
    desk.ticks(4)
    for _ in range(2):
        paused = desk.post("/quality-1.1/actions/pause", {"reason": "lunch"})
        assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["reason"] == "pause by token:operator: lunch"
    assert desk.post("/quality-1.1/actions/resume").json()["state"] == "running"
    refused = desk.post("/quality-1.1/actions/undo")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_transition")
    assert desk.post("/quality-1.1/actions/dance").status_code == 422
    assert desk.post("/nothing/actions/pause").status_code == 404
    aborted = desk.post("/quality-1.1/actions/abort", {"reason": "enough"})
    assert aborted.json()["state"] == "rolling_back"
    desk.ticks(4)
    assert desk.get("/quality-1.1").json()["state"] == "rolled_back"
    assert desk.fleet.running(OLD) == set(desk.fleet.devices)


def test_the_history_tells_who_did_what_and_why(desk: Desk) -> None:
    desk.post(body=plan_of())
    desk.ticks(2)
    desk.post("/quality-1.1/actions/pause", {"reason": "lunch"})
    page = desk.get("/quality-1.1/history?limit=2").json()
    rest = desk.get(f"/quality-1.1/history?cursor={page['next_cursor']}").json()
    entries = page["items"] + rest["items"]
    assert [entry["action"] for entry in entries] == [
        "rollout.create",
        "rollout.running",
        "rollout.stage.rolling",
        "rollout.pause",
    ]
    assert (entries[-1]["actor"], entries[-1]["reason"]) == ("token:operator", "lunch")
    with desk.services.database.read() as session:
        row = audit.rows(session, limit=1)[0]
    assert (row.action, row.request_id != "") == ("rollout.pause", True)


def test_rollouts_are_listed_the_newest_first_in_pages(desk: Desk) -> None:
    for number in range(3):
        desk.services.clock.advance(1.0)
        desk.post(body=plan_of(name=f"r-{number}"))
        desk.post(f"/r-{number}/actions/cancel")
    page = desk.get("?limit=2").json()
    rest = desk.get(f"?cursor={page['next_cursor']}").json()
    assert [one["name"] for one in page["items"] + rest["items"]] == ["r-2", "r-1", "r-0"]
    assert page["items"][0]["state"] == "cancelled"


def test_a_viewer_may_look_and_not_act(desk: Desk) -> None:
    desk.post(body=plan_of())
    desk.headers = {"authorization": f"Bearer {api_token(desk.services, Role.VIEWER)}"}
    assert desk.get("/quality-1.1").status_code == 200
    assert desk.post("/quality-1.1/actions/pause").status_code == 403
    assert desk.post(body=plan_of(name="other")).status_code == 403


def test_a_changed_rollout_is_signalled(desk: Desk) -> None:
    before = desk.services.signals.counters()
    desk.post(body=plan_of())
    after = desk.services.signals.counters()
    assert after["rollouts"] > before.get("rollouts", 0)
