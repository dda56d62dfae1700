"""Bundles without data, and contracts set at the server: learnt and counted with a real server and real agents."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures_broker import eventually
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.judge import InProcessJudge
from shoal_agent.bootstrap import Overrides
from shoal_converter import pack
from shoal_converter.pack_options import PackOptions
from shoal_protocol.errors import CallerError
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.storage.settings import Pace
from shoal_server.testing import settings_in

PACE = Pace(publisher_s=0.1, controller_s=1.0, scan_s=0.3)
QUICK = {"window_s": 0.25, "trial.predictions": 5, "trial.seconds": 1.0, "resend_s": 5.0, "listen": "none"}
NAMES = ("cam-1", "cam-2")


def rows(random: np.random.Generator, n: int = 40, shift: float = 0.0) -> np.ndarray:
    x = random.normal([20.0, 101_325.0, 0.0], [2.0, 40.0, 1.0], size=(n, 3))
    x[:, 0] += shift
    return x.astype(np.float32)


class Fleet:
    """Two devices that predict all the time, each with rows of its own."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        self.agents = agents
        self.shift: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        random = np.random.default_rng(7)
        while not self._stop.wait(0.04):
            for name, agent in self.agents.items():
                with suppress(CallerError):  # it is stopped just now
                    if "quality" in agent.slots.names():
                        agent.model("quality").predict({"x": rows(random, shift=self.shift.get(name, 0.0))})

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        for agent in self.agents.values():
            agent.stop()

    def models(self) -> list[Any]:
        """The model that answers on each device."""
        try:
            return [agent.slots.get("quality") for agent in self.agents.values()]
        except CallerError:  # one is being started
            return [None]

    def specs(self) -> set[str]:
        """What is counted, by each device's own word."""
        models = self.models()
        return {"none" if model is None or model.spec is None else model.spec.hash for model in models}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(settings_in(tmp_path / "data", pace=PACE, season="none"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fleet(server: Server, operator: httpx2.Client, tmp_path: Path) -> Iterator[Fleet]:
    token = operator.post("/api/v1/join-tokens", json={"uses": 2, "labels": {}}).json()["token"]
    agents = {}
    turns = threading.Semaphore(1)
    for name in NAMES:
        state = tmp_path / name
        join(server.runtime.url, token, state, name=name, labels={}, facts={}, clock=time.time)
        agents[name] = Agent(state, QUICK, overrides=Overrides(preflight_turns=turns, judge=InProcessJudge))
        agents[name].start()
    fleet = Fleet(agents)
    yield fleet
    fleet.stop()


def release(server: Server, operator: httpx2.Client, *, reference: bool) -> str:
    """Pack a model, push it, and assign it to both devices; returns its digest."""
    random = np.random.default_rng(0)
    sample = rows(random, 60)
    model = LogisticRegression().fit((sample - [20, 101_325, 0]) / [2, 40, 1], sample[:, 0] > 20)
    bundle = pack(model, sample=sample, tag="quality:1.0.0", options=PackOptions(reference=reference))
    assert (bundle.reference is None) is not reference
    token = operator.post("/api/v1/tokens", json={"name": "ci", "role": "releaser"}).json()["token"]
    bundle.push(server.runtime.url, token=token)
    program = server.services
    with program.database.write() as session:
        target = SlotTarget(digest=bundle.digest, name="quality:1.0.0")
        for name in NAMES:
            assignments.assign(session, name, "quality", target, now=time.time())
    program.signals.bump("desired")
    return bundle.digest


@pytest.mark.slow
def test_a_bundle_without_data_gets_one_set_of_cells_for_the_fleet_and_drift_works_on_it(
    server: Server, operator: httpx2.Client, fleet: Fleet
) -> None:
    digest = release(server, operator, reference=False)

    def learnt() -> bool:
        return len(fleet.specs()) == 1 and "none" not in fleet.specs()

    eventually(learnt, within_s=120, what="both devices count on the same learnt cells", every_s=0.2)
    reference = server.services.reference(digest)
    assert reference is not None
    assert [stream.name for stream in reference.spec.streams][:3] == ["x0", "x1", "x2"]

    def states() -> list[dict[str, Any]]:
        found = operator.get("/api/v1/drift", params={"slot": "quality", "scope": "device", "limit": 200}).json()
        return list(found["items"])

    def whole() -> bool:
        return {one["verdict"] for one in states()} == {"none"}

    eventually(whole, within_s=180, what="baselines are whole", every_s=0.5)
    fleet.shift["cam-2"] = 6.0

    def drifts() -> set[tuple[str, str]]:
        return {(one["name"], one["feature"]) for one in states() if one["verdict"] == "drift"}

    eventually(lambda: ("cam-2", "x0") in drifts(), within_s=120, what="the device that changed drifts", every_s=0.5)
    assert all(name == "cam-2" for name, _ in drifts())
    assert not operator.get("/api/v1/alerts", params={"kind": "gap"}).json()["items"]
    # what was learnt survives a restart of the device without the server's help
    agent = fleet.agents["cam-1"]
    before = fleet.specs()
    agent.stop()
    agent.start()
    eventually(lambda: fleet.specs() == before, within_s=60, what="the stored document is applied again", every_s=0.1)


@pytest.mark.slow
def test_a_contract_set_at_the_server_is_counted_by_the_devices(
    server: Server, operator: httpx2.Client, fleet: Fleet
) -> None:
    release(server, operator, reference=True)
    contract = {"fields": {"x0": {"range": [0, 40]}, "x2": {"missing": 0}}}
    refusing = {"fields": {"x0": {"range": [0, 40], "action": "refuse"}}}
    assert operator.put("/api/v1/contracts/quality", json=refusing).status_code == 400
    assert operator.put("/api/v1/contracts/quality", json={"fields": {"nope": {"missing": 0}}}).status_code == 422
    assert operator.put("/api/v1/contracts/nothing", json=contract).status_code == 404
    told = operator.put("/api/v1/contracts/quality", json=contract).json()
    assert told["rules"] == ["x0 must be from 0 to 40", "x2 must not be missing"]

    def rules() -> list[dict[str, Any]]:
        items = operator.get("/api/v1/contracts", params={"slot": "quality"}).json()["items"]
        return list(items[0]["rules"]) if items else []

    def counted() -> bool:
        return bool(rules()) and all(rule["rows"] > 200 for rule in rules())

    eventually(counted, within_s=120, what="devices count the rules", every_s=0.3)
    assert [(rule["violations"], rule["source"]) for rule in rules()] == [(0, "server"), (0, "server")]
    fleet.shift["cam-1"] = 40.0
    eventually(lambda: rules()[0]["violations"] > 100, within_s=60, what="violations are summed", every_s=0.3)
    assert {who["device"] for who in rules()[0]["devices"]} == {"cam-1"}
    assert operator.delete("/api/v1/contracts/quality").status_code == 200
    assert operator.get("/api/v1/contracts/quality").status_code == 404
    eventually(
        lambda: all(model is not None and model.counting is None for model in fleet.models()),
        within_s=60,
        what="devices count by their bundle again",
        every_s=0.2,
    )
