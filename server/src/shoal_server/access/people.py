"""What happens to people: the first admin, logging in and out, a new password.

Owns these small procedures, each with its audit row. Leaves HTTP to `routes` and queries to `store`.
"""

import re

from sqlmodel import Session, select

from shoal_protocol.errors import CallerError
from shoal_server.access import audit, store
from shoal_server.access.roles import Role
from shoal_server.access.secrets import MIN_PASSWORD_LENGTH, Passwords, new_password, new_token
from shoal_server.access.tables import Person
from shoal_server.errors import UnauthorizedError
from shoal_server.storage.database import Database

SESSION_LIFETIME_S = 24 * 3600.0
NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def check_account_name(name: str) -> str:
    """Return the name of a person or token; raises `CallerError` when it has other characters than are allowed."""
    if NAME_RE.fullmatch(name) is None:
        raise CallerError(f"{name!r:.80} is not a name: expected letters, digits and . _ @ -, at most 64")
    return name


def check_password(password: str) -> str:
    """Return the password; raises `CallerError` when it is too short to be one."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= 1024:
        raise CallerError(f"a password has at least {MIN_PASSWORD_LENGTH} characters, this one has {len(password)}")
    return password


def ensure_admin(database: Database, passwords: Passwords, *, now: float) -> str | None:
    """Make the person `admin` with a random password when there is nobody yet.

    Returns:
        The password, to be shown this once; None when somebody is there already.
    """
    password = new_password()
    hashed = passwords.hash(password)
    with database.write() as session:
        if session.exec(select(Person).limit(1)).first() is not None:
            return None
        store.add_person(session, name="admin", role=Role.ADMIN, password_hash=hashed, now=now)
        audit.record(session, actor="server", action="person.create", subject="person:admin", now=now)
    return password


def reset_password(database: Database, passwords: Passwords, *, name: str, now: float) -> str:
    """Give a person a new random password and end their sessions; raises `NotFoundError`."""
    password = new_password()
    hashed = passwords.hash(password)
    with database.write() as session:
        store.set_password(session, name=name, password_hash=hashed)
        audit.record(session, actor="server", action="person.reset_password", subject=f"person:{name}", now=now)
    return password


def log_in(
    database: Database,
    passwords: Passwords,
    *,
    name: str,
    password: str,
    address: str,
    now: float,
    request_id: str = "",
) -> str:
    """Check a password and open a session.

    Args:
        database: where people are.
        passwords: how they are hashed.
        name: of the person.
        password: as typed.
        address: of the client; failures are counted for it as well as for the name.
        now: seconds since the epoch, UTC.
        request_id: for the audit.

    Returns:
        The session's token, for the cookie.

    Raises:
        ThrottledError: too many failures before.
        UnauthorizedError: name or password is wrong.
    """
    subjects = [f"name:{name[:64]}", f"address:{address}"]
    with database.read() as session:
        store.check_throttle(session, subjects, now=now)
        found = store.person(session, name)
    right = passwords.verify(None if found is None else found.password_hash, password)
    with database.write() as session:
        store.check_throttle(session, subjects, now=now)  # tries made at the same time count as well
        if right and store.has_password(session, name, found):  # it may have been changed while we compared
            return _open(session, name=name, subjects=subjects, now=now, request_id=request_id)
        store.note_failure(session, subjects, now=now)
    raise UnauthorizedError("name or password is wrong")


def _open(session: Session, *, name: str, subjects: list[str], now: float, request_id: str) -> str:
    token = new_token()
    store.forget_failures(session, subjects[0])
    store.open_session(session, token=token, name=name, now=now, lifetime_s=SESSION_LIFETIME_S)
    audit.record(
        session, actor=f"person:{name}", action="session.open", subject=f"person:{name}", request_id=request_id, now=now
    )
    return token
