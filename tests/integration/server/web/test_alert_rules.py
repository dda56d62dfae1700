"""The alert rules that are shipped speak of metrics that exist."""

import re
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client import generate_latest

from shoal_server import bootstrap
from shoal_server.alerts.store import raise_alert
from shoal_server.loops import Loop
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, settings_in

RULES = Path(__file__).parents[4] / "deploy" / "prometheus" / "alerts.yml"


@pytest.fixture
def program(database: Database, tmp_path: Path) -> Services:
    services = bootstrap.build_services(settings_in(tmp_path), database, FakeClock(), url="http://testserver")
    loop = Loop("probe", lambda: None, every_s=1.0, clock=services.clock, signals=services.signals)
    TestClient(bootstrap.build_app(services, [loop])).get("/healthz")  # the first request begins the counts
    return services


def _values(program: Services) -> dict[str, float]:
    lines = generate_latest(program.metrics).decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


def _rules() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_metric_of_a_rule_exists(program: Services) -> None:
    said = generate_latest(program.metrics).decode()
    existing = set(re.findall(r"^# TYPE (\S+)", said, re.MULTILINE))
    named = {name for rule in _rules() for name in re.findall(r"\bshoal_[a-z_]+", str(rule["expr"]))}
    assert len(named) > 10
    assert named - existing == set()


def test_every_rule_says_what_to_do_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in _rules()]
    assert len(names) == len(set(names))
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in _rules())  # type: ignore[index]


def test_the_gauges_follow_what_happens(program: Services) -> None:
    before = _values(program)
    assert (before["shoal_drift_alerts_open"], before["shoal_rollouts_paused"], before["shoal_registry_bytes"]) == (
        0,
        0,
        0,
    )
    with program.database.write() as session:
        raise_alert(
            session,
            key="drift:x",
            kind="drift",
            subject="slot:quality",
            severity="warning",
            title="x",
            body="",
            now=program.clock(),
        )
    assert _values(program)["shoal_drift_alerts_open"] == 1
