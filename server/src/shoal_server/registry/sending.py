"""A blob as an HTTP answer: whole or in part, from a file of this machine or out of a bucket.

Owns Range and If-Range (RFC 9110, section 14) where Starlette's `FileResponse` can't, which is whenever the blob isn't
a file here. Blobs always come through this server, never by a redirect to the bucket: devices then need to reach, and
to be let through to, this server only, and no signed address of the bucket can be passed on.
"""

import re
from collections.abc import Mapping

from fastapi import Request, Response
from starlette.responses import FileResponse, StreamingResponse

from shoal_server.storage.blobs import BlobStore

_RANGE_RE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def blob_response(
    blobs: BlobStore, digest: str, request: Request, *, headers: Mapping[str, str], media_type: str
) -> Response:
    """Return a blob, or the part of it that Range names.

    Args:
        blobs: where it is.
        digest: its name.
        request: for Range, If-Range and the method.
        headers: of the answer; `ETag` among them.
        media_type: of the whole blob.

    Raises:
        NotFoundError: it isn't there.
    """
    path = blobs.local_path(digest)
    if path is not None:
        return FileResponse(path, headers=dict(headers), media_type=media_type)
    size = blobs.size(digest)
    start, end, status = 0, size, 200
    found = {**headers, "Accept-Ranges": "bytes"}
    if request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        part = wanted_part(request.headers.get("range", ""), size)
        if part == (size, size):
            return Response(status_code=416, headers={**found, "Content-Range": f"bytes */{size}"})
        if part is not None:
            (start, end), status = part, 206
            found["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    found["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=found, media_type=media_type)
    pieces = blobs.pieces(digest, start=start, end=end)
    return StreamingResponse(pieces, status_code=status, headers=found, media_type=media_type)


def wanted_part(header: str, size: int) -> tuple[int, int] | None:
    """Return start and end (left out) of the bytes that a Range header names.

    None means all of them: there is no header, or one of several ranges, which may be ignored. Both equal to `size`
    means that there are no such bytes.

    >>> wanted_part("bytes=2-4", 10), wanted_part("bytes=7-", 10), wanted_part("bytes=-3", 10)
    ((2, 5), (7, 10), (7, 10))
    >>> wanted_part("bytes=10-12", 10), wanted_part("bytes=0-1,4-5", 10)
    ((10, 10), None)
    """
    match = _RANGE_RE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        last = min(int(match[2]), size)
        return (size - last, size) if last else (size, size)
    start, end = int(match[1]), size if match[2] == "" else min(int(match[2]) + 1, size)
    if start >= size:
        return size, size
    return (start, end) if start < end else None
