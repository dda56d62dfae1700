"""A courier on a real database, with a clock that is told and a sender that may reach loopback."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import shoal_server.tables  # noqa: F401 - all of them, for the database
from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import DeviceData
from shoal_server.outbox.tables import WebhookRow
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import fake_services
from shoal_server.webhooks import store
from shoal_server.webhooks.courier import Courier, DeliveryMetrics
from shoal_server.webhooks.sender import Sender
from shoal_server.webhooks.targets import parse_allowed
from webhook_receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def on_sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A database for tests of what is above it, which need not be held on both kinds."""
    shutil.copy(sqlite_template, tmp_path / "shoal.db")
    opened = Database(f"sqlite:///{tmp_path}/shoal.db")
    yield opened
    opened.close()


@pytest.fixture
def program(database: Database, tmp_path: Path) -> Services:
    services = fake_services(database, tmp_path, metrics=CollectorRegistry(), url="https://shoal.example")
    services.webhooks = Sender(allowed=parse_allowed(["127.0.0.1"]), clock=services.clock, deadline_s=5.0)
    return services


@pytest.fixture
def courier(program: Services) -> Courier:
    return courier_of(program)


def courier_of(program: Services, **changes: Any) -> Courier:
    parts = {
        "database": program.database,
        "sender": program.webhooks,
        "source": program.url,
        "clock": program.clock,
        "signals": program.signals,
        "metrics": DeliveryMetrics(CollectorRegistry()),
        "uniform": random.Random(1).uniform,
    }
    return Courier(**{**parts, **changes})


Hook = Callable[..., WebhookRow]


@pytest.fixture
def hook(program: Services) -> Hook:
    """Makes a webhook."""

    def make(url: str, name: str = "ops", types: tuple[str, ...] = ("*",), **changes: Any) -> WebhookRow:
        given = {"min_severity": None, "format": "cloudevents", "enabled": True, **changes}
        with program.database.write() as session:
            wish = store.Wish(url=url, types=types, **given)
            return store.create(session, name, wish, by="tests", now=program.clock())

    return make


def say(program: Services, *devices: str, type_: EventType = EventType.DEVICE_ENROLLED) -> None:
    """Announce an event for each device, each in its own transaction."""
    for device in devices:
        with program.database.write() as session:
            announce(session, event_of(device, at=program.clock(), type_=type_))


def event_of(device: str, *, at: float, type_: EventType = EventType.DEVICE_ENROLLED) -> Event:
    data = DeviceData(device=device, state="accepted", labels={}, actor="tests", reason="")
    return Event(type=type_, subject=f"device:{device}", title=f"{device} joined", data=data, at=at)
