"""Queries over people, sessions, API tokens and failed log-ins."""

from dataclasses import dataclass

from sqlmodel import Session, col, delete, select

from shoal_protocol.errors import CallerError
from shoal_server.access.roles import Principal, Role
from shoal_server.access.secrets import token_hash
from shoal_server.access.tables import ApiToken, LoginFailures, LoginSession, Person
from shoal_server.access.throttle import FORGOTTEN_AFTER_S, failures_after, wait_s
from shoal_server.errors import ConflictError, NotFoundError, ThrottledError
from shoal_server.storage.database import insert_ignore

_LAST_USE_GRAIN_S = 60.0


@dataclass(frozen=True)
class KnownToken:
    """A token that was presented and is valid."""

    principal: Principal
    stale: bool
    """Whether its last use, as it is written down, is long enough ago to be written again."""


def person(session: Session, name: str) -> Person | None:
    """Return the person, None when there is no such name."""
    return session.get(Person, name)


def has_password(session: Session, name: str, seen: Person | None) -> bool:
    """Tell whether somebody is still there with the password that was seen; keeps it so until the transaction ends."""
    now_there = session.get(Person, name, with_for_update=True)
    return now_there is not None and seen is not None and now_there.password_hash == seen.password_hash


def people(session: Session) -> list[Person]:
    """Return everybody, by name."""
    return list(session.exec(select(Person).order_by(col(Person.name))))


def add_person(session: Session, *, name: str, role: Role, password_hash: str, now: float) -> Person:
    """Add somebody; raises `ConflictError` when the name is taken."""
    values = {"name": name, "role": role.value, "password_hash": password_hash, "created_at": now}
    if not insert_ignore(session, Person, values):
        raise ConflictError(f"there is already a person {name!r}")
    return session.get_one(Person, name)


def set_password(session: Session, *, name: str, password_hash: str) -> None:
    """Change the password and end every session that the old one opened; raises `NotFoundError`."""
    found = session.get(Person, name)
    if found is None:
        raise NotFoundError(f"there is no person {name!r}")
    found.password_hash = password_hash
    session.exec(delete(LoginSession).where(col(LoginSession.person) == name))
    session.exec(delete(LoginFailures).where(col(LoginFailures.subject) == f"name:{name}"))


def remove_person(session: Session, name: str) -> Person:
    """Remove somebody with their sessions and tokens; the last admin can't be removed."""
    found = session.get(Person, name)
    if found is None:
        raise NotFoundError(f"there is no person {name!r}")
    admins = session.exec(select(Person).where(Person.role == Role.ADMIN.value).with_for_update()).all()
    if [admin.name for admin in admins] == [name]:
        raise ConflictError(f"{name!r} is the last admin", hint="make somebody else an admin first")
    # The tokens too: else who is given the name later would bring them to life again.
    session.exec(delete(ApiToken).where(col(ApiToken.created_by) == f"person:{name}"))
    session.delete(found)
    return found


def open_session(session: Session, *, token: str, name: str, now: float, lifetime_s: float) -> None:
    """Write down that the browser holding `token` is logged in as `name`, and forget sessions that are over."""
    session.exec(delete(LoginSession).where(col(LoginSession.expires_at) <= now))
    session.add(LoginSession(token_hash=token_hash(token), person=name, created_at=now, expires_at=now + lifetime_s))


def close_session(session: Session, token: str) -> str | None:
    """End a session; returns whose it was."""
    found = session.get(LoginSession, token_hash(token))
    if found is None:
        return None
    session.delete(found)
    return found.person


def session_principal(session: Session, token: str, *, now: float) -> Principal | None:
    """Return who is logged in with this cookie."""
    query = (
        select(Person)
        .join(LoginSession, col(LoginSession.person) == col(Person.name))
        .where(LoginSession.token_hash == token_hash(token), LoginSession.expires_at > now)
    )
    found = session.exec(query).first()
    return None if found is None else Principal(found.name, "person", Role(found.role))


def add_token(
    session: Session, *, name: str, token: str, role: Role, creator: Principal, now: float, expires_at: float | None
) -> ApiToken:
    """Write down an API token by its hash.

    A token that was made with a token is its maker's maker's: it ends with the same person.

    Raises:
        CallerError: its role is above the creator's.
        ConflictError: the name is taken.
    """
    if not creator.may(role):
        raise CallerError(f"a token's role can't be above your own: asked for {role}, you are {creator.role}")
    parent = session.get(ApiToken, creator.name) if creator.kind == "token" else None
    values = {
        "name": name,
        "token_hash": token_hash(token),
        "prefix": token[:10],
        "role": role.value,
        "created_by": creator.actor if parent is None else parent.created_by,
        "created_at": now,
        "expires_at": expires_at,
    }
    if not insert_ignore(session, ApiToken, values):
        raise ConflictError(f"there is already a token {name!r}", hint="choose another name or delete that token first")
    return session.get_one(ApiToken, name)


def tokens(session: Session) -> list[ApiToken]:
    """Return all API tokens, by name."""
    return list(session.exec(select(ApiToken).order_by(col(ApiToken.name))))


def remove_token(session: Session, name: str) -> ApiToken:
    """Make a token invalid at once; raises `NotFoundError`."""
    found = session.get(ApiToken, name)
    if found is None:
        raise NotFoundError(f"there is no token {name!r}")
    session.delete(found)
    return found


def known_token(session: Session, token: str, *, now: float) -> KnownToken | None:
    """Return whose token this is, None when it is unknown or has expired.

    A token made by a person never reaches further than that person does now.
    """
    found = session.exec(select(ApiToken).where(ApiToken.token_hash == token_hash(token))).first()
    if found is None or (found.expires_at is not None and found.expires_at <= now):
        return None
    role = Role(found.role)
    kind, _, creator = found.created_by.partition(":")
    if kind == "person":
        owner = session.get(Person, creator)
        if owner is None:
            return None
        role = role if Role(owner.role).includes(role) else Role(owner.role)
    stale = found.last_used_at is None or now - found.last_used_at > _LAST_USE_GRAIN_S
    return KnownToken(Principal(found.name, "token", role), stale)


def note_token_use(session: Session, name: str, *, now: float) -> None:
    """Write down that the token was used."""
    found = session.get(ApiToken, name)
    if found is not None:
        found.last_used_at = now


def check_throttle(session: Session, subjects: list[str], *, now: float) -> None:
    """Raise `ThrottledError` when one of the subjects has failed too often."""
    waits = [
        wait_s(failures=row.failures, last_at=row.last_at, now=now)
        for row in session.exec(select(LoginFailures).where(col(LoginFailures.subject).in_(subjects)))
    ]
    wait = max(waits, default=0.0)
    if wait > 0:
        raise ThrottledError(f"too many failed log-ins; try again in {wait:.0f} s", retry_after_s=wait)


def note_failure(session: Session, subjects: list[str], *, now: float) -> None:
    """Count one more failed log-in for every subject, and forget the counts that hold nobody up any more."""
    session.exec(delete(LoginFailures).where(col(LoginFailures.last_at) < now - FORGOTTEN_AFTER_S))
    for subject in subjects:
        insert_ignore(session, LoginFailures, {"subject": subject, "failures": 0, "last_at": now})
        row = session.get_one(LoginFailures, subject, with_for_update=True)
        row.failures = failures_after(failures=row.failures, last_at=row.last_at, now=now)
        row.last_at = now


def forget_failures(session: Session, subject: str) -> None:
    """Start counting anew after a log-in that succeeded."""
    session.exec(delete(LoginFailures).where(col(LoginFailures.subject) == subject))
