"""A registry over a real socket, for clients and registries that others wrote."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from registry_clients import Peer, docker_registry
from shoal_server.access import Role
from shoal_server.registry import blob_routes, manifest_routes
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, api_token, fake_services, listening, program_of


@pytest.fixture
def shoal(tmp_path: Path) -> Iterator[Services]:
    with closing(Database(f"sqlite:///{tmp_path}/shoal.db")) as database:
        database.create_all()
        clock = FakeClock()
        trust = TrustService(database, keys_folder=tmp_path / "keys", clock=clock)
        yield fake_services(database, tmp_path, trust=trust, clock=clock)


@pytest.fixture
def host(shoal: Services) -> Iterator[str]:
    with listening(program_of(shoal, [blob_routes.router, manifest_routes.router])) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def token(shoal: Services) -> str:
    return api_token(shoal, Role.RELEASER, name="ci")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with docker_registry(tmp_path / "peer") as found:
        yield found
