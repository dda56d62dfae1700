"""OCI distribution API: manifests, tags and referrers (specification 1.1)."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from shoal_protocol.canonical import DIGEST_RE
from shoal_server.access import Principal
from shoal_server.access.guard import Program, Releaser, Viewer, request_id, require_reader
from shoal_server.errors import TooLargeError
from shoal_server.registry import oci_store
from shoal_server.registry.names import RepositoryName
from shoal_server.registry.oci_documents import MAX_BYTES
from shoal_server.registry.onnx_check import OnnxChecker
from shoal_server.registry.push import Pushes
from shoal_server.registry.reading import check_pull
from shoal_server.registry.refusals import RefusedError
from shoal_server.registry.sending import blob_response

router = APIRouter(prefix="/v2", tags=["oci"])

Reader = Annotated[Principal, Depends(require_reader())]

_INDEX = "application/vnd.oci.image.index.v1+json"


def pushes(request: Request, program: Program) -> Pushes:
    """Return this program's one procedure for pushes: it bounds how many models are checked at once."""
    state = request.app.state
    if not hasattr(state, "pushes"):
        state.pushes = Pushes(program, OnnxChecker())
    found: Pushes = state.pushes
    return found


@router.head("/{name}/manifests/{reference}", operation_id="oci_manifest_head")
@router.get("/{name}/manifests/{reference}", operation_id="oci_manifest_get")
def get_manifest(name: RepositoryName, reference: str, request: Request, program: Program, reader: Reader) -> Response:
    """Return a manifest's bytes as they were pushed, by digest, version, alias or tag."""
    with program.database.read() as session:
        digest = reference if ":" in reference else oci_store.tagged(session, name, reference)
        check_pull(session, program, reader, name, digest)
        stored = oci_store.manifest(session, name, reference)
    headers = {"Docker-Content-Digest": stored.digest, "ETag": f'"{stored.digest}"'}
    if reader.device is not None and program.settings.mirrors:  # RFC 6249; the same tree lies below each
        roots = [url.rstrip("/") for url in program.settings.mirrors]
        headers["Link"] = ", ".join(f'<{root}/v2/{name}/manifests/{reference}>; rel="duplicate"' for root in roots)
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return blob_response(program.blobs, stored.digest, request, headers=headers, media_type=stored.media_type)


@router.put("/{name}/manifests/{reference}", operation_id="oci_manifest_put")
async def put_manifest(
    name: RepositoryName,
    reference: str,
    request: Request,
    principal: Releaser,
    procedure: Annotated[Pushes, Depends(pushes)],
) -> Response:
    """Take a manifest; a model under a version is admitted, or refused with the rule that it breaks."""
    raw = await _body(request)

    def put() -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        pushed = procedure.put_manifest(
            name, reference, raw, media_type=media_type, principal=principal, request_id=request_id(request)
        )
        headers = {"Location": f"/v2/{name}/manifests/{pushed.digest}", "Docker-Content-Digest": pushed.digest}
        if pushed.subject is not None:
            headers["OCI-Subject"] = pushed.subject
        return Response(status_code=201, headers=headers)

    return await run_in_threadpool(put)


@router.delete("/{name}/manifests/{reference}", operation_id="oci_manifest_delete")
def delete_manifest(
    name: RepositoryName,
    reference: str,
    request: Request,
    principal: Releaser,
    procedure: Annotated[Pushes, Depends(pushes)],
) -> Response:
    """Take an alias, a plain tag or another artifact away; versions stay (405)."""
    procedure.delete_manifest(name, reference, principal=principal, request_id=request_id(request))
    return Response(status_code=202)


@router.get("/{name}/tags/list", operation_id="oci_tags_list")
def list_tags(
    name: RepositoryName,
    program: Program,
    _viewer: Viewer,
    n: Annotated[int | None, Query(ge=0, le=10_000)] = None,
    last: str = "",
) -> Response:
    """List tags in lexical order; Link names the next page."""
    limit = 1000 if n is None else n
    with program.database.read() as session:
        found = oci_store.tags(session, name, after=last, limit=limit + 1)
    shown, headers = found[:limit], {}
    if len(found) > limit > 0:
        following = urlencode({"n": limit, "last": shown[-1]})
        headers["Link"] = f'</v2/{name}/tags/list?{following}>; rel="next"'
    return JSONResponse({"name": name, "tags": shown}, headers=headers)


@router.get("/{name}/referrers/{digest}", operation_id="oci_referrers_list")
def list_referrers(
    name: RepositoryName,
    digest: str,
    program: Program,
    reader: Reader,
    artifact_type: Annotated[str | None, Query(alias="artifactType")] = None,
) -> Response:
    """List the artifacts that say something about a manifest, as an OCI index."""
    if DIGEST_RE.fullmatch(digest) is None:
        raise RefusedError("digest", f"{digest!r:.80} is no sha256 digest", oci_code="DIGEST_INVALID")
    with program.database.read() as session:
        check_pull(session, program, reader, name, digest)
        found = oci_store.referrers(session, name, digest, artifact_type=artifact_type)
    descriptors: list[dict[str, Any]] = [
        {
            "mediaType": row.media_type,
            "digest": row.digest,
            "size": row.size,
            "artifactType": row.artifact_type,
            "annotations": row.annotations,
        }
        for row in found
    ]
    headers = {} if artifact_type is None else {"OCI-Filters-Applied": "artifactType"}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}
    return JSONResponse(index, headers=headers, media_type=_INDEX)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise TooLargeError(f"a manifest has at most {MAX_BYTES} bytes", oci_code="SIZE_INVALID")
    return bytes(body)
