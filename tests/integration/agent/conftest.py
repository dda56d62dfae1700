"""Agents that have joined a simulated server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agent_bundles import bundle_files
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.judge import InProcessJudge
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import FakePreflight, SimulatedServer


def wait_until(met: Callable[[], Any], *, timeout_s: float = 120.0, what: str = "") -> Any:
    """Wait for something that other threads do; fails with what was waited for."""
    waiter, deadline = threading.Event(), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = met()
        if value:
            return value
        waiter.wait(0.02)
    pytest.fail(f"not within {timeout_s} s: {what or met}")


@dataclass
class World:
    """A simulated server and a device that has joined it."""

    server: SimulatedServer
    state: Path
    settings: Settings
    overrides: Overrides
    ahead_s: float = 0.0
    """How far the clock of an agent is ahead whose `overrides` say so."""

    def agent(self, **settings: Any) -> Agent:
        """An agent on the state folder, not started."""
        return Agent(self.state, replace(self.settings, **settings), overrides=self.overrides)

    def run_real_self_tests(self) -> None:
        """Let self-tests run in child processes; else they pass without one, which is faster."""
        self.overrides = replace(self.overrides, preflight=None)

    def pack(self, weight: float, version: str, *, released: bool = True, **options: Any) -> str:
        """Store (and release) a bundle at the server; returns its digest."""
        digest = self.server.add_bundle(bundle_files(weight, version=version, **options))
        return self.server.release(digest, "quality", version) if released else digest

    def files(self, weight: float, *, version: str) -> dict[str, bytes]:
        """Make the files of a bundle, to add others to."""
        return bundle_files(weight, version=version)

    def assign(self, digest: str | None, *, attempt: int = 0) -> bytes:
        """Want a bundle in the slot."""
        return self.server.assign("quality", digest, attempt=attempt)

    def report(self) -> Any:
        """The newest report about the slot."""
        return self.server.last_report("quality")

    def committed(self, digest: str) -> None:
        """Wait until the device reports a bundle healthy."""
        self.reported(lambda r: r.active == r.proven == digest and r.state == "idle", f"{digest} is healthy")

    def failed(self, digest: str) -> Any:
        """Wait until the device reports that a bundle failed for good; returns the fault."""
        self.reported(
            lambda r: r.state in {"idle", "no_model"} and r.error and r.error.digest == digest, f"{digest} failed"
        )
        return self.report().error

    def reported(self, met: Callable[[Any], Any], what: str) -> None:
        """Wait for a report."""
        wait_until(lambda: self.report() is not None and met(self.report()), what=what)

    def until(self, met: Callable[[], Any], what: str = "") -> Any:
        """Wait."""
        return wait_until(met, what=what)


def answer(agent: Agent) -> float:
    """What the slot's model says to a row of ones: its weight."""
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = Settings(
        window_s=0.5,
        poll_s=0.1,
        trial_predictions=10,
        trial_seconds=0.3,
        resend_s=1.0,
        reconnect_max_s=0.2,
        retry_max_s=0.1,
        listen="none",
    )
    with SimulatedServer() as server:
        state = tmp_path / "state"
        join(server.url, server.join_token, state, name="dev-1", labels={"site": "bern"}, facts={}, clock=time.time)
        yield World(server, state, settings, Overrides(preflight=FakePreflight(), judge=InProcessJudge))
