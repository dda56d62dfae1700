"""HTTP of people, tokens, sessions and the audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from shoal_server.access import audit, people, store
from shoal_server.access.guard import (
    SESSION_COOKIE,
    Admin,
    Program,
    Viewer,
    record_change,
    request_id,
    same_origin,
)
from shoal_server.access.roles import Role
from shoal_server.access.secrets import Passwords, new_token
from shoal_server.access.tables import ApiToken, Person
from shoal_server.errors import ForbiddenError
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1", tags=["access"])


class Login(BaseModel):
    """Name and password of a person."""

    name: str
    password: str


class NewToken(BaseModel):
    """An API token to make."""

    name: str
    role: Role
    expires_in_s: float | None = Field(default=None, gt=0, description="for ever when left out")


class NewPerson(BaseModel):
    """Somebody who shall log in with a password."""

    name: str
    role: Role
    password: str


def passwords(request: Request) -> Passwords:
    """Return how this program hashes passwords; made at the first use, which costs 50 ms."""
    state = request.app.state
    if not hasattr(state, "passwords"):
        state.passwords = Passwords()
    found: Passwords = state.passwords
    return found


def set_session_cookie(request: Request, response: Response, token: str) -> None:
    """Hand the browser its session: not readable by scripts, not sent by other sites' forms."""
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(people.SESSION_LIFETIME_S),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def log_in_browser(request: Request, response: Response, *, name: str, password: str) -> None:
    """Log a browser in; the same for the API and for the page with the form.

    Raises:
        ForbiddenError: another site's page sent the form.
        ThrottledError, UnauthorizedError: see `people.log_in`.
    """
    if "origin" in request.headers and not same_origin(request):
        raise ForbiddenError("this request came from another site", hint="use the dashboard's own pages")
    program: Program = request.app.state.shoal
    token = people.log_in(
        program.database,
        passwords(request),
        name=name,
        password=password,
        address=request.client.host if request.client else "",
        now=program.clock(),
        request_id=request_id(request),
    )
    set_session_cookie(request, response, token)


def log_out_browser(request: Request, response: Response) -> None:
    """End the session of the cookie, if there is one."""
    program: Program = request.app.state.shoal
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is not None:
        with program.database.write() as session:
            store.close_session(session, cookie)
    response.delete_cookie(SESSION_COOKIE)


@router.post("/login", status_code=204, operation_id="session_open")
def login(body: Login, request: Request, response: Response) -> None:
    """Open a session; the answer sets its cookie."""
    log_in_browser(request, response, name=body.name, password=body.password)


@router.post("/logout", status_code=204, operation_id="session_close")
def logout(request: Request, response: Response, _principal: Viewer) -> None:
    """End the session of the cookie."""
    log_out_browser(request, response)


@router.get("/whoami", operation_id="session_show")
def whoami(principal: Viewer) -> dict[str, Any]:
    """Tell whom the credentials belong to."""
    return {"name": principal.name, "kind": principal.kind, "role": principal.role}


@router.post("/tokens", status_code=201, operation_id="tokens_create")
def create_token(body: NewToken, request: Request, program: Program, principal: Admin) -> dict[str, Any]:
    """Make an API token; the answer is the only place that ever shows it."""
    now = program.clock()
    token = new_token()
    name = people.check_account_name(body.name)
    expires_at = None if body.expires_in_s is None else now + body.expires_in_s
    with program.database.write() as session:
        row = store.add_token(
            session, name=name, token=token, role=body.role, creator=principal, now=now, expires_at=expires_at
        )
        record_change(
            session,
            request,
            action="token.create",
            subject=f"token:{name}",
            after={"role": body.role, "expires_at": expires_at},
        )
    return {**_token(row), "token": token}


@router.get("/tokens", operation_id="tokens_list")
def list_tokens(program: Program, _principal: Admin) -> dict[str, Any]:
    """List API tokens, without what they are."""
    with program.database.read() as session:
        return {"items": [_token(row) for row in store.tokens(session)], "next_cursor": None}


@router.delete("/tokens/{name}", status_code=204, operation_id="tokens_delete")
def delete_token(name: str, request: Request, program: Program, _principal: Admin) -> None:
    """Make a token invalid at once."""
    with program.database.write() as session:
        row = store.remove_token(session, name)
        record_change(session, request, action="token.delete", subject=f"token:{name}", before={"role": row.role})


@router.post("/people", status_code=201, operation_id="people_create")
def create_person(body: NewPerson, request: Request, program: Program, _principal: Admin) -> dict[str, Any]:
    """Add somebody who can log in."""
    name = people.check_account_name(body.name)
    hashed = passwords(request).hash(people.check_password(body.password))
    now = program.clock()
    with program.database.write() as session:
        row = store.add_person(session, name=name, role=body.role, password_hash=hashed, now=now)
        record_change(session, request, action="person.create", subject=f"person:{name}", after={"role": body.role})
    return _person(row)


@router.get("/people", operation_id="people_list")
def list_people(program: Program, _principal: Admin) -> dict[str, Any]:
    """List who can log in."""
    with program.database.read() as session:
        return {"items": [_person(row) for row in store.people(session)], "next_cursor": None}


@router.delete("/people/{name}", status_code=204, operation_id="people_delete")
def delete_person(name: str, request: Request, program: Program, _principal: Admin) -> None:
    """Remove somebody: their sessions and tokens end at once."""
    with program.database.write() as session:
        row = store.remove_person(session, name)
        record_change(session, request, action="person.delete", subject=f"person:{name}", before={"role": row.role})


@router.get("/audit", operation_id="audit_list")
def list_audit(
    program: Program,
    _principal: Viewer,
    subject: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List changes, the newest first."""
    with program.database.read() as session:
        found = audit.rows(session, before_id=decode_cursor(cursor), subject=subject, limit=limit + 1)
    return page(found, limit=limit, position=lambda row: row.id, item=_audit_row)


@router.get("/audit/verification", operation_id="audit_verify")
def verify_audit(program: Program, _principal: Viewer) -> dict[str, Any]:
    """Recompute the whole chain; `head` is what to keep elsewhere."""
    with program.database.read() as session:
        broken_at = audit.first_break(session)
        last = audit.head(session)
    return {
        "intact": broken_at is None,
        "first_break": broken_at,
        "rows": 0 if last is None else last.id,
        "head": None if last is None else last.hash,
    }


def _token(row: ApiToken) -> dict[str, Any]:
    return {
        "name": row.name,
        "prefix": row.prefix,
        "role": row.role,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "last_used_at": rfc3339(row.last_used_at),
    }


def _person(row: Person) -> dict[str, Any]:
    return {"name": row.name, "role": row.role, "created_at": rfc3339(row.created_at)}


def _audit_row(row: audit.AuditRow) -> dict[str, Any]:
    return {**row.model_dump(exclude={"at", "previous_hash"}), "at": rfc3339(row.at)}
