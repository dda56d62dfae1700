"""What travels when whole servers and agents update: patches, compressed files, and a real pull-through cache."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fixtures_broker import eventually
from registry_clients import docker_registry
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import FakePreflight
from shoal_protocol.bundle.layout import README
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access import Role
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.registry import forms
from shoal_server.storage.settings import Pace
from shoal_server.testing import api_token, settings_in
from shoal_server.testing.bundles import TinyBundle, push_bundle, tiny_bundle

NOISE = random.Random(7).randbytes(200_000)


class Fleet:
    """A whole server with whole agents."""

    def __init__(self, server: Server, operator: httpx2.Client, folder: Path) -> None:
        self.server, self.operator, self.folder = server, operator, folder

    def push(self, version: str, readme: bytes) -> TinyBundle:
        """Push a bundle, and wait until everything was coded that is worth it."""
        bundle = tiny_bundle(version=version)
        bundle.files[README] = readme
        assert push_bundle(self.operator, bundle, headers={}).status_code == 201
        return bundle

    def has_form(self, content: bytes, base: bytes | None = None) -> bool:
        """Tell whether a form was made."""
        with self.server.services.database.read() as session:
            row = forms.form_row(session, sha256_digest(content), "" if base is None else sha256_digest(base))
        return row is not None and row.form != ""

    def agent(self, name: str) -> Agent:
        """Let a device join."""
        token = self.operator.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
        state = self.folder / name
        join(self.server.runtime.url, token, state, name=name, labels={}, facts={}, clock=time.time)
        settings = Settings(
            window_s=5.0, poll_s=0.1, trial_predictions=1, trial_seconds=0.2, retry_max_s=0.2, listen="none"
        )
        return Agent(state, settings, overrides=Overrides(preflight=FakePreflight()))

    def update(self, agent: Agent, name: str, bundle: TinyBundle) -> None:
        """Want a bundle on a device, and wait until it runs."""
        services = self.server.services
        with services.database.write() as session:
            target = SlotTarget(digest=bundle.digest, name=f"quality:{bundle.version}")
            assignments.assign(session, name, "quality", target, now=services.clock())
        services.signals.bump("desired")
        slots: Callable[[], Any] = lambda: agent.status()["slots"].get("quality", {})  # noqa: E731 - asked again
        eventually(lambda: slots().get("active") == bundle.digest, within_s=60.0, what=f"{bundle.version}: {slots()}")


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Start servers."""
    running: list[tuple[Server, httpx2.Client]] = []

    def start(**changes: Any) -> Fleet:
        server = Server(settings_in(tmp_path / "data", pace=Pace(publisher_s=0.05), **changes))
        server.start()
        operator = httpx2.Client(
            base_url=server.runtime.url, trust_env=False, headers={"origin": server.runtime.url}, timeout=60.0
        )
        running.append((server, operator))
        operator.post("/api/v1/login", json={"name": "admin", "password": server.first_password})
        return Fleet(server, operator, tmp_path)

    yield start
    for server, operator in running:
        operator.close()
        server.stop()


@pytest.mark.slow
def test_an_update_is_a_patch_and_a_first_install_is_compressed(fleets, caplog) -> None:
    """The second version has a few bytes more than the 260 KB of the first."""
    caplog.set_level("INFO", logger="shoal_agent.adapters.download")
    fleet, text = fleets(), b"the same words again and again, " * 2_000
    older, newer = NOISE + text, NOISE[:90_000] + b"new" + NOISE[90_000:] + text
    first, second = fleet.push("1.0.0", older), fleet.push("1.1.0", newer)
    eventually(lambda: fleet.has_form(newer, older), within_s=60.0, what="the patch")
    fleet.server.services.wish_form("quality", sha256_digest(older), "")
    eventually(lambda: fleet.has_form(older), within_s=60.0, what="the compressed file")
    with fleet.agent("cam-1") as agent:
        fleet.update(agent, "cam-1", first)
        fleet.update(agent, "cam-1", second)
    told = [record.args for record in caplog.records if isinstance(record.args, tuple) and len(record.args) == 4]
    came = {digest: (size, coding) for digest, size, coding, _whole in told}
    size, coding = came[sha256_digest(older)]
    assert (coding, 200_000 < size < 202_000) == ("zstd", True)
    size, coding = came[sha256_digest(newer)]
    assert (coding, size < 1_000) == ("dcz", True)


@pytest.mark.slow
def test_a_pull_through_cache_is_asked_first_and_the_server_when_it_is_gone(fleets, tmp_path) -> None:
    """The server names the cache; the cache has a viewer's token; devices have no account there."""
    fleet = fleets(compress=False)
    services = fleet.server.services
    upstream = {"username": "viewer", "password": api_token(services, Role.VIEWER)}
    first, second = fleet.push("1.0.0", NOISE), fleet.push("1.1.0", NOISE[::-1])
    upstream["remoteurl"] = fleet.server.runtime.url
    with fleet.agent("cam-1") as agent:
        with docker_registry(tmp_path / "cache", cache_of=upstream) as cache:
            services.settings = replace(services.settings, mirrors=(cache.url,))
            fleet.update(agent, "cam-1", first)
            given = cache.blobs_given()
        fleet.update(agent, "cam-1", second)
    assert given >= len(first.files)
