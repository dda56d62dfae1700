"""HTTP of the trust metadata.

Reading is for everybody, because all of it is signed and none of it is secret. Writing takes what keys elsewhere
signed: a list needs a releaser, a root an administrator; the signatures are what counts, the roles keep nuisance out.
"""

import base64
import binascii
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from shoal_protocol.errors import ContentError
from shoal_server.access.guard import Admin, Program, Releaser, Viewer, record_change
from shoal_server.errors import NotFoundError
from shoal_server.registry import trust_status
from shoal_server.registry.releases import follow_list, held_in
from shoal_server.registry.trust import entity_tag

router = APIRouter(prefix="/trust", tags=["trust"])
api = APIRouter(prefix="/api/v1/trust", tags=["trust"])


class RootUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A new root, and the list that its release keys signed, where those changed; both as base64 of their bytes."""

    root: str
    targets: str | None = None


@router.get("/ca.pem", operation_id="trust_get_authority")
def authority(program: Program) -> Response:
    """Return the certificate authority of this server's TLS; a join token names its digest."""
    if program.ca_pem is None:
        raise NotFoundError("this server has no certificate authority of its own")
    return Response(program.ca_pem, media_type="application/x-pem-file", headers={"Cache-Control": "no-cache"})


@router.get("/{file}", operation_id="trust_get")
def metadata(file: str, program: Program) -> Response:
    """Return a document of the TUF repository: `root.json`, `timestamp.json`, `3.targets.json` and the like."""
    raw = program.trust.metadata(file)
    immutable = file[0].isdecimal()
    caching = "public, max-age=31536000, immutable" if immutable else "no-cache"
    headers = {"Cache-Control": caching, "ETag": entity_tag(raw)}
    return Response(raw, media_type="application/json", headers=headers)


@router.put("/targets.json", operation_id="trust_put_list")
async def put_list(
    request: Request, program: Program, principal: Releaser, if_match: Annotated[str | None, Header()] = None
) -> JSONResponse:
    """Take a list of releases that a release key signed elsewhere; the same again changes nothing."""
    raw = await request.body()

    def put() -> JSONResponse:
        with program.database.write() as session:
            before = program.trust.signed_list(session)
            changed = program.trust.accept_list(session, raw, held=held_in(session), if_match=if_match)
            after = program.trust.signed_list(session)
            barred = follow_list(session, before=before, after=after, by=principal.actor, now=program.clock())
            if changed:
                names = sorted(f"{row.model}:{row.version}" for row in barred)
                change = {"version": after.version, "releases": len(after.entries), "barred": names}
                record_change(session, request, action="trust.list", subject="trust:list", after=change)
            if barred:
                program.call_devices(session)
        _tell(program)
        shown = {"version": after.version, "changed": changed}
        return JSONResponse(shown, headers={"ETag": entity_tag(raw)})

    return await run_in_threadpool(put)


@router.put("/root.json", operation_id="trust_put_root")
async def put_root(request: Request, program: Program, principal: Admin) -> dict[str, Any]:
    """Take a new root that root keys signed elsewhere; in development trust this hands the server's trust over."""
    body = await request.body()

    def put() -> dict[str, Any]:
        root, targets = _decoded(body)
        with program.database.write() as session:
            before = program.trust.signed_list(session)
            changed = program.trust.accept_root(session, root, targets=targets, held=held_in(session))
            if changed:
                after = program.trust.signed_list(session)
                follow_list(session, before=before, after=after, by=principal.actor, now=program.clock())
                shown = trust_status.status(program.trust, session, now=program.clock())
                record_change(session, request, action="trust.root", subject="trust:root", after=shown["root"])
                program.call_devices(session)  # they believe assignments by the root's keys
        deleted = program.trust.tidy_keys()
        _tell(program)
        version, digest = program.trust.pinned_root()
        mode = program.trust.mode.value
        return {"version": version, "digest": digest, "mode": mode, "changed": changed, "deleted_keys": deleted}

    return await run_in_threadpool(put)


@api.get("", operation_id="trust_show")
def show(program: Program, _principal: Viewer) -> dict[str, Any]:
    """Say who may sign what here, and until when."""
    with program.database.read() as session:
        return trust_status.status(program.trust, session, now=program.clock())


@api.post("/online-keys", operation_id="trust_next_online_keys")
def next_online_keys(request: Request, program: Program, _principal: Admin) -> dict[str, Any]:
    """Make keys that can replace the server's own, for a new root to name; the present ones stay until then."""
    made = program.trust.next_online_keys()
    with program.database.write() as session:
        after = {role: list(keys) for role, keys in made.items()}
        record_change(session, request, action="trust.online_keys", subject="trust:root", after=after)
    return made


def _decoded(body: bytes) -> tuple[bytes, bytes | None]:
    try:
        upload = msgspec.json.decode(body, type=RootUpload)
        root = base64.b64decode(upload.root, validate=True)
        return root, None if upload.targets is None else base64.b64decode(upload.targets, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise ContentError(f"expected a JSON object with root and targets in base64: {error}") from error


def _tell(program: Program) -> None:
    for topic in ("models", "desired"):
        program.signals.bump(topic)
