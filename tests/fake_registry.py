"""An OCI registry in memory, whole enough for a blob store, that can be told to misbehave."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx2

ORIGIN = "https://registry.example"
REPOSITORY = "edge/models"
ACCOUNT = "Basic c2hvYWw6ZmlzaA=="  # shoal:fish

Fault = Callable[[httpx2.Request], httpx2.Response | None]


class Breaking(httpx2.SyncByteStream):
    """A body that ends in a broken connection."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        raise httpx2.ReadError("the connection broke")


@dataclass
class FakeRegistry:
    """One repository.

    Attributes:
        auth: `none`, `basic` or `bearer`.
        deletes: Whether manifests may be deleted.
        elsewhere: Host that blobs are given by, to which they are redirected; none: the registry gives them itself.
        page: Tags of one page.
        faults: Asked first of each request; the first that answers wins.
    """

    auth: str = "none"
    deletes: bool = True
    elsewhere: str = ""
    page: int = 1000
    faults: list[Fault] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)
    tokens: int = 0

    def transport(self) -> httpx2.MockTransport:
        """Return what carries requests here."""
        return httpx2.MockTransport(self._answer)

    def seen(self) -> list[str]:
        """Return method and end of the path of every request."""
        return [f"{one.method} {one.url.path.removeprefix(f'/v2/{REPOSITORY}')}" for one in self.requests]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        for fault in self.faults:
            if (wrong := fault(request)) is not None:
                return wrong
        if request.url.path == "/token":
            return self._token(request)
        if request.url.host == self.elsewhere:
            return self._blob(request, request.url.path.removeprefix("/"))
        if (refusal := self._refusal(request)) is not None:
            return refusal
        kind, _, rest = request.url.path.removeprefix(f"/v2/{REPOSITORY}/").partition("/")
        if kind == "tags":
            return self._tags(request)
        return self._manifest(request, rest) if kind == "manifests" else self._blobs(request, rest)

    def _refusal(self, request: httpx2.Request) -> httpx2.Response | None:
        given = request.headers.get("authorization", "")
        if self.auth == "basic" and given != ACCOUNT:
            return httpx2.Response(401, headers={"www-authenticate": 'Basic realm="here"'})
        if self.auth == "bearer" and given != f"Bearer token-{self.tokens}":
            asked = f'Bearer realm="{ORIGIN}/token",service="registry",scope="repository:{REPOSITORY}:pull"'
            return httpx2.Response(401, headers={"www-authenticate": asked})
        return None

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        if request.headers.get("authorization") != ACCOUNT:
            return httpx2.Response(401)
        self.tokens += 1
        return httpx2.Response(200, json={"token": f"token-{self.tokens}"})

    def _tags(self, request: httpx2.Request) -> httpx2.Response:
        if not self.tags:
            return httpx2.Response(404, json={"errors": [{"code": "NAME_UNKNOWN", "message": "unknown"}]})
        last = request.url.params.get("last", "")
        left = [tag for tag in sorted(self.tags) if tag > last]
        link = f'</v2/{REPOSITORY}/tags/list?n={self.page}&last={left[: self.page][-1]}>; rel="next"'
        headers = {"link": link} if len(left) > self.page else {}
        return httpx2.Response(200, json={"name": REPOSITORY, "tags": left[: self.page]}, headers=headers)

    def _manifest(self, request: httpx2.Request, reference: str) -> httpx2.Response:
        digest = self.tags.get(reference, reference)
        if request.method == "PUT":
            named = {layer["digest"] for layer in json.loads(request.content)["layers"]}
            if not named <= set(self.blobs):
                return httpx2.Response(404, json={"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "push it"}]})
            digest = f"sha256:{hashlib.sha256(request.content).hexdigest()}"
            self.manifests[digest] = request.content
            self.tags[reference] = digest
            return httpx2.Response(201, headers={"location": f"/v2/{REPOSITORY}/manifests/{digest}"})
        if digest not in self.manifests:
            return httpx2.Response(404)
        if request.method == "DELETE":
            if not self.deletes:
                return httpx2.Response(405, json={"errors": [{"code": "UNSUPPORTED", "message": "no deletes here"}]})
            del self.manifests[digest]
            self.tags = {tag: named for tag, named in self.tags.items() if named != digest}
            return httpx2.Response(202)
        return httpx2.Response(200, content=b"" if request.method == "HEAD" else self.manifests[digest])

    def _blobs(self, request: httpx2.Request, rest: str) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(202, headers={"location": f"{ORIGIN}/v2/{REPOSITORY}/blobs/uploads/7?state=x"})
        if request.method == "PUT":
            digest = request.url.params["digest"]
            assert request.url.params["state"] == "x"
            if f"sha256:{hashlib.sha256(request.content).hexdigest()}" != digest:
                return httpx2.Response(400, json={"errors": [{"code": "DIGEST_INVALID", "message": "other bytes"}]})
            self.blobs[digest] = request.content
            return httpx2.Response(201)
        if self.elsewhere and request.method == "GET":
            return httpx2.Response(307, headers={"location": f"https://{self.elsewhere}/{rest}"})
        return self._blob(request, rest)

    def _blob(self, request: httpx2.Request, digest: str) -> httpx2.Response:
        if digest not in self.blobs:
            return httpx2.Response(404)
        data = self.blobs[digest]
        if request.method == "HEAD":
            return httpx2.Response(200, headers={"content-length": str(len(data))})
        start, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        return httpx2.Response(206, content=data[int(start) : int(last) + 1])
