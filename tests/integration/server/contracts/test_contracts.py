"""Broken rules from windows to what people see: the sums, the API, alerts that come and go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import encode_profile
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access import Role
from shoal_server.alerts import store as alerts
from shoal_server.contracts.report import gather
from shoal_server.contracts.routes import router
from shoal_server.contracts.scan import ContractScan
from shoal_server.contracts.served import served_rules, set_contract
from shoal_server.contracts.upkeep import CountingUpkeep
from shoal_server.errors import NotFoundError
from shoal_server.fleet import assignments
from shoal_server.fleet.tables import DeviceRow
from shoal_server.registry.tables import ModelVersion
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch
from shoal_server.testing import api_token, fake_services, program_of
from shoal_server.testing.quality_fleet import QualityFleet
from shoal_server.testing.telemetry import DIGEST, START_MS, profile_message

SCHEMA = ModelSchema(
    tensors=(),
    inputs=(),
    outputs=(),
    contract=(
        Rule(field="age", check="range", low=0, high=120),
        Rule(field="city", check="categories", categories=("Bern",), tolerate=0.1),
    ),
)


NEAR = {"fields": {"age": {"range": [0, 120]}}}


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        QualityFleet(database, {"cam-1": "bern", "cam-2": "basel"}, digest=DIGEST)
        self.now = START_MS / 1000 + 600
        self.seq = 0
        self.scan = ContractScan(database, self.schema, lambda: self.now)
        services = fake_services(database, folder, bundles=SimpleNamespace(schema=self.schema), clock=lambda: self.now)
        self.client = TestClient(program_of(services, [router]))
        self.client.headers["authorization"] = f"Bearer {api_token(services, Role.VIEWER)}"

    def schema(self, digest: str) -> ModelSchema:
        if digest != DIGEST:
            raise NotFoundError("nobody pushed it")
        return SCHEMA

    def send(self, device: str, *violations: int, **changes: object) -> None:
        self.seq += 1
        message = profile_message(violations=violations, seq=self.seq, n=100, **changes)
        found = arrival(device, Up.PROFILE, encode_profile(message))
        with self.database.write() as session:
            store_batch(session, [found], handlers={}, on_clone=lambda *_: None, now=self.now)

    def rules(self) -> list[dict]:
        answer = self.client.get("/api/v1/contracts", params={"slot": "quality"})
        assert answer.status_code == 200, answer.text
        (item,) = answer.json()["items"]
        return item["rules"]

    def open(self) -> list[str]:
        with self.database.read() as session:
            return [alert.title for alert in alerts.alerts(session, kind="contract", open_only=True)]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def test_counts_of_all_devices_add_up_by_rule(world: World) -> None:
    world.send("cam-1", 3, 1)
    world.send("cam-2", 0, 4)
    world.send("cam-2", 5, 0)
    world.send("cam-2")  # an older agent, which counts no rules
    world.send("stranger", 50, 50)
    age, city = world.rules()
    assert (age["rule"], age["rows"], age["violations"], age["broken"]) == ("age must be from 0 to 120", 300, 8, True)
    assert age["devices"] == [{"device": "cam-2", "violations": 5}, {"device": "cam-1", "violations": 3}]
    assert (city["violations"], city["share"], city["broken"]) == (5, 0.0166667, False)


def test_an_alert_comes_with_the_rule_in_words_and_goes_after_an_hour_without(world: World) -> None:
    world.send("cam-1", 0, 0)
    assert world.scan.tick() == 0
    world.send("cam-1", 1, 0)
    assert world.scan.tick() == 1
    assert world.scan.tick() == 0, "told once"
    assert world.open() == ["quality gets values that break its contract: age must be from 0 to 120 (0.5 % of rows)"]
    world.send("cam-2", 99, 0)
    assert world.scan.tick() == 0, "nobody is told again"
    (title,) = world.open()
    assert title.endswith("(33 % of rows)"), "but it says what is measured now"
    world.now += 2 * 3600
    assert world.scan.tick() == 1
    assert world.open() == []


def test_many_broken_rules_are_one_alert_until_all_are_kept(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(Rule(field=f"s{at}", check="range", low=0, high=at + 1) for at in range(8))
    monkeypatch.setattr(World, "schema", lambda *_: ModelSchema(tensors=(), inputs=(), outputs=(), contract=many))
    world = World(database, tmp_path)
    world.send("cam-1", 1, 1, 1, 0, 0, 0, 0, 0)
    assert world.scan.tick() == 3
    assert len(world.open()) == 3
    world.send("cam-2", 1, 1, 1, 1, 1, 1, 40, 0)
    world.scan.tick()
    assert world.open() == [
        "quality gets values that break 7 of the 8 rules of its contract, most: s6 must be from 0 to 7 (20 % of rows)"
    ]
    with world.database.read() as session:
        (alert,) = alerts.alerts(session, kind="contract", open_only=True)
    assert "- s6 must be from 0 to 7: 40 of 200 rows" in alert.body
    assert "- cam-2: 46" in alert.body
    world.now += 2 * 3600
    world.send("cam-1", 1, 0, 0, 0, 0, 0, 0, 0, start_ms=round(1000 * world.now) - 60_000)
    world.scan.tick()
    assert [title.split(",")[0] for title in world.open()] == [
        "quality gets values that break 1 of the 8 rules of its contract"
    ], "what was told together stays together"
    world.now += 2 * 3600
    world.scan.tick()
    assert world.open() == []


def test_one_devices_page_reads_nobody_elses_windows_and_facts(world: World) -> None:
    world.send("cam-1", 3, 1)
    world.send("cam-2", 0, 4)
    asked: list[tuple[str, str]] = []
    with world.database.read() as session:

        def note(_connection: object, _cursor: object, statement: str, values: object, *_more: object) -> None:
            asked.append((statement, str(values)))

        event.listen(session.get_bind(), "before_cursor_execute", note)
        try:
            (state,) = gather(session, world.schema, start_ms=0, end_ms=START_MS * 2, device="cam-1")
        finally:
            event.remove(session.get_bind(), "before_cursor_execute", note)
    assert [rule.violations for rule in state.rules] == [3, 1]
    rows = [(statement, values) for statement, values in asked if "windows.body" in statement or "devices" in statement]
    assert len(rows) >= 2
    assert not [statement for statement, values in rows if "cam-1" not in values]


def test_a_bundle_that_nobody_pushed_has_no_contract(world: World) -> None:
    world.send("cam-1", 9, 9, digest="sha256:" + "ee" * 32)
    assert world.client.get("/api/v1/contracts").json()["items"] == []
    assert world.scan.tick() == 0


def test_a_stored_contract_that_cannot_be_written_holds_up_no_other_bundle(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good, far = ("sha256:" + digit * 64 for digit in "123")
    odd = {"fields": {"city": {"categories": ["\ud800"]}}}
    beyond = {"fields": {"age": {"range": [0, 10**400]}}}
    stored = (("odd", bad, odd), ("near", good, NEAR), ("far", far, beyond))
    with database.write() as session:
        for at, (model, digest, contract) in enumerate(stored):
            session.add(
                ModelVersion(
                    model=model,
                    version="1",
                    digest=digest,
                    counter=at,
                    state="active",
                    task="regression",
                    framework="",
                    size=1,
                    variants=[],
                    created_at=0.0,
                    created_by="ci",
                )
            )
            set_contract(session, model, contract, by="op", now=1.0)
        session.add(DeviceRow(id="cam-1", state="accepted", public_key="", verifier="", token_id="", enrolled_at=0.0))
        for slot, digest in (("a", bad), ("b", good), ("c", far)):
            assignments.assign(session, "cam-1", slot, SlotTarget(digest=digest), now=1.0)
    upkeep = CountingUpkeep(database, lambda: 2.0)
    assert upkeep.tick() == 1
    with database.read() as session:
        targets = assignments.targets(session, "cam-1")
        assert served_rules(session, far) == ()
    assert (targets["a"].counting, targets["b"].counting is None) == (None, False)
    assert f"what to count of {bad} can't be written" in caplog.text
    assert upkeep.tick() == 0
