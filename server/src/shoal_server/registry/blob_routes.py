"""OCI distribution API: blobs and uploads (specification 1.1, "Pull" and "Push").

Owns HTTP only: ranges, offsets, the headers that clients insist on. The body of an upload is streamed to the blob store
in pieces of a megabyte, so memory stays flat.
"""

import errno
import math
import re
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from shoal_protocol.bundle.manifest import MAX_BLOB_BYTES
from shoal_protocol.canonical import DIGEST_RE
from shoal_protocol.errors import CallerError, DigestMismatchError, LocalError
from shoal_server.access import Principal, Role
from shoal_server.access.guard import Program, Releaser, basic_credentials, registry_bearer, require_reader
from shoal_server.errors import ConflictError, NotFoundError, TooLargeError, UnauthorizedError
from shoal_server.registry import forms, oci_store
from shoal_server.registry.form_making import Wish, is_worth_trying
from shoal_server.registry.names import RepositoryName
from shoal_server.registry.quota import Quota, QuotaError
from shoal_server.registry.reading import check_pull
from shoal_server.registry.refusals import RefusedError
from shoal_server.registry.sending import blob_response
from shoal_server.services import Services
from shoal_server.storage.blobs import DeletesRefusedError

router = APIRouter(prefix="/v2", tags=["oci"], max_body_size=MAX_BLOB_BYTES)

Reader = Annotated[Principal, Depends(require_reader())]
AnyRepository = Annotated[str, Path(alias="name")]

_PIECE = 1 << 20
_RANGE_RE = re.compile(r"(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:/.*)?")
_TOUCHED_EVERY_S = 3600.0
"""A blob that pushers ask for again and again is written down as relied on so often; far less than the grace time."""

_TOKEN_LIFETIME_S = 12 * 3600


class NotOfferedError(CallerError):
    """The specification allows a registry not to offer this."""

    code = "unsupported"
    status = 405


@router.get("/", operation_id="oci_check")
def check(_reader: Reader, response: Response) -> dict[str, Any]:
    """Tell a client that this is an OCI registry and its credentials are good."""
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return {}


@router.get("/token", operation_id="oci_token")
def token(request: Request, reader: Reader) -> dict[str, Any]:
    """Give a Bearer token for Basic credentials, with exactly their rights (Docker's token protocol)."""
    header = request.headers.get("authorization", "")
    if not header.lower().startswith("basic "):
        raise UnauthorizedError(
            "a registry token is given for Basic credentials", hint="log in with token name and token"
        )
    bearer = registry_bearer(reader, basic_credentials(header)[1])
    return {"token": bearer, "access_token": bearer, "expires_in": _TOKEN_LIFETIME_S}


@router.head("/{name}/blobs/{digest}", operation_id="oci_blob_head")
@router.get("/{name}/blobs/{digest}", operation_id="oci_blob_get")
def get_blob(name: RepositoryName, digest: str, request: Request, program: Program, reader: Reader) -> Response:
    """Return a blob, or the part of it that Range names."""
    if DIGEST_RE.fullmatch(digest) is None:
        raise RefusedError("digest", f"{digest!r:.80} is no sha256 digest", oci_code="DIGEST_INVALID")
    with program.database.read() as session:
        check_pull(session, program, reader, name, digest)
        touched_at = oci_store.blob_touched_at(session, name, digest)
        chosen = None if request.method == "HEAD" else forms.choose(session, digest, forms.accepted(request.headers))
        missing = [Wish(name, digest, base) for base in chosen.missing] if chosen else []
        wishes = [wish for wish in missing if is_worth_trying(session, wish)]
    if touched_at is None or not program.blobs.has(digest):
        raise NotFoundError(f"{name} has no blob {digest}", oci_code="BLOB_UNKNOWN")
    if request.method == "HEAD" and reader.may(Role.RELEASER):
        _rely_on(program, name, digest, touched_at)
    for wish in wishes:
        program.wish_form(wish.repository, wish.digest, wish.base)
    sent, coding = _sent(program, digest, chosen.form if chosen else None)
    headers = {
        "Docker-Content-Digest": digest,
        "ETag": f'"{sent}"',
        "Vary": forms.VARY,
        "Cache-Control": "private, max-age=31536000, immutable",
        **coding,
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return blob_response(program.blobs, sent, request, headers=headers, media_type="application/octet-stream")


@router.delete("/{name}/blobs/{digest}", operation_id="oci_blob_delete")
def delete_blob(name: RepositoryName, digest: str, _principal: Releaser) -> None:
    """Refuse: what a version may refer to stays."""
    raise NotOfferedError(f"blobs are not deleted one by one ({name}, {digest:.80})", oci_code="UNSUPPORTED")


@router.post("/{name}/blobs/uploads/", operation_id="oci_upload_begin")
async def begin_upload(  # noqa: PLR0917 - FastAPI passes by name
    name: RepositoryName,
    request: Request,
    program: Program,
    _principal: Releaser,
    digest: str | None = None,
    mount: str | None = None,
    source: Annotated[str | None, Query(alias="from")] = None,
) -> Response:
    """Start an upload; or take a blob whole (`digest=`), or from another repository (`mount=` and `from=`)."""
    if mount is not None and await run_in_threadpool(_mount, program, name, mount, source):
        return _created(name, mount)
    await run_in_threadpool(_check_room, program, name, request, digest=digest)
    upload = await run_in_threadpool(program.blobs.begin_upload)
    if digest is None:
        return _uploading(name, upload, 0, status=202)
    await _append_body(request, program, upload, offset=0)
    return await run_in_threadpool(_finish, program, name, upload, digest)


@router.get("/{name}/blobs/uploads/{upload}", operation_id="oci_upload_show")
def show_upload(name: RepositoryName, upload: str, program: Program, _principal: Releaser) -> Response:
    """Tell how much of an upload has arrived, so that a client can resume it."""
    return _uploading(name, upload, _offset(program, upload), status=204)


@router.patch("/{name}/blobs/uploads/{upload}", operation_id="oci_upload_append")
async def append_upload(
    name: RepositoryName, upload: str, request: Request, program: Program, _principal: Releaser
) -> Response:
    """Add a chunk; without Content-Range it goes to the end."""
    length = await run_in_threadpool(_offset, program, upload)
    start = _chunk_start(request, length)
    if start != length:
        return _uploading(name, upload, length, status=416)
    await run_in_threadpool(_check_room, program, name, request, has=length)
    length = await _append_body(request, program, upload, offset=length)
    return _uploading(name, upload, length, status=202)


@router.put("/{name}/blobs/uploads/{upload}", operation_id="oci_upload_finish")
async def finish_upload(
    name: RepositoryName, upload: str, digest: str, request: Request, program: Program, _principal: Releaser
) -> Response:
    """Add the last chunk, if there is one, and make the upload a blob."""
    length = await run_in_threadpool(_offset, program, upload)
    if _chunk_start(request, length) != length:
        return _uploading(name, upload, length, status=416)
    await _append_body(request, program, upload, offset=length)
    return await run_in_threadpool(_finish, program, name, upload, digest)


@router.delete("/{name}/blobs/uploads/{upload}", operation_id="oci_upload_abort")
def abort_upload(_name: AnyRepository, upload: str, program: Program, _principal: Releaser) -> Response:
    """Give an upload up."""
    _offset(program, upload)
    program.blobs.abort(upload)
    return Response(status_code=204)


def _rely_on(program: Services, name: str, digest: str, touched_at: float) -> None:
    """Keep a blob that a pusher was told is there already from being collected before its manifest comes."""
    now = program.clock()
    if now - touched_at > _TOUCHED_EVERY_S:
        with program.database.write() as session:
            oci_store.touch_blob(session, name, digest, now=now)


def _sent(program: Services, digest: str, form: forms.Form | None) -> tuple[str, dict[str, str]]:
    """Return the digest of the bytes that answer, and what says how they are coded."""
    if form is None or not program.blobs.has(form.digest):
        return digest, {}
    return form.digest, {"Content-Encoding": form.coding}


def _quota(program: Services) -> Quota:
    return Quota(registry=program.settings.registry_quota, model=program.settings.model_quota)


def _check_fits(program: Services, session: Session, name: str, digest: str, size: int) -> None:
    """Refuse a whole blob that the quota has no room for, and give its room back at once."""
    try:
        _quota(program).check(session, name, wanted=size, digest=digest)
    except QuotaError:
        if not oci_store.is_known(session, digest):
            with suppress(DeletesRefusedError):
                program.blobs.remove(digest, before=math.inf)
        raise


def _check_room(program: Services, name: str, request: Request, *, has: int = 0, digest: str | None = None) -> None:
    """Refuse early what its Content-Length says can't be kept."""
    announced = request.headers.get("content-length", "")
    with program.database.read() as session:
        wanted = has + (int(announced) if announced.isdecimal() else 0)
        _quota(program).check(session, name, wanted=wanted, digest=digest)


async def _append_body(request: Request, program: Services, upload: str, *, offset: int) -> int:
    """Append the request's body in pieces; returns the upload's new length."""
    waiting = bytearray()

    def write(piece: bytes) -> int:
        if offset + len(piece) > MAX_BLOB_BYTES:
            program.blobs.abort(upload)
            raise TooLargeError(f"a blob has at most {MAX_BLOB_BYTES} bytes", oci_code="SIZE_INVALID")
        try:
            return program.blobs.append(upload, piece, offset=offset)
        except ConflictError as error:
            raise RefusedError("upload", error.message, oci_code="BLOB_UPLOAD_INVALID") from error
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise LocalError("the server's disk is full", hint="make room on the server, then resume") from error

    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _PIECE:
            offset = await run_in_threadpool(write, bytes(waiting))
            waiting.clear()
    if waiting:
        offset = await run_in_threadpool(write, bytes(waiting))
    return offset


def _mount(program: Services, name: str, digest: str, source: str | None) -> bool:
    if source is None or DIGEST_RE.fullmatch(digest) is None:
        return False
    with program.database.write() as session:
        oci_store.lock_contents(session)
        size = oci_store.blob_size(session, source, digest)
        if size is None:
            return False
        _quota(program).check(session, name, wanted=size, digest=digest)
        oci_store.link_blob(session, name, digest, size=size, now=program.clock())
    return True


def _finish(program: Services, name: str, upload: str, digest: str) -> Response:
    if DIGEST_RE.fullmatch(digest) is None:
        program.blobs.abort(upload)
        raise RefusedError("digest", f"{digest!r:.80} is no sha256 digest", oci_code="DIGEST_INVALID")
    try:
        program.blobs.finish(upload, digest)
    except DigestMismatchError as error:
        raise RefusedError("digest", error.message, oci_code="DIGEST_INVALID") from error
    try:
        size = program.blobs.size(digest)
        with program.database.write() as session:
            oci_store.lock_contents(session)
            if not program.blobs.has(digest):
                raise NotFoundError(digest)
            _check_fits(program, session, name, digest, size)
            oci_store.link_blob(session, name, digest, size=size, now=program.clock())
    except NotFoundError as error:
        what = "the blob was collected before it was recorded; push it again"
        raise RefusedError("upload", what, oci_code="BLOB_UPLOAD_INVALID") from error
    return _created(name, digest)


def _offset(program: Services, upload: str) -> int:
    try:
        return program.blobs.offset(upload)
    except NotFoundError as error:
        raise NotFoundError(error.message, oci_code="BLOB_UPLOAD_UNKNOWN") from error


def _chunk_start(request: Request, length: int) -> int:
    """Return where the request's body begins in the blob; clients write the header in more than one way."""
    header = request.headers.get("content-range")
    if header is None:
        return length
    match = _RANGE_RE.fullmatch(header.strip())
    if match is None:
        raise RefusedError(
            "upload", f"Content-Range is {header!r:.80}, expected START-END", oci_code="BLOB_UPLOAD_INVALID"
        )
    return int(match[1])


def _uploading(name: str, upload: str, length: int, *, status: int) -> Response:
    headers = {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": f"0-{max(0, length - 1)}",
        "Docker-Upload-Uuid": upload,
    }
    return Response(status_code=status, headers=headers)


def _created(name: str, digest: str) -> Response:
    return Response(
        status_code=201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    )
