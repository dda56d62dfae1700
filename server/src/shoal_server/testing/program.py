"""A server, or a part of one, put together for a test without sockets, workers or the real clock."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from sqlmodel import Session

from shoal_server.access import Principal, Role, store
from shoal_server.access.secrets import new_token
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.store import alias_needs
from shoal_server.services import Services
from shoal_server.signals import Signals
from shoal_server.storage.blobs import FolderBlobs
from shoal_server.storage.database import Database
from shoal_server.storage.settings import Settings
from shoal_server.web import problems


class FakeClock:
    """A clock that goes on only when it is told to.

    Args:
        now: seconds since the epoch, UTC.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time it stands at."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Go on by `seconds`; returns the new time."""
        self.now += seconds
        return self.now


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings of a server that keeps everything in `folder` and listens on free ports of the loopback."""
    return Settings(**{"data": folder, "listen": "127.0.0.1:0", **changes})


def fake_services(database: Database, folder: Path, **parts: Any) -> Services:
    """Services with a real database and folder, a clock that stands still, no devices, and else only `parts`."""

    def no_device(_session: Session, _device: str, _secret: str) -> bool:
        return False

    blobs = FolderBlobs(folder / "blobs")
    bundles = Bundles(blobs)
    given: dict[str, Any] = {
        "settings": settings_in(folder),
        "database": database,
        "blobs": blobs,
        "bundles": bundles,
        "reference": bundles.reference,
        "clock": FakeClock(),
        "signals": Signals(),
        "verify_device": no_device,
        "needs": alias_needs,
        "may_fetch": lambda _session, _device: frozenset(),
        "call_devices": lambda _session: None,
        "url": "http://testserver",
    }
    return Services(**{**given, **parts})


def program_of(services: Services, routers: Sequence[APIRouter]) -> FastAPI:
    """Make an ASGI program of some rooms' routes, with errors answered as the whole server answers them."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.shoal = services
    problems.install(app)
    for router in routers:
        app.include_router(router)
    return app


def api_token(services: Services, role: Role, *, name: str | None = None) -> str:
    """Make an API token with a role, for `Authorization: Bearer …` or Basic `<name>:<token>` (name: the role's)."""
    token = new_token()
    creator = Principal("tests", "token", Role.ADMIN)
    with services.database.write() as session:
        store.add_token(
            session,
            name=name or role.value,
            token=token,
            role=role,
            creator=creator,
            now=services.clock(),
            expires_at=None,
        )
    return token


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serve a program on a free port of the loopback in a thread; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="test-http")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
