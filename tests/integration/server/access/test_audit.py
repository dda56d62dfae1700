"""The chain of the audit."""

import pytest
from sqlalchemy import text
from sqlmodel import Session

from shoal_server.access import audit
from shoal_server.storage.database import Database


def _record(session: Session, subject: str) -> None:
    audit.record(session, actor="person:a", action="x.y", subject=subject, before={"n": 0.1}, after=[1, None], now=1.5)


@pytest.fixture
def chain(database: Database) -> Database:
    with database.write() as session:
        for subject in "abc":
            _record(session, subject)
    return database


def test_a_chain_that_nobody_touched_is_whole(chain: Database) -> None:
    with chain.read() as session:
        assert audit.first_break(session) is None
        assert [row.subject for row in audit.rows(session)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("damage", "broken_at"),
    [
        ("UPDATE audit SET actor = 'person:b' WHERE id = 2", 2),
        ("UPDATE audit SET after = '[2, null]' WHERE id = 1", 1),
        ("DELETE FROM audit WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 1", 1),
    ],
)
def test_damage_is_found(chain: Database, damage: str, broken_at: int) -> None:
    with chain.connection() as connection:
        connection.execute(text(damage))
    with chain.read() as session:
        assert audit.first_break(session) == broken_at


def test_a_change_that_fails_leaves_no_row(chain: Database) -> None:
    def change() -> None:
        with chain.write() as session:
            _record(session, "d")
            raise KeyError

    with pytest.raises(KeyError):
        change()
    with chain.read() as session:
        assert audit.head(session).subject == "c"
