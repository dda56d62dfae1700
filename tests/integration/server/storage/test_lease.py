"""One server at a time works on a database: the second is refused, and the first gives way only when it is gone."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from fixtures_broker import eventually
from fixtures_database import KINDS
from shoal_server.bootstrap import Server
from shoal_server.errors import StartError
from shoal_server.storage.database import Database
from shoal_server.storage.lease import SessionLease, lease_of
from shoal_server.testing import settings_in

PROGRAM = Path(sys.executable).with_name("shoal-server")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_second_is_refused_until_the_first_lets_go(database: Database, stack: ExitStack) -> None:
    first, second = lease_of(database), lease_of(database)
    stack.callback(first.release)
    stack.callback(second.release)
    first.take()
    with pytest.raises(StartError, match="another server works on this database") as refused:
        second.take()
    assert "choose another --database" in refused.value.hint
    first.keep()
    assert not first.lost
    first.release()
    second.take()
    second.keep()
    assert not second.lost


@pytest.mark.parametrize("database", [KINDS[1]], indirect=True)
def test_a_lease_whose_connection_ends_is_taken_again_or_given_up(database: Database, stack: ExitStack) -> None:
    first, second = (SessionLease(database.url, holder=name) for name in ("first", "second"))
    stack.callback(first.release)
    stack.callback(second.release)
    first.take()
    _end_sessions(database)
    eventually(lambda: _is_free(database), what="PostgreSQL has noticed the end")
    first.keep()
    assert not first.lost, "nobody was faster"
    _end_sessions(database)
    eventually(lambda: _can_take(second), what="PostgreSQL has noticed the end")
    first.keep()
    assert first.lost == "another server works on this database now: second"


def _end_sessions(database: Database) -> None:
    """What a restart of the database does to its sessions."""
    with database.connection() as connection:
        ended = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'shoal-server %'"
        )
        connection.execute(text(ended))


def _is_free(database: Database) -> bool:
    with database.connection() as connection:
        held = connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
        return held.scalar_one() == 0


def _can_take(lease: SessionLease) -> bool:
    try:
        lease.take()
    except StartError:
        return False
    return True


@pytest.mark.parametrize("database_url", [KINDS[1]], indirect=True)
def test_two_servers_on_one_database_the_second_says_why_it_does_not_start(database_url: str, tmp_path: Path) -> None:
    first = Server(settings_in(tmp_path / "first", database=database_url))
    first.start()
    try:
        arguments = ["--data", str(tmp_path / "second"), "--database", database_url, "--listen", "127.0.0.1:0"]
        second = subprocess.run(
            [PROGRAM, "serve", *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert second.returncode == 1
        assert "another server works on this database" in second.stderr
        assert "Traceback" not in second.stderr
        assert first.alive
    finally:
        first.stop()


def test_a_server_that_has_lost_its_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_server.bootstrap.server.LEASE_S", 0.05)
    server = Server(settings_in(tmp_path))
    looked = threading.Event()

    class Lost:
        lost = ""

        def take(self) -> None:
            """Nobody has it yet."""

        def keep(self) -> None:
            self.lost = "another server works on this database now: b"
            looked.set()

        def release(self) -> None:
            """Nothing to be done."""

    monkeypatch.setattr("shoal_server.bootstrap.server.lease_of", lambda _database: Lost())
    server.start()
    try:
        assert looked.wait(60)
        assert not server.alive
        assert server.fault.endswith(": b")
    finally:
        server.stop()
