"""The fixture `database`: an empty one, once on SQLite and once on a PostgreSQL of our own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def _unprivileged() -> dict[str, Any]:
    """Whom to start PostgreSQL as: it refuses root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody to start it as")


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Path]:
    """A PostgreSQL server in a temporary folder, reachable only by the Unix socket in it."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    binaries = _BINARIES[-1]
    who = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="shoal-pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    if who:
        os.chown(folder, who["user"], who["group"])
    try:
        initdb = [
            binaries / "initdb",
            "-D",
            folder / "data",
            "-U",
            "shoal",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **who)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=200"
        control = [binaries / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
        try:
            yield folder
        finally:
            subprocess.run(
                [*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **who
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of its own, on each of the two kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shoal.db"
        return
    import psycopg

    folder = request.getfixturevalue("postgres_cluster")
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=str(folder), user="shoal", dbname="postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"postgresql://shoal@/{name}?host={folder}"
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database(database_url: str) -> Iterator[Any]:
    """A `Database` with all tables of the modules imported by the test."""
    from shoal_server.storage.database import Database

    opened = Database(database_url)
    opened.create_all()
    yield opened
    opened.close()
