"""A real agent, a whole server, and a network between them that fails in every way: nothing is lost, none twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from faulty_proxy import FaultyProxy, Mode
from fixtures_broker import find_free_port
from operator_client import logged_in
from shoal_agent.adapters.enrolment import join
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.storage.settings import Pace, settings_from
from shoal_server.telemetry import store
from shoal_server.testing.bundles import push_bundle, tiny_bundle

PACE = Pace(publisher_s=0.05, controller_s=5, scan_s=60)
SETTINGS = (
    "window_s=0.3", "poll_s=0.3", "reconnect_max_s=0.5", "resend_s=2", "keepalive_s=5", "trial.seconds=1",
)  # fmt: skip
DEVICE = "cam-1"


class Scene:
    """A server, an agent in a process of its own, and a proxy on each way between them."""

    def __init__(self, server: Server, folder: Path, *, seed: int) -> None:
        self.server, self.state = server, folder / "device"
        self.http = FaultyProxy(int(server.runtime.url.rpartition(":")[2]), seed=seed)
        self.mqtt = FaultyProxy(int(server.runtime.broker_url.rpartition(":")[2]), seed=seed + 1)
        self.port = find_free_port()
        self.log = folder / "agent.log"
        self.predicted = 0
        self._halt = threading.Event()

    def join(self) -> None:
        url = self.server.runtime.url.replace("0.0.0.0", "127.0.0.1")
        with logged_in(self.server, url=url) as operator:
            token = operator.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
            bundle = tiny_bundle()
            assert push_bundle(operator, bundle, headers={}).status_code == 201
        through = f"https://127.0.0.1:{self.http.port}"
        join(through, token, self.state, name=DEVICE, labels={}, facts={}, clock=time.time)
        file = self.state / "identity" / "device.json"
        identity = json.loads(file.read_text())
        identity["mqtt_url"] = f"mqtts://127.0.0.1:{self.mqtt.port}"
        file.write_text(json.dumps(identity))
        with self.server.services.database.write() as session:
            target = SlotTarget(digest=bundle.digest, name="quality:1.0.0")
            assignments.assign(session, DEVICE, "quality", target, now=self.server.services.clock())
        self.server.services.signals.bump("desired")

    @contextmanager
    def agent(self) -> Iterator[None]:
        """Run it until the end, then end it in good order: what is left is told before."""
        words = [sys.executable, "-m", "shoal_agent.cli", "run", "--state", str(self.state)]
        words += ["--listen", f"127.0.0.1:{self.port}", *(word for entry in SETTINGS for word in ("--set", entry))]
        with self.log.open("ab") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)

    @contextmanager
    def predictions(self) -> Iterator[None]:
        """Ask for predictions all the time, and count the answers."""
        thread = threading.Thread(target=self._predict)
        thread.start()
        try:
            yield
        finally:
            self._halt.set()
            thread.join(30)

    def _predict(self) -> None:
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30) as client:
            while not self._halt.wait(0.02):
                answer = client.post("/v1/predict", json=[{"a": 0.5, "b": 1.5}])
                self.predicted += answer.status_code == 200

    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "status.json").read_text()))

    def protocol(self) -> str:
        try:
            return str(self.status()["link"]["protocol"])
        except (OSError, ValueError, KeyError):
            return ""

    def rows(self) -> int:
        """Rows of all windows that the server has stored."""
        with self.server.services.database.read() as session:
            return sum(window.n for window in store.windows_after(session, 0, 100_000))

    def until(self, true: Callable[[], Any], what: str) -> None:
        told = lambda: f"{what}; log of the agent: {self.log.read_text()[-3000:]}"  # noqa: E731 - read when it fails
        until = time.monotonic() + 120
        while not true():
            assert time.monotonic() < until, told()
            time.sleep(0.05)

    def windows_go_on(self) -> None:
        """Wait until the server has stored what was predicted from now on."""
        wanted = self.predicted
        self.until(lambda: self.rows() > wanted, "windows are stored")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    flags = {"data": tmp_path / "data", "lan": True, "listen": "127.0.0.1:0", "pace": PACE}
    server = Server(settings_from({}, flags))
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_windows_find_their_way_by_mqtt_by_http_and_back(server: Server, tmp_path: Path, seed: int) -> None:
    scene = Scene(server, tmp_path, seed=seed)
    with scene.http, scene.mqtt:
        scene.join()
        with scene.agent():
            scene.until(lambda: scene.protocol().startswith("MQTT"), "MQTT is up")
            scene.until(lambda: _is_active(scene), "the model answers")
            with scene.predictions():
                scene.windows_go_on()
                _break_mqtt(scene)
                _break_both(scene)
            scene.until(lambda: scene.rows() == scene.predicted, "every row is stored, once")
    assert scene.predicted > 50
    assert scene.rows() == scene.predicted
    assert scene.status()["spool"]["dropped"] == 0
    assert scene.status()["link"]["replaced"] == 0
    assert server.services.ingest.status().counts["clones"] == 0


def _is_active(scene: Scene) -> bool:
    return bool(scene.status().get("slots", {}).get("quality", {}).get("active"))


def _break_mqtt(scene: Scene) -> None:
    """In every way but one that cuts, HTTP takes over, and MQTT when it is whole again."""
    for mode in (Mode.REFUSE, Mode.HALF_OPEN, Mode.STALL):
        scene.mqtt.set(mode)
        scene.until(lambda: scene.protocol() == "HTTP", f"HTTP takes over while MQTT is {mode.value}")
        scene.windows_go_on()
        scene.mqtt.set(Mode.PASS)
        scene.until(lambda: scene.protocol().startswith("MQTT"), f"MQTT is back after {mode.value}")
        scene.windows_go_on()


def _break_both(scene: Scene) -> None:
    """Cut, spoil and slow down both ways, so that only what gets through in between is heard; then let all be whole."""
    for mode in (Mode.CUT, Mode.CORRUPT, Mode.DELAY):
        for proxy in (scene.http, scene.mqtt):
            proxy.set(mode)
        faults = scene.http.faults + scene.mqtt.faults
        if mode is not Mode.DELAY:
            scene.until(lambda least=faults + 5: scene.http.faults + scene.mqtt.faults >= least, f"5 times {mode}")
        else:
            scene.windows_go_on()
        for proxy in (scene.http, scene.mqtt):
            proxy.set(Mode.PASS)
        scene.windows_go_on()
