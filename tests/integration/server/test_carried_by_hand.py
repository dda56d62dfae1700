"""A device that never reaches its server after joining: a parcel there, mail back, on the whole server and agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import numpy as np
import pytest
from tuf.api.metadata import Metadata, Timestamp

from fixtures_broker import eventually
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.parcel_file import ParcelFile
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import FakePreflight
from shoal_server.bootstrap import Server, workers
from shoal_server.rollouts.evidence import Measurements
from shoal_server.storage.settings import Pace
from shoal_server.telemetry import store as telemetry
from shoal_server.testing import settings_in
from shoal_server.testing.bundles import push_bundle, tiny_bundle

NOBODY = "http://127.0.0.1:9"
PLAN = {
    "name": "quality-1",
    "slot": "quality",
    "bundle": "quality:1.0.0",
    "cohort": "all",
    "stages": [{"devices": {"percent": 100}, "soak": "1s"}],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pace = Pace(publisher_s=0.05, controller_s=0.2, scan_s=0.2)
    server = Server(settings_in(tmp_path / "data", pace=pace))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def ship(server: Server, operator: httpx2.Client, tmp_path: Path) -> Path:
    """The state folder of a device that has joined, and then left for the sea."""
    state = tmp_path / "ship"
    token = operator.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
    join(server.runtime.url, token, state, name="ship-1", labels={}, facts={}, clock=time.time)
    folder = IdentityFolder(state / "identity")
    folder.save(msgspec.structs.replace(folder.load(), url=NOBODY, mqtt_url=None))
    return state


def parcel(operator: httpx2.Client, path: Path) -> Path:
    def made() -> bytes | None:
        answer = operator.post("/api/v1/devices/ship-1/parcel")
        return answer.content if answer.status_code == 200 else None

    path.write_bytes(eventually(made, what="a parcel"))
    return path


def test_gates_judge_a_parcel_too_by_what_the_release_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def measurements(reference: object) -> Measurements:
        asked.append(reference)
        return Measurements(server.services.bundles.reference)

    monkeypatch.setattr(workers, "Measurements", measurements)
    server.services.settle_rollouts()
    assert asked == [server.services.bundles.reference], "not by what was learnt of the first windows"


def test_a_parcel_goes_and_mail_comes_back(server: Server, operator: httpx2.Client, ship: Path, tmp_path: Path) -> None:
    answer = operator.post("/api/v1/devices/ship-1/parcel")
    assert (answer.status_code, "nothing is assigned" in answer.json()["detail"]) == (409, True)
    bundle = tiny_bundle()
    assert push_bundle(operator, bundle, headers={}, tag="1.0.0").status_code == 201
    assert operator.post("/api/v1/rollouts", json=PLAN).status_code == 201
    path = parcel(operator, tmp_path / "ship.parcel")  # asking for it offers what the rollout wants there

    settings = Settings(window_s=0.2, trial_seconds=0.2, trial_predictions=3, listen="none")
    overrides = Overrides(link=lambda _identity: None, preflight=FakePreflight())
    with Agent(ship, settings, overrides=overrides) as agent:
        assert agent.import_parcel(path)["new"]
        eventually(lambda: agent.status()["slots"]["quality"]["state"] == "idle", what="the trial is over")
        agent.model("quality").predict({"x": np.ones((2, 2), np.float32)})
        eventually(lambda: agent.status()["spool"]["windows"] == 1, what="a window in the spool")
        agent.export_mail(tmp_path / "ship.mail")

    lines = (tmp_path / "ship.mail").read_bytes().splitlines()
    for line in [*lines, *lines]:  # carried twice
        answer = operator.post("/api/v1/devices/ship-1/mail", content=line)
        assert (answer.status_code, answer.json()["malformed"]) == (200, [])
    shown = operator.get("/api/v1/devices/ship-1").json()
    assert shown["slots"]["quality"]["proven"] == bundle.digest
    with server.services.database.read() as session:
        found = telemetry.windows(session, slot="quality", start_ms=0, end_ms=2**50)
    assert [window.n for window in found] == [2]
    rollout = lambda: operator.get("/api/v1/rollouts/quality-1").json()  # noqa: E731 - asked again and again
    eventually(lambda: rollout()["state"] == "completed", what="the rollout counts the device that nobody reached")
    actions = [row["action"] for row in operator.get("/api/v1/audit").json()["items"]]
    assert {"device.parcel", "device.mail"} <= set(actions)

    path = parcel(operator, tmp_path / "again.parcel")  # its receipt empties the spool
    with Agent(ship, settings, overrides=overrides) as agent:
        waiting = agent.status()["spool"]["windows"]
        told = agent.import_parcel(path)
        assert (waiting, told["acknowledged"], told["new"]) == (1, 3, False)
        assert agent.status()["spool"]["windows"] == 0

    forged = lines[0].replace(b"birth", b"event", 1)
    refused = operator.post("/api/v1/devices/ship-1/mail", content=forged)
    assert (refused.status_code, "was not signed by the key" in refused.json()["detail"]) == (403, True)


def test_the_long_lived_timestamp_of_a_parcel_is_older_than_the_published_one(
    server: Server, operator: httpx2.Client, ship: Path, tmp_path: Path
) -> None:
    del ship
    assert push_bundle(operator, tiny_bundle(), headers={}, tag="1.0.0").status_code == 201
    assert operator.post("/api/v1/rollouts", json=PLAN).status_code == 201
    path = parcel(operator, tmp_path / "p")
    with ParcelFile(path) as opened, opened.open("GET", "parcel:/trust/timestamp.json") as answer:
        carried = Metadata[Timestamp].from_bytes(answer.read()).signed
    published = Metadata[Timestamp].from_bytes(operator.get("/trust/timestamp.json").content).signed
    assert published.version == carried.version + 1
    assert (carried.expires - published.expires).days == 12
    operator.post("/api/v1/devices/ship-1/revoke")
    assert operator.post("/api/v1/devices/ship-1/parcel").status_code == 409
    assert operator.post("/api/v1/devices/ship-1/mail", content=b"{}").status_code == 409
