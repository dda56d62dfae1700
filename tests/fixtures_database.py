"""The fixture `database`: an empty one, once on SQLite and once on a PostgreSQL of our own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        words = "-U shoal -A trust -E UTF8 --locale=C -N"
        initdb = [binaries / "initdb", "-D", folder / "data", *words.split()]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **who)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} "
        options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied: making them costs more than most tests."""
    path = tmp_path_factory.mktemp("template") / "shoal.db"
    _make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_cluster: Path) -> str:
    """The name of a PostgreSQL database with all tables, to be copied."""
    name = "shoal_template"
    with _maintenance(postgres_cluster) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    _make_tables(f"postgresql://shoal@/{name}?host={postgres_cluster}")
    return name


KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of its own, on each of the two kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shoal.db"
        return
    with _copy_of("template0", request.getfixturevalue("postgres_cluster")) as url:
        yield url


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A `Database` with all tables."""
    from shoal_server.storage.database import Database

    with ExitStack() as stack:
        if request.param == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "shoal.db")
            url = f"sqlite:///{tmp_path}/shoal.db"
        else:
            template = request.getfixturevalue("postgres_template")
            url = stack.enter_context(_copy_of(template, request.getfixturevalue("postgres_cluster")))
        opened = Database(url)
        stack.callback(opened.close)
        yield opened


def _make_tables(url: str) -> None:
    import shoal_server.tables  # noqa: F401 - every room's, so that the template has them all
    from shoal_server.storage.database import Database

    made = Database(url)
    made.create_all()
    made.close()


@contextmanager
def _copy_of(template: str, cluster: Path) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    with _maintenance(cluster) as server:
        quickest = "STRATEGY FILE_COPY" if server.info.server_version >= 150_000 else ""  # older ones know no other
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {quickest}')
        try:
            yield f"postgresql://shoal@/{name}?host={cluster}"
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _maintenance(cluster: Path) -> Any:
    import psycopg

    return psycopg.connect(host=str(cluster), user="shoal", dbname="postgres", autocommit=True)
