"""What the show stands on: a folder, the server's process, an operator's client and the fleet; all of it goes again."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
import numpy as np

from shoal_protocol.errors import LocalError
from shoal_server.ctl.client import Client
from shoal_server.ctl.settings import Settings as ClientSettings
from shoal_server.demo.cameras import SITES, Camera, CameraFleet
from shoal_server.demo.models import Images
from shoal_server.storage.database import Database

WINDOW_S = 0.5
_START_S = 60.0
_QUICK_AGENT = {
    "window_s": WINDOW_S,
    "trial.predictions": 20,
    "trial.seconds": 5.0,
    "resend_s": 5.0,
    "reconnect_max_s": 2.0,
    "listen": "none",
}
"""Only durations differ from what an integrator gets."""


@dataclass(frozen=True)
class Login:
    """How a person gets into the dashboard."""

    url: str
    name: str
    password: str


class Stage:
    """The running parts of the show; a context manager that leaves nothing behind.

    Args:
        listen: Where the server listens; port 0 takes a free one.
    """

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-demo-", ignore_cleanup_errors=True)
        self._server: subprocess.Popen[str] | None = None
        self._clients: list[Client] = []
        self._database: Database | None = None
        self.fleet: CameraFleet | None = None
        self.login: Login
        self.token = ""

    def __enter__(self) -> Self:
        try:
            self._start_server()
            self.token = self.api_token("demo", "admin")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.fleet is not None:
            self.fleet.stop()
        for client in self._clients:
            client.__exit__()
        if self._database is not None:
            self._database.close()
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            try:
                self._server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where server and devices keep their state during the show."""
        return Path(self._folder.name)

    def fleet_or_fail(self) -> CameraFleet:
        """Return the fleet, which must have been hired before."""
        assert self.fleet is not None
        return self.fleet

    def client(self) -> Client:
        """Return an operator's client; each thread needs one of its own."""
        client = Client(ClientSettings(url=self.login.url, token=self.token))
        self._clients.append(client)
        return client

    def database(self) -> Database:
        """Return the server's database, to see what it really holds; only to read."""
        if self._database is None:
            self._database = Database(f"sqlite:///{self.folder / 'server' / 'shoal.db'}")
        return self._database

    def api_token(self, name: str, role: str) -> str:
        """Make an API token as a person would: log in, then ask for it."""
        with httpx2.Client(base_url=self.login.url, headers={"origin": self.login.url}) as http:
            person = {"name": self.login.name, "password": self.login.password}
            http.post("/api/v1/login", json=person).raise_for_status()
            answer = http.post("/api/v1/tokens", json={"name": name, "role": role}).raise_for_status()
        return str(answer.json()["token"])

    def hire(self, count: int, images: Images, *, progress: Callable[[], None]) -> CameraFleet:
        """Let cameras join at every site, and start them."""
        client = self.client()
        tokens = {
            site: client.post("/api/v1/join-tokens", {"uses": count, "labels": {"site": site}})["token"]
            for site in SITES
        }
        turns = threading.Semaphore(2)  # self-tests at a time, so that the machine's cores are not all taken
        cameras = []
        for number in range(count):
            site = SITES[number % len(SITES)]
            cameras.append(self._camera(f"cam-{site}-{number // len(SITES) + 1:02}", site, tokens[site], number, turns))
            progress()
        self.fleet = CameraFleet(cameras, images)
        self.fleet.start()
        return self.fleet

    def _camera(self, name: str, site: str, token: str, number: int, turns: threading.Semaphore) -> Camera:
        from shoal_agent import Agent  # noqa: PLC0415 - the demo's extra; the server runs without it
        from shoal_agent.adapters.enrolment import join  # noqa: PLC0415 - as above
        from shoal_agent.adapters.judge import InProcessJudge  # noqa: PLC0415 - as above; all share its libraries
        from shoal_agent.bootstrap import Overrides  # noqa: PLC0415 - as above

        state = self.folder / "devices" / name
        join(self.login.url, token, state, name=name, labels={}, facts={}, clock=time.time)
        agent = Agent(state, _QUICK_AGENT, overrides=Overrides(preflight_turns=turns, judge=InProcessJudge))
        agent.start()
        random = np.random.default_rng(number)
        return Camera(name, site, agent, random, gain=float(random.uniform(0.97, 1.03)))

    def _start_server(self) -> None:
        command = [sys.executable, "-m", "shoal_server.demo.server_process", str(self.folder / "server"), self._listen]
        # a session of its own: Ctrl-C must not reach it before the devices have said good-bye
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(self._server.stdout.readline()), daemon=True)  # type: ignore[union-attr]  # it was just made with a pipe
        reader.start()
        reader.join(timeout=_START_S)
        if not lines or not lines[0]:
            raise LocalError("the demo's server did not start", hint="its own message stands above")
        facts: dict[str, Any] = json.loads(lines[0])
        self.login = Login(facts["url"], "admin", facts["password"])
