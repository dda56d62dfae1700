"""A registry with real storage and trust, spoken to in process."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from shoal_server.access import Role
from shoal_server.registry import blob_routes, manifest_routes, routes, trust_routes
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, api_token, fake_services, program_of

DEVICE = ("cam-1", "device-secret")


@pytest.fixture
def shoal(database: Database, tmp_path: Path) -> Services:
    clock = FakeClock()
    trust = TrustService(database, keys_folder=tmp_path / "keys", clock=clock)
    return fake_services(
        database,
        tmp_path,
        clock=clock,
        trust=trust,
        verify_device=lambda _session, device, secret: (device, secret) == DEVICE,
    )


@pytest.fixture
def app(shoal: Services) -> FastAPI:
    return program_of(shoal, [blob_routes.router, manifest_routes.router, routes.router, trust_routes.router])


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app)


@pytest.fixture
def releaser(shoal: Services) -> dict[str, str]:
    return {"authorization": f"Bearer {api_token(shoal, Role.RELEASER)}"}


@pytest.fixture
def viewer(shoal: Services) -> dict[str, str]:
    return {"authorization": f"Bearer {api_token(shoal, Role.VIEWER)}"}
