"""Quality from windows and labels to what people see: sums by the hour, the API, segments, comparison, alerts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from shoal_protocol.profile.labels import ErrorSums, LabelGroup
from shoal_server.access import Role
from shoal_server.alerts import store as alerts
from shoal_server.quality import store
from shoal_server.quality.routes import router
from shoal_server.quality.scan import GRACE_MS, QualityScan
from shoal_server.storage.database import Database
from shoal_server.telemetry.labels import LabelSums
from shoal_server.telemetry.rollup import HOUR_MS
from shoal_server.testing import api_token, fake_services, program_of
from shoal_server.testing.quality_fleet import SCHEMA, QualityFleet, reference

REFERENCE = reference()
OLD, NEW = "sha256:" + "aa" * 32, "sha256:" + "bb" * 32
NOON_MS = 1_800_000_000_000
DEVICES = {f"d{at}": "bern" if at < 5 else "basel" for at in range(10)}
REAL = 0.79
"""The model's accuracy: the draw's Bayes rate."""


class World:
    """A database with a fleet, the scan, and the API."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.fleet = QualityFleet(database, DEVICES, digest=OLD)
        self.now = NOON_MS / 1000
        self.scan = QualityScan(database, lambda _digest: REFERENCE, lambda: self.now)
        bundles = SimpleNamespace(schema=lambda _digest: SCHEMA)
        services = fake_services(
            database, folder, reference=lambda _digest: REFERENCE, bundles=bundles, clock=lambda: self.now
        )
        self.client = TestClient(program_of(services, [router]))
        self.client.headers["authorization"] = f"Bearer {api_token(services, Role.VIEWER)}"

    def predict(self, hours: range, **how: object) -> None:
        for hour in hours:
            self.fleet.predict(NOON_MS + hour * HOUR_MS, **how)  # type: ignore[arg-type]

    def show(self, **query: object) -> dict:
        answer = self.client.get("/api/v1/quality", params={"slot": "quality", **query})
        assert answer.status_code == 200, answer.text
        (item,) = answer.json()["items"]
        return item

    def alerts(self) -> list[tuple[str, str]]:
        with self.database.read() as session:
            found = alerts.alerts(session, kind="quality", open_only=True)
            return sorted((alert.key.rpartition(":")[2], alert.severity) for alert in found)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def test_windows_are_summed_by_the_hour_once(world):
    world.predict(range(-3, 0))
    assert world.scan.tick() == 30
    assert world.scan.tick() == 0
    world.predict(range(-3, -2))  # late ones find their hour
    assert world.scan.tick() == 10
    with world.database.read() as session:
        hours = store.said_hours(session, slot="quality", start_ms=0, end_ms=2**50)
    assert sorted({(one.hour_ms, one.n) for one in hours}) == [
        (NOON_MS // HOUR_MS * HOUR_MS - 3 * HOUR_MS, 200),
        (NOON_MS // HOUR_MS * HOUR_MS - 2 * HOUR_MS, 100),
        (NOON_MS // HOUR_MS * HOUR_MS - HOUR_MS, 100),
    ]


def test_estimate_and_truth_agree_and_confidence_alone_would_not(world):
    world.predict(range(-4, 0), labelled=0.5, centre=1.0)
    world.scan.tick()
    item = world.show()
    truth, estimate = item["truth"], item["estimate"]
    assert (truth["verdict"], estimate["verdict"], truth["n"], item["predictions"]) == ("value", "value", 2000, 4000)
    assert estimate["accuracy"]["low"] - 0.02 < truth["accuracy"]["value"] < estimate["accuracy"]["high"] + 0.02
    assert truth["accuracy"]["devices"] == 10
    assert truth["ece"] > 0.04, "over-confident"
    assert sum(map(sum, truth["confusion"]["rows"])) == 2000
    assert [one["name"] for one in truth["classes"]] == ["bad", "good"]
    for name in ("precision", "recall", "specificity", "f1"):
        assert estimate[name]["low"] - 0.02 < truth[name] < estimate[name]["high"] + 0.02, name
    assert 0.8 < estimate["auc"]["value"] < 1
    assert estimate["confusion"]["classes"] == ["bad", "good"]
    assert sum(map(sum, estimate["confusion"]["rows"])) == pytest.approx(4000, abs=1)
    assert item["reference"]["accuracy"] == pytest.approx(REAL, abs=0.02)
    assert len(item["hours"]) == 4
    assert all(hour["truth"] and hour["estimate"] for hour in item["hours"])
    assert item["label_shift"]["verdict"] == "shifted", "the world's centre moved, and so did the mix of classes"


def test_without_labels_and_with_few_predictions_the_answers_say_so(world):
    world.fleet.predict(NOON_MS - HOUR_MS, rows=3)
    world.scan.tick()
    item = world.show()
    assert item["truth"]["verdict"] == "none"
    assert item["estimate"] == {"verdict": "too_few", "reason": "too few: 30 predictions, 50 are needed"}
    assert item["label_shift"]["verdict"] == "too_few"


def test_a_segment_that_is_worse_is_shown(world):
    world.predict(range(-4, 0), labelled=0.5, flipped={"bern": 0.3})
    world.scan.tick()
    segments = world.show(segment_by="site")["segments"]
    by_name = {one["name"]: one for one in segments["groups"]}
    assert segments["by"] == "site"
    assert by_name["bern"]["accuracy"]["value"] < by_name["basel"]["accuracy"]["value"] - 0.1
    assert by_name["bern"]["shown"]
    assert by_name["bern"]["gap"]["high"] < 0
    assert segments["gap"] > 0.1
    assert [one["name"] for one in world.show(segment_by="line")["segments"]["groups"]] == ["(none)"]
    assert world.show(cohort="site = basel")["truth"]["accuracy"]["devices"] == 5


def test_a_regression_has_its_labels_by_the_hour_and_gaps_between_segments(world):
    sums = LabelSums()
    for device, site in DEVICES.items():
        off = 4.0 if site == "bern" else 1.0
        errors = ErrorSums(40, 0.0, 40 * off, 40 * off**2, 0.0, 400.0)
        group = LabelGroup("quality", OLD, NOON_MS - HOUR_MS, 60_000, cells=((0, 0, 3, 40),), errors=errors)
        sums.add(device, [group], latest_ms=NOON_MS)
    with world.database.write() as session:
        sums.save(session)
    item = world.show(segment_by="site")
    assert [(hour["labels"], hour["truth"]) for hour in item["hours"]] == [(400, None)]
    groups = {one["name"]: one for one in item["segments"]["groups"]}
    assert groups["bern"]["gap"]["value"] == pytest.approx(3.0)
    assert groups["bern"]["shown"]


def test_two_bundles_are_compared_on_labels_and_outputs(world):
    newer = QualityFleet(world.database, {f"n{at}": "bern" for at in range(10)}, digest=NEW, seed=2)
    world.predict(range(-4, 0), labelled=1.0, flipped={"bern": 0.25, "basel": 0.25})
    for hour in range(-4, 0):
        newer.predict(NOON_MS + hour * HOUR_MS, labelled=1.0)
    world.scan.tick()
    ask = {"slot": "quality", "a": OLD, "b": NEW}
    found = world.client.get("/api/v1/quality/comparison", params=ask).json()
    assert (found["feedback"]["metric"], found["feedback"]["verdict"]) == ("accuracy", "b_higher")
    assert found["feedback"]["low"] > 0.02
    assert (found["feedback"]["devices"], found["feedback"]["hours"]) == ([10, 10], 4)
    assert found["mean_confidence"]["verdict"] == "none"
    assert found["estimated_accuracy"]["verdict"] == "none", "no confidence shows that the truth was turned"
    assert all(abs(value - REAL) < 0.02 for value in found["estimated_accuracy"]["values"])
    assert {one["class"]: one["verdict"] for one in found["answers"]} == {"bad": "none", "good": "none"}
    last = world.client.get("/api/v1/quality/comparison", params={**ask, "hours": 1}).json()["feedback"]
    assert last["hours"] <= 1
    assert world.client.get("/api/v1/quality/comparison", params={**ask, "a": "quality:9"}).status_code == 404


def test_bundles_that_never_ran_at_the_same_time_are_not_compared(world):
    newer = QualityFleet(world.database, {f"n{at}": "bern" for at in range(10)}, digest=NEW, seed=2)
    world.predict(range(-4, -2), labelled=1.0)
    newer.predict(NOON_MS - HOUR_MS, labelled=1.0)
    world.scan.tick()
    found = world.client.get("/api/v1/quality/comparison", params={"slot": "quality", "a": OLD, "b": NEW}).json()
    assert (found["feedback"]["verdict"], found["feedback"]["hours"]) == ("too_few", 0)
    assert found["feedback"]["reason"] == "the bundles never ran in the same hour"
    assert found["feedback"]["low"] is None


def test_a_model_that_got_worse_alarms_by_its_labels_and_a_good_one_does_not(world):
    world.predict(range(-6, 0), labelled=0.2)
    world.now = NOON_MS / 1000 + GRACE_MS / 1000
    world.scan.tick()
    assert world.alerts() == []
    world.predict(range(30), labelled=0.2, flipped={"bern": 0.4, "basel": 0.4})
    world.now += 30 * 3600
    world.scan.tick()
    assert world.alerts() == [("truth", "critical")]
    world.predict(range(31, 60), labelled=0.2)
    world.now += 30 * 3600
    world.scan.tick()
    assert world.alerts() == []


def test_without_labels_the_estimate_warns(world):
    world.predict(range(-6, 0))
    world.now = NOON_MS / 1000 + GRACE_MS / 1000
    world.scan.tick()
    assert world.alerts() == []
    world.fleet.predict(NOON_MS + 26 * HOUR_MS, rows=500, spread=0.5)  # rows that the model is unsure about
    world.now += 28 * 3600
    world.scan.tick()
    assert world.alerts() == [("estimate", "warning")]


def test_what_is_asked_wrongly_is_told(world):
    for query in ({"cohort": "site ="}, {"model": "quality:1.0"}, {"until": "2027-01-01T00:00:00"}, {"hours": 0}):
        answer = world.client.get("/api/v1/quality", params={"slot": "quality", **query})
        assert answer.status_code in {400, 404, 422}, (query, answer.text)
