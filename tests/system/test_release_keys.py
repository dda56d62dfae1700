"""Release keys away from the server, with a real server and a real device: what a thief of the server can't do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import FakePreflight
from shoal_converter import Bundle
from shoal_converter.cli import run
from shoal_protocol.trust.assignment import SlotTarget
from shoal_protocol.trust.join_token import parse_join_token
from shoal_protocol.trust.targets import release_target
from shoal_server.access import Role
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.registry import trust_documents as documents
from shoal_server.registry.tables import TrustDocument
from shoal_server.storage.settings import Pace
from shoal_server.testing import api_token, settings_in
from shoal_server.testing.bundles import tiny_bundle

pytestmark = [pytest.mark.system, pytest.mark.slow]

PACE = Pace(publisher_s=0.05, controller_s=0.2, scan_s=5.0)


def until(met: Callable[[], Any], what: str, timeout_s: float = 45.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {timeout_s} s: {what}")


class Fleet:
    """One server, one device, and a release engineer's folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.server = Server(settings_in(folder / "data", pace=PACE))
        self.server.start()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SHOAL_URL", self.server.runtime.url)
        monkeypatch.setenv("SHOAL_TOKEN", api_token(self.server.services, Role.ADMIN))
        self.token = api_token(self.server.services, Role.ADMIN, name="operator")
        self.agents: list[Agent] = []

    def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"{self.server.runtime.url}{path}"
        answer = httpx2.request(method, url, json=body or None, headers=headers, trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def device(self, name: str) -> Agent:
        token = self.call("POST", "/api/v1/join-tokens", uses=1)["token"]
        state = self.folder / name
        join(self.server.runtime.url, token, state, name=name, labels={}, facts={}, clock=time.time)
        settings = Settings(
            window_s=60.0, trial_predictions=5, trial_seconds=0.3, retry_max_s=0.2, trust_refresh_s=600.0, listen="none"
        )
        agent = Agent(state, settings, overrides=Overrides(preflight=FakePreflight()))
        agent.start()
        self.agents.append(agent)
        return agent

    def push(self, version: str, *options: str, code: int = 0) -> str:
        made = tiny_bundle(version=version)
        path = Bundle(made.manifest, made.config, made.files).write(self.folder / f"{version}.tar", force=True)
        assert run(["push", str(path), *options]) == code
        return made.digest

    def assign(self, device: str, digest: str) -> None:
        services = self.server.services
        with services.database.write() as session:
            assignments.assign(session, device, "quality", SlotTarget(digest=digest), now=services.clock())
        services.signals.bump("desired")

    def report(self, device: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/v1/devices/{device}")["slots"].get("quality") or {}
        return found

    def runs(self, device: str, digest: str) -> None:
        until(lambda: self.report(device).get("proven") == digest, f"{device} runs {digest}: {self.report(device)}")

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.server.stop()


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    found = Fleet(tmp_path, monkeypatch)
    yield found
    found.stop()


def test_from_development_trust_to_release_keys_and_a_stolen_server(fleet: Fleet) -> None:
    fleet.device("old")
    first = fleet.push("1.0.0")
    fleet.assign("old", first)
    fleet.runs("old", first)
    shutil.copytree(fleet.folder / "data" / "keys", fleet.folder / "backup")

    assert run(["keys", "init", "--url", fleet.server.runtime.url]) == 0  # adopts: nobody joins again
    key = ("--key", "shoal-keys/release-1.pem")
    second = fleet.push("2.0.0", *key)
    fleet.assign("old", second)
    fleet.runs("old", second)
    token = parse_join_token(fleet.call("POST", "/api/v1/join-tokens", uses=1)["token"])
    assert token.root_version == 2

    _steal(fleet)

    assert run(["keys", "rotate", "release"]) == 0
    third = fleet.push("3.0.0", "--key", "shoal-keys/release-2.pem")
    fleet.assign("old", third)
    fleet.runs("old", third)

    assert run(["keys", "revoke", "quality:3.0.0", "--key", "shoal-keys/release-2.pem"]) == 0
    until(lambda: fleet.report("old").get("revoked"), f"told as revoked: {fleet.report('old')}")
    assert fleet.report("old")["active"] == third  # it runs on
    until(
        lambda: any(alert["kind"] == "device_revoked" for alert in fleet.call("GET", "/api/v1/alerts")["items"]),
        "an alert",
    )
    fleet.device("new")  # pins the newest root, and never the one of development trust
    fleet.assign("new", third)
    until(lambda: (fleet.report("new").get("error") or {}).get("code") == "unsigned", "refused where it is new")
    fleet.assign("new", second)
    fleet.runs("new", second)


def _steal(fleet: Fleet) -> None:
    """With every file and key of the server, put a bundle on the list, assign it, and see it refused."""
    evil = fleet.push("6.6.6", code=5)  # stored, not signed
    services = fleet.server.services
    trust, keys = services.trust, services.trust._keys
    with services.database.write() as session:
        metadata = documents.targets(session)
        raw = services.blobs.local_path(evil).read_bytes()
        target = release_target("quality", "6.6.6", raw, counter=66)
        metadata.signed.targets[target.path] = target
        metadata.signed.version += 1
        metadata.sign(keys.find(documents.root(session).signed, "timestamp"))
        genuine = documents.newest_raw(session, "targets")
        documents.store(session, "targets", metadata.signed.version, documents.to_bytes(metadata))
        trust._publish_snapshot(session)
    before = fleet.report("old")["active"]
    fleet.assign("old", evil)
    until(lambda: fleet.report("old").get("target") == evil, "the thief's wish came")
    time.sleep(1.5)  # nothing may happen, so there is nothing to wait for
    assert fleet.report("old")["active"] == before
    with services.database.write() as session:  # the engineer restores the server; the thief's snapshot has passed
        session.delete(session.get(TrustDocument, ("targets", metadata.signed.version)))
        session.flush()
        assert documents.newest_raw(session, "targets") == genuine
    assert run(["keys", "resign", "--key", "shoal-keys/release-1.pem"]) == 0
    fleet.assign("old", before)
