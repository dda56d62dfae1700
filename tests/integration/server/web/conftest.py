"""A dashboard over the seeded fleet."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fixtures_dashboard import PASSWORD, seed
from shoal_server.access import routes as access_routes
from shoal_server.access.secrets import Passwords
from shoal_server.fleet import routes as fleet_routes
from shoal_server.link.port import DeviceLink
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, fake_services, program_of
from shoal_server.testing.link import FakeLink
from shoal_server.web import pages

ORIGIN = {"origin": "http://testserver"}
Browser = Callable[[str], TestClient]


def dashboard(database: Database, folder: Path) -> FastAPI:
    """A program with the pages and the routes that they stand beside."""
    link: DeviceLink = FakeLink()
    trust = TrustService(database, keys_folder=folder / "keys", clock=FakeClock())
    program: Services = fake_services(database, folder, link=link, trust=trust)
    app = program_of(program, [access_routes.router, fleet_routes.router])
    app.state.passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    pages.install(app)
    return app


def browser_of(app: FastAPI, name: str | None = "admin") -> TestClient:
    """Somebody's browser, logged in unless there is no name."""
    client = TestClient(app, headers={"accept": "text/html,*/*", **ORIGIN}, follow_redirects=False)
    if name is not None:
        answer = client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
    return client


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The seeded dashboard on SQLite, shared by the tests of a module: they only look."""
    folder = tmp_path_factory.mktemp("dashboard")
    database = Database(f"sqlite:///{folder}/shoal.db")
    database.create_all()
    app = dashboard(database, folder)
    seed(app.state.shoal)
    yield app
    database.close()


@pytest.fixture
def browser(app: FastAPI) -> Browser:
    """Makes a browser for `admin`, `olga` (operator) or `victor` (viewer)."""
    return lambda name: browser_of(app, name)
