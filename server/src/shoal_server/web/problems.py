"""Errors as HTTP tells them: RFC 9457 problem+json, or the OCI form below `/v2/`.

Owns the one translation from the error tree to answers. An error's own `status` wins, else its family decides. What is
no `ShoalError` is a fault of ours: it is logged with its traceback and told as 500 without details.
"""

import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal_protocol.errors import CallerError, ContentError, LocalError, PeerError, ShoalError, TrustError

_log = logging.getLogger(__name__)

_FAMILIES: tuple[tuple[type[ShoalError], int, str], ...] = (
    (CallerError, 400, "The request can't be carried out"),
    (ContentError, 422, "What was sent breaks a rule"),
    (TrustError, 403, "What was sent is not trusted"),
    (PeerError, 502, "Another system did not answer as agreed"),
    (LocalError, 503, "The server lacks something"),
)
_OCI_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}
_REQUEST_ID = "x-request-id"


def install(app: FastAPI) -> None:
    """Make the program answer every error in the form of this module, and name every request."""
    app.add_exception_handler(ShoalError, _shoal_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(RequestNames)


class RequestNames:
    """Gives each request the id by which its log lines, audit rows and answer are found together."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set `request.state.request_id` and the answer's header X-Request-Id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = name

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_REQUEST_ID.encode(), name.encode())]
            await send(message)

        await self.app(scope, receive, named)


def status_of(error: ShoalError) -> int:
    """Return the HTTP status that tells this error."""
    own = getattr(error, "status", None)
    if isinstance(own, int):
        return own
    return next((status for family, status, _ in _FAMILIES if isinstance(error, family)), 500)


def _shoal_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ShoalError)
    title = next((title for family, _, title in _FAMILIES if isinstance(error, family)), "Error")
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = _challenge(request)
    if "retry_after_s" in error.data:
        headers["Retry-After"] = str(math.ceil(error.data["retry_after_s"]))
    oci_code = getattr(error, "oci_code", None) or error.data.get("oci_code")
    return answer(
        request,
        status=status,
        code=error.code,
        title=title,
        detail=error.message,
        hint=error.hint,
        data={key: value for key, value in error.data.items() if key != "oci_code"},
        headers=headers,
        oci_code=oci_code,
    )


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [{"where": ".".join(str(part) for part in fault["loc"]), "what": fault["msg"]} for fault in error.errors()]
    detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults)
    return answer(
        request,
        status=422,
        code="invalid_request",
        title="The request has another form",
        detail=detail,
        data={"faults": faults},
    )


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
    return answer(
        request,
        status=error.status_code,
        code=code,
        title=str(error.detail),
        detail=f"{request.method} {request.url.path}: {error.detail}",
        headers=error.headers,
    )


def _gone(request: Request, _error: Exception) -> JSONResponse:
    """Answer, for the log only, a client that went away within its own request: that is nobody's fault here."""
    detail = f"{request.method} {request.url.path}: the connection ended within the request's body"
    return answer(request, status=400, code="client_gone", title="The client went away", detail=detail)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed (request %s)", request.method, request.url.path, _name(request), exc_info=error)
    detail = "this is a fault of the server; its log has more under this request_id"
    return answer(request, status=500, code="internal", title="Internal error", detail=detail)


def answer(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    hint: str = "",
    data: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    oci_code: str | None = None,
) -> JSONResponse:
    """Make the answer in the form that the path's clients understand."""
    if request.url.path.startswith("/v2/"):
        detail_data = {"hint": hint, "code": code, "request_id": _name(request), **_jsonable(data or {})}
        fault = {"code": oci_code or _OCI_CODES.get(status, "UNSUPPORTED"), "message": detail, "detail": detail_data}
        return JSONResponse({"errors": [fault]}, status, headers=dict(headers or {}))
    body = {
        "type": f"urn:shoal:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "hint": hint,
        "request_id": _name(request),
        **_jsonable(data or {}),
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type="application/problem+json")


def _challenge(request: Request) -> str:
    if not request.url.path.startswith("/v2/"):
        return 'Basic realm="shoal"' if "authorization" in request.headers else "Bearer"
    base = request.app.state.shoal.settings.public_url or str(request.base_url)
    return f'Bearer realm="{base.rstrip("/")}/v2/token",service="shoal"'


def _name(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def _jsonable(data: Mapping[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, list, dict, type(None))
    return {key: value if isinstance(value, plain) else str(value) for key, value in data.items()}
