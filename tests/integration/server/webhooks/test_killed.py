"""A real server process, killed at the worst moments: nothing is lost, and what comes twice has one id."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlmodel import select

from fixtures_broker import eventually
from shoal_server.outbox import announce
from shoal_server.outbox.tables import DeliveryRow
from shoal_server.storage.database import Database
from shoal_server.webhooks import store
from webhook_receiver import Receiver, receiving

from .conftest import event_of

PROGRAM = Path(sys.executable).with_name("shoal-server")


@contextmanager
def _server(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server; it is killed at the end of the block, without a chance to say goodbye."""
    words = [PROGRAM, "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--json", "--webhook-allow", "127.0.0.1"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["pid"] == child.pid
        yield child
    finally:
        child.kill()
        child.communicate()


def _deliveries(database: Database) -> list[tuple[str, int]]:
    with database.read() as session:
        return [(row.state, row.attempts) for row in session.exec(select(DeliveryRow))]


@pytest.mark.slow
def test_killed_between_commit_and_delivery_and_between_delivery_and_its_record(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/shoal.db")
    database.upgrade()
    with receiving() as receiver:
        _announce_one(database, receiver)  # committed, and the process that did it is gone
        receiver.hold.clear()
        with _server(tmp_path):
            assert receiver.arrived.wait(60)  # sent, and not answered yet
        assert _deliveries(database) == [("pending", 1)]
        receiver.hold.set()
        with _server(tmp_path):
            eventually(lambda: _deliveries(database) == [("delivered", 2)], within_s=60, every_s=0.1)
        assert [one.id for one in receiver.got] == [receiver.got[0].id] * 2
    database.close()


def _announce_one(database: Database, receiver: Receiver) -> None:
    wish = store.Wish(url=receiver.url, types=("*",), min_severity=None, format="cloudevents", enabled=True)
    with database.write() as session:
        store.create(session, "ops", wish, by="tests", now=1.0)
    import time

    with database.write() as session:
        assert announce(session, event_of("cam", at=time.time())) == 1
