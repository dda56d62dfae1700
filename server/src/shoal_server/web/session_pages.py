"""Pages by which a person logs in and out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from shoal_protocol.errors import ShoalError
from shoal_server.access.guard import authenticate, same_origin
from shoal_server.access.routes import log_in_browser, log_out_browser
from shoal_server.errors import ForbiddenError
from shoal_server.web.problems import status_of
from shoal_server.web.site import PageRoute, redirect

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PUBLIC = (("GET", "/login"), ("POST", "/login"), ("POST", "/logout"))
"""Routes that need no credentials."""


@router.get("/login", response_class=HTMLResponse)
def log_in_form(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """Show the form; who is logged in already goes on at once."""
    if _is_logged_in(request):
        return redirect(local_path(next))
    return _form(request, target=next)


@router.post("/login", response_class=HTMLResponse)
def log_in(
    request: Request,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1024)],
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002 - the name in the form
) -> Response:
    """Check name and password; wrong ones show the form again."""
    answer = redirect(local_path(next))
    try:
        log_in_browser(request, answer, name=name, password=password)
    except ShoalError as error:
        return _form(request, target=next, name=name, error=error)
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session."""
    if not same_origin(request):
        raise ForbiddenError("this request came from another site", hint="use the button of the dashboard")
    answer = redirect("/login")
    log_out_browser(request, answer)
    return answer


def local_path(target: str) -> str:
    r"""Return the target if it is a page of this server, else the first page.

    >>> [local_path(text) for text in ("/devices?q=x", "//evil.example", "https://evil.example", "/\\evil")]
    ['/devices?q=x', '/', '/', '/']
    """
    parts = urlsplit(target)
    own = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if own and not parts.netloc and not parts.scheme else "/"


def _is_logged_in(request: Request) -> bool:
    try:
        return authenticate(request) is not None
    except ShoalError:
        return False


def _form(request: Request, *, target: str, name: str = "", error: ShoalError | None = None) -> HTMLResponse:
    text = request.app.state.site.render(
        "login.html",
        next=local_path(target),
        name=name,
        problem="" if error is None else _sentence(error.message),
        hint="" if error is None else error.hint,
    )
    status = 200 if error is None else status_of(error)
    return HTMLResponse(text, status, headers={"cache-control": "no-store"})


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
