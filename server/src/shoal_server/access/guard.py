"""Who makes a request, and whether it may: the dependencies that every route declares.

A route without one of these is refused when the program is put together (`unguarded`), so a forgotten guard can't open
anything. Credentials are tried in this order: Basic (token name : token, or device id : secret), Bearer (token, or what
`/v2/token` gave), the session cookie. Wrong credentials are an error even where none are needed.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from sqlmodel import Session

from shoal_server.access import audit, store
from shoal_server.access.roles import Principal, Role
from shoal_server.access.secrets import TOKEN_PREFIX
from shoal_server.errors import ForbiddenError, UnauthorizedError
from shoal_server.services import Services
from shoal_server.storage.settings import is_loopback

SESSION_COOKIE = "shoal_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def services(request: Request) -> Services:
    """Return the program's parts; for routes as `Depends(services)`."""
    found: Services = request.app.state.shoal
    return found


class Guard(Protocol):
    """A dependency that decides about a request before its route runs."""

    label: str
    """Who gets through, in one word of the access table."""

    def __call__(self, request: Request) -> Principal | None:
        """Return who calls; raises `UnauthorizedError` or `ForbiddenError`."""


class RequireRole:
    """Lets people and tokens through that hold a role or a higher one."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.label = role.value

    def __call__(self, request: Request) -> Principal:
        """Return who calls; raises `UnauthorizedError` or `ForbiddenError`."""
        principal = _someone(request)
        if not principal.may(self.role):
            raise ForbiddenError(f"this needs the role {self.role}; {_describe(principal)}")
        return principal


class RequireDevice:
    """Lets devices through, for what they do themselves."""

    label = "device"

    def __call__(self, request: Request) -> Principal:
        """Return the device; raises `UnauthorizedError` or `ForbiddenError`."""
        principal = _someone(request)
        if principal.device is None:
            raise ForbiddenError("only a device may do this, with its own credentials")
        return principal


class RequireReader:
    """Lets devices through and everybody who may see things: for pulling bundles."""

    label = "device+viewer"

    def __call__(self, request: Request) -> Principal:
        """Return who calls; raises `UnauthorizedError` or `ForbiddenError`."""
        principal = _someone(request)
        if principal.device is None and not principal.may(Role.VIEWER):
            raise ForbiddenError(f"this needs the role viewer or a device; {_describe(principal)}")
        return principal


class RequireViewerOrLocal:
    """Lets this machine's own programs through without credentials, such as its Prometheus; else like viewer.

    A request that a proxy passes on is not local, wherever the proxy runs.
    """

    label = "local+viewer"

    def __call__(self, request: Request) -> Principal | None:
        """Return who calls, None for a local program; raises `UnauthorizedError` or `ForbiddenError`."""
        local = request.client is not None and is_loopback(request.client.host)
        passed_on = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip"))
        if local and not passed_on and authenticate(request) is None:
            return None
        return RequireRole(Role.VIEWER)(request)


def require(role: Role) -> RequireRole:
    """Make the dependency for routes of people and tokens: `Depends(require(Role.OPERATOR))`."""
    return RequireRole(role)


def require_device() -> RequireDevice:
    """Make the dependency for routes of devices."""
    return RequireDevice()


def require_reader() -> RequireReader:
    """Make the dependency for routes by which bundles are pulled."""
    return RequireReader()


Program = Annotated[Services, Depends(services)]
Viewer = Annotated[Principal, Depends(require(Role.VIEWER))]
Operator = Annotated[Principal, Depends(require(Role.OPERATOR))]
Releaser = Annotated[Principal, Depends(require(Role.RELEASER))]
Admin = Annotated[Principal, Depends(require(Role.ADMIN))]


def authenticate(request: Request) -> Principal | None:
    """Find out who calls, once per request.

    Returns:
        None when no credentials came.

    Raises:
        UnauthorizedError: the credentials are wrong.
        ForbiddenError: a browser's cookie came along with a request from another site.
    """
    if not hasattr(request.state, "principal"):
        request.state.principal = _authenticate(request)
    found: Principal | None = request.state.principal
    return found


@dataclass(frozen=True)
class Endpoint:
    """One method of one path, and who guards it."""

    method: str
    path: str
    guard: Guard | None
    documented: bool
    """Whether the OpenAPI document has it."""


def endpoints(app: FastAPI) -> list[Endpoint]:
    """List everything that a program answers to, mounted sub-programs (static files) included as method `*`."""
    found = []
    for route in iter_route_contexts(app.routes):
        path = route.path or ""
        if isinstance(route.original_route, APIRoute):
            guard = next(_guards(route.dependant), None)
            documented = bool(route.include_in_schema)
            found += [Endpoint(method, path, guard, documented) for method in sorted(route.methods or ())]
        else:
            found.append(Endpoint("*", path, None, documented=False))
    return found


def unguarded(app: FastAPI, *, public: Iterable[tuple[str, str]]) -> list[str]:
    """List what has no guard and is not among the public routes.

    Args:
        app: with all its routers.
        public: (method, path) of what everybody may call.
    """
    allowed = frozenset(public)
    return [
        f"{endpoint.method} {endpoint.path}"
        for endpoint in endpoints(app)
        if endpoint.guard is None and (endpoint.method, endpoint.path) not in allowed
    ]


def request_id(request: Request) -> str:
    """Return the id by which log, audit and answer name this request."""
    return str(getattr(request.state, "request_id", ""))


def record_change(
    session: Session, request: Request, *, action: str, subject: str, before: Any = None, after: Any = None
) -> None:
    """Write the audit row of what this request changes, in the transaction that changes it; see `audit.record`."""
    principal = authenticate(request)
    audit.record(
        session,
        actor="anybody" if principal is None else principal.actor,
        action=action,
        subject=subject,
        before=before,
        after=after,
        request_id=request_id(request),
        now=services(request).clock(),
    )


def registry_bearer(principal: Principal, secret: str) -> str:
    """Make the Bearer token that `/v2/token` gives a client for the Basic credentials it sent.

    It is the credential itself in another coat, so it carries exactly its rights and ends when they end.
    """
    if principal.device is None:
        return secret
    return "device_" + base64.urlsafe_b64encode(f"{principal.device}:{secret}".encode()).decode().rstrip("=")


def basic_credentials(header: str) -> tuple[str, str]:
    """Split a Basic authorization header; raises `UnauthorizedError`."""
    return _split_pair(header.partition(" ")[2], base64.b64decode)


def _guards(dependant: Dependant) -> Iterator[Guard]:
    for inner in dependant.dependencies:
        if isinstance(inner.call, RequireRole | RequireDevice | RequireReader | RequireViewerOrLocal):
            yield inner.call
        yield from _guards(inner)


def _someone(request: Request) -> Principal:
    principal = authenticate(request)
    if principal is None:
        raise UnauthorizedError("this needs credentials", hint="log in, or send an API token")
    return principal


def _describe(principal: Principal) -> str:
    return f"{principal.actor} is a {principal.role or 'device'}"


def _authenticate(request: Request) -> Principal | None:
    header = request.headers.get("authorization")
    if header is not None:
        return _by_header(request, header)
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is None:
        return None
    program = services(request)
    with program.database.read() as session:
        principal = store.session_principal(session, cookie, now=program.clock())
    if principal is not None and request.method not in _SAFE_METHODS and not same_origin(request):
        raise ForbiddenError("this request came from another site", hint="use the dashboard's own pages")
    return principal


def same_origin(request: Request) -> bool:
    """Tell whether a browser sent this from a page of ours: by Origin, or by Sec-Fetch-Site where that is missing."""
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == request.headers.get("host")
    return request.headers.get("sec-fetch-site") in {"same-origin", "none"}


def _by_header(request: Request, header: str) -> Principal:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "basic":
        name, secret = basic_credentials(header)
        is_token = secret.startswith(TOKEN_PREFIX)
        found = _by_token(request, secret, name) if is_token else _by_device(request, name, secret)
    elif scheme.lower() == "bearer" and rest.startswith("device_"):
        found = _by_device(request, *_split_pair(rest.removeprefix("device_"), base64.urlsafe_b64decode))
    elif scheme.lower() == "bearer":
        found = _by_token(request, rest.strip(), None)
    else:
        raise UnauthorizedError(f"expected Basic or Bearer credentials, got {scheme!r:.40}")
    if found is None:
        raise UnauthorizedError("these credentials are unknown, expired or revoked")
    return found


def _by_token(request: Request, token: str, name: str | None) -> Principal | None:
    program = services(request)
    now = program.clock()
    with program.database.read() as session:
        known = store.known_token(session, token, now=now)
    if known is None or (name is not None and name != known.principal.name):
        return None
    if known.stale:
        with program.database.write() as session:
            store.note_token_use(session, known.principal.name, now=now)
    return known.principal


def _by_device(request: Request, device: str, secret: str) -> Principal | None:
    program = services(request)
    with program.database.read() as session:
        valid = program.verify_device(session, device, secret)
    return Principal(device, "device", None, device) if valid else None


def _split_pair(encoded: str, decode: Callable[[str], bytes]) -> tuple[str, str]:
    encoded = encoded.strip()
    try:
        text = decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise UnauthorizedError("the credentials are damaged") from error
    name, colon, secret = text.partition(":")
    if not colon:
        raise UnauthorizedError("the credentials are damaged: expected name:secret")
    return name, secret
