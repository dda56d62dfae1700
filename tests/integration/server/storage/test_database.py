"""Transactions of `Database` on both kinds of database."""

import sys
import threading

import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, SQLModel, select

from shoal_server.errors import StartError
from shoal_server.storage.database import Database, insert_ignore, lock_for_transaction


class Jar(SQLModel, table=True):
    __tablename__ = "test_jars"
    name: str = Field(primary_key=True)
    beans: int = 0


SQLModel.metadata.remove(Jar.__table__)  # no table of the program's: the migrations must not miss it


@pytest.fixture
def jars(database: Database) -> Database:
    with database.write() as session:
        Jar.__table__.create(session.connection())
    return database


def _beans(database: Database, name: str) -> int | None:
    with database.read() as session:
        jar = session.get(Jar, name)
        return None if jar is None else jar.beans


def test_a_write_is_there_after_the_block(jars: Database) -> None:
    with jars.write() as session:
        session.add(Jar(name="a", beans=3))
    assert _beans(jars, "a") == 3


def test_a_write_that_raises_leaves_nothing(jars: Database) -> None:
    def fail_half_way() -> None:
        with jars.write() as session:
            session.add(Jar(name="a", beans=3))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert _beans(jars, "a") is None


def test_read_cannot_write(jars: Database) -> None:
    with jars.read() as session:
        session.add(Jar(name="a"))
        with pytest.raises(SQLAlchemyError, match=r"read-?only"):
            session.flush()
    with jars.write() as session:  # the pooled connection is not left read-only
        session.add(Jar(name="a"))
    assert _beans(jars, "a") == 0


def test_read_is_a_snapshot(jars: Database) -> None:
    with jars.write() as session:
        session.add(Jar(name="a", beans=1))
    with jars.read() as reading:
        assert reading.exec(select(Jar.beans)).one() == 1
        with jars.write() as session:
            session.get_one(Jar, "a").beans = 2
        assert reading.exec(select(Jar.beans)).one() == 1
    assert _beans(jars, "a") == 2


def test_objects_stay_readable_after_the_block(jars: Database) -> None:
    with jars.write() as session:
        jar = Jar(name="a", beans=1)
        session.add(jar)
    assert (jar.name, jar.beans) == ("a", 1)


def test_write_inside_write_is_refused_not_a_deadlock(database_url: str) -> None:
    database = Database(database_url)
    if database.dialect == "sqlite":
        with database.write(), pytest.raises(RuntimeError, match="inside write"), database.write():
            pass
    with database.write() as session:
        assert session.connection() is not None
    database.close()


def test_concurrent_writers_lose_nothing(jars: Database) -> None:
    with jars.write() as session:
        session.add(Jar(name="a"))

    def add() -> None:
        for _ in range(10):
            with jars.write() as session:
                lock_for_transaction(session, "jar a")
                session.get_one(Jar, "a").beans += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _beans(jars, "a") == 40


def test_insert_ignore_says_whether_it_inserted(jars: Database) -> None:
    with jars.write() as session:
        assert insert_ignore(session, Jar, {"name": "a", "beans": 1})
        assert not insert_ignore(session, Jar, {"name": "a", "beans": 2})
        assert insert_ignore(session, Jar, {"name": "b"})
    assert (_beans(jars, "a"), _beans(jars, "b")) == (1, 0)


def test_sqlite_commits_are_durable(tmp_path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with database.connection() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]
    database.close()


def test_a_database_that_is_not_there_is_told_without_its_password() -> None:
    database = Database("postgresql://ada:geheim@127.0.0.1:1/shoal")
    with pytest.raises(StartError, match="Connection refused") as caught:
        database.reach()
    database.close()
    assert "ada:***@127.0.0.1:1/shoal" in caught.value.message
    assert "geheim" not in caught.value.message


def test_the_driver_of_postgresql_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartError, match="psycopg") as caught:
        Database("postgresql://host/shoal")
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("url", ["no address", "postgresql://host:port/x"])
def test_an_address_that_can_not_be_read_is_refused(url: str) -> None:
    with pytest.raises(StartError, match="can't be read"):
        Database(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(StartError, match="expected sqlite:///PATH"):
        Database(url)
