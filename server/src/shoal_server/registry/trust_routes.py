"""HTTP of the trust metadata: for everybody, because all of it is signed and none of it is secret."""

from fastapi import APIRouter, Response

from shoal_server.access.guard import Program

router = APIRouter(prefix="/trust", tags=["trust"])


@router.get("/{file}", operation_id="trust_get")
def metadata(file: str, program: Program) -> Response:
    """Return a document of the TUF repository: `root.json`, `timestamp.json`, `3.targets.json` and the like."""
    raw = program.trust.metadata(file)
    immutable = file[0].isdecimal()
    caching = "public, max-age=31536000, immutable" if immutable else "no-cache"
    return Response(raw, media_type="application/json", headers={"Cache-Control": caching})
