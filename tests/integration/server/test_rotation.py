"""A whole server, and the agent's own parts: credentials are replaced although either end is cut off at any step."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from fixtures_broker import Mosquitto, PahoDevice, eventually
from operator_client import logged_in
from shoal_agent import Agent
from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.rotation import Rotation
from shoal_agent.domain.backoff import Backoff
from shoal_agent.settings import Settings
from shoal_protocol.errors import CallerError, PeerError
from shoal_server.bootstrap import Server
from shoal_server.storage.settings import Pace
from shoal_server.testing import settings_in

PACE = Pace(publisher_s=0.05, controller_s=5, scan_s=5)


class Cut(BaseException):
    """The power is gone."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(settings_in(tmp_path_factory.mktemp("server") / "data", pace=PACE))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def operator(server: Server) -> Iterator[httpx2.Client]:
    with logged_in(server) as client:
        yield client


def joined(operator: httpx2.Client, state: Path, name: str) -> Path:
    token = operator.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
    join(str(operator.base_url), token, state, name=name, labels={}, facts={}, clock=lambda: 0.0)
    return state


class Half:
    """What an agent has of its credentials after a start: read from the disk, nothing in memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def __init__(self, state: Path) -> None:
        self.folder = IdentityFolder(state / "identity")
        self.credentials = Credentials(self.folder, self.folder.load())
        self.http = HttpClient(self.credentials.identity.url, login=self.credentials)
        self.rotation = Rotation(self.credentials, self.http, backoff=Backoff(), chance=lambda: 0.0)

    def turns(self) -> None:
        """Do what is due, as the thread does."""
        self.rotation._wanted = 2
        for _ in range(6):
            try:
                self.rotation.turn()
            except PeerError:  # the thread would wait and go on
                continue

    def answers(self) -> int:
        """Ask over HTTP until the credentials that hold were found: at most both."""
        return next((s for s in (self._ask(), self._ask()) if s != 401), 401)

    def _ask(self) -> int:
        return self.http.exchange("GET", "/api/v1/device/desired")[0]


def cut_before(call: Callable[..., Any]) -> Callable[..., Any]:
    def cut(*_: Any, **__: Any) -> Any:
        raise Cut

    return cut


def cut_after(call: Callable[..., Any]) -> Callable[..., Any]:
    def cut(*args: Any, **words: Any) -> Any:
        call(*args, **words)
        raise Cut

    return cut


STEPS = ["keep_key", "adopt", "confirm", "exchange /credential", "exchange /confirmation"]


@pytest.mark.parametrize("cut", [cut_before, cut_after])
@pytest.mark.parametrize("step", STEPS)
def test_a_cut_at_any_step_leaves_credentials_that_hold_and_can_be_finished(
    operator: httpx2.Client, server: Server, tmp_path: Path, step: str, cut: Any
) -> None:
    name = f"{cut.__name__}-{step.translate(str.maketrans(' /', '--'))}"
    state = joined(operator, tmp_path / "device", name)
    before = IdentityFolder(state / "identity").load()
    _cut_off(state, step, cut)
    with Half(state) as second:
        assert second.answers() == 200
        assert admitted(server, name, second) or not second.credentials.is_confirmed, "else once it has confirmed again"
        second.turns()
    with Half(state) as third:
        assert (third.credentials.identity.credential, third.credentials.is_confirmed) == (2, True)
        assert third.answers() == 200
        assert admitted(server, name, third)
        assert httpx2.get(f"{server.runtime.url}/v2/", auth=(name, before.secret), trust_env=False).status_code == 401
        kept = {path.name for path in (state / "identity").glob("key*.pem")}
        assert kept == {"key.pem", third.credentials.identity.key_file}


def _cut_off(state: Path, step: str, cut: Any) -> None:
    """Begin to rotate, and end at a step as if the power had gone."""
    step, _, path = step.partition(" ")
    with Half(state) as first:
        owner: Any = first.http if step == "exchange" else first.credentials
        real = getattr(owner, step)

        def chosen(*args: Any, **words: Any) -> Any:
            return (cut(real) if not path or str(args[1]).endswith(path) else real)(*args, **words)

        setattr(owner, step, chosen)
        with pytest.raises(Cut):
            first.turns()


def admitted(server: Server, name: str, half: Half) -> bool:
    """Whether the broker takes what the device would show it."""
    device = PahoDevice(server.runtime.broker_url, name, half.credentials.broker_secret())
    device.close()
    return device.answer == "Success"


@contextmanager
def serving(data: Path, **settings: Any) -> Iterator[Server]:
    server = Server(settings_in(data, pace=PACE, **settings))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_a_device_goes_back_to_what_a_restored_server_knows(tmp_path: Path) -> None:
    data, backup, state = tmp_path / "data", tmp_path / "backup", tmp_path / "device"
    with serving(data) as server, logged_in(server) as operator:
        joined(operator, state, "cam-1")
    shutil.copytree(data, backup)
    with serving(data) as server, Half(state) as device:
        device.http.url = server.runtime.url
        device.turns()
        assert device.credentials.identity.credential == 2
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    with serving(data) as server:
        with Half(state) as device:
            device.http.url = server.runtime.url
            assert device.answers() == 200
        with Half(state) as device:
            device.http.url = server.runtime.url
            assert (device.credentials.identity.credential, device.answers()) == (1, 200)
            device.turns()
            assert device.credentials.identity.credential == 2


def test_a_running_agent_rotates_when_it_is_asked_and_is_cut_off_when_it_is_revoked(
    server: Server, operator: httpx2.Client, tmp_path: Path
) -> None:
    _rotates_and_is_revoked(server, operator, tmp_path / "device")
    actions = [row["action"] for row in operator.get("/api/v1/audit").json()["items"]]
    assert {"device.rotate", "device.rotated", "device.revoke"} <= set(actions)


@pytest.mark.broker
def test_so_it_does_over_a_mosquitto(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serving(
        tmp_path / "data", broker=mosquitto.url, broker_credentials_dir=mosquitto.folder
    ) as server, logged_in(server) as operator:  # fmt: skip
        _rotates_and_is_revoked(server, operator, tmp_path / "device")
        assert operator.get("/api/v1/devices/cam-1").json()["state"] == "revoked"


def _rotates_and_is_revoked(server: Server, operator: httpx2.Client, state: Path) -> None:
    joined(operator, state, "cam-1")
    before = IdentityFolder(state / "identity").load()
    with Agent(state, Settings(poll_s=0.2, reconnect_max_s=0.2, preflight_seconds=5)) as agent:
        eventually(lambda: operator.get("/api/v1/devices/cam-1").json()["online"], within_s=60, what="online by MQTT")
        asked = operator.post("/api/v1/devices/cam-1/rotate")
        assert asked.json()["credential"]["rotating"] is True, asked.text

        def told() -> Any:
            found = operator.get("/api/v1/devices/cam-1").json()
            return found["online"] and not found["credential"]["rotating"] and found["credential"]["number"] == 2

        eventually(told, within_s=60, what="rotated, and online again")
        after = IdentityFolder(state / "identity").load()
        assert after.secret != before.secret
        old = PahoDevice(server.runtime.broker_url, "cam-1", before.secret)
        assert not old.is_connected
        old.close()
        eventually(lambda: agent.status()["link"]["protocol"].startswith("MQTT"), within_s=60, what="MQTT again")
        assert operator.post("/api/v1/devices/cam-1/revoke").status_code == 200
        eventually(lambda: not agent.connected, within_s=60, what="thrown out")
        assert httpx2.get(f"{server.runtime.url}/v2/", auth=("cam-1", after.secret), trust_env=False).is_error


def test_of_two_machines_with_one_identity_one_stays_and_the_other_joins_anew(
    operator: httpx2.Client, tmp_path: Path
) -> None:
    original, copy = joined(operator, tmp_path / "device", "twin"), tmp_path / "copy"
    shutil.copytree(original, copy)
    settings = Settings(poll_s=0.2, reconnect_max_s=0.3, preflight_seconds=5)

    def twin() -> Any:
        return operator.get("/api/v1/devices/twin").json()

    agents = {state: Agent(state, settings) for state in (original, copy)}

    def out() -> list[Path]:
        refused = {state: agent.status()["refused"] or {} for state, agent in agents.items()}
        return [state for state, told in refused.items() if told.get("code") == "credentials"]

    try:
        for agent in agents.values():
            agent.start()
        eventually(lambda: twin()["clone_suspected_at"], within_s=60, what="the suspicion")
        assert "twin seems to exist twice" in str(operator.get("/api/v1/alerts").json())
        assert operator.post("/api/v1/devices/twin/rotate").status_code == 200
        eventually(lambda: not twin()["credential"]["rotating"], within_s=60, what="the rotation")
        loser = eventually(out, within_s=60, what="one of them is out")[0]
        winner = original if loser == copy else copy
        eventually(lambda: agents[winner].connected and out() == [loser], within_s=60, what="the other one stays")
        agents.pop(loser).stop()
        _joins_anew(operator, loser)
        agents[loser] = Agent(loser, settings)
        agents[loser].start()
        eventually(lambda: operator.get("/api/v1/devices/other").json()["online"], within_s=60, what="both are online")
        eventually(lambda: twin()["online"], within_s=60, what="both are online")
        assert twin()["clone_suspected_at"] is None
    finally:
        for agent in agents.values():
            agent.stop()


def _joins_anew(operator: httpx2.Client, state: Path) -> None:
    """Try it without the word that gives the identity up, which is refused with advice; then with it."""
    url, token = str(operator.base_url), operator.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
    with pytest.raises(CallerError, match="belongs to the device 'twin' already") as caught:
        join(url, token, state, name="other", labels={}, facts={}, clock=lambda: 0.0)
    assert "--again" in caught.value.hint
    join(url, token, state, name="other", labels={}, facts={}, clock=lambda: 0.0, again=True)
