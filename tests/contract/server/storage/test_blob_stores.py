"""What every place for blobs does: a folder, a bucket of a real S3-speaking server, a docker-registry."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry_clients import Peer, bucket_server, docker_registry
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError, LocalError
from shoal_server.access import Role
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.registry import blob_routes, manifest_routes, store
from shoal_server.registry.collection import Collector
from shoal_server.registry.trust import TrustService
from shoal_server.storage.blobs import BlobStore, FolderBlobs
from shoal_server.storage.bucket import BucketBlobs
from shoal_server.storage.database import Database
from shoal_server.storage.registry_blobs import RegistryBlobs
from shoal_server.storage.registry_connection import RegistryConnection
from shoal_server.storage.registry_place import parse_place
from shoal_server.testing import FakeClock, api_token, fake_services, program_of
from shoal_server.testing.bundles import push_bundle, tiny_bundle

DATA = bytes(range(256)) * 40
DIGEST = sha256_digest(DATA)
ALL_OLD = 4_000_000_000.0


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket_server(tmp_path_factory.mktemp("moto")) as url:
        yield url


def _say(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    variables = {"ENDPOINT_URL": endpoint, "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    for name, value in (variables | {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as peer:
        yield peer


@pytest.fixture(params=["folder", "bucket", "registry"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    with closing(_store(request, tmp_path, monkeypatch)) as found:
        yield found


def _store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "folder":
        return FolderBlobs(tmp_path / "blobs")
    if request.param == "registry":
        peer: Peer = request.getfixturevalue("registry")
        place = parse_place(f"oci+http://{peer.host}/edge/{re.sub('[^a-z0-9]+', '-', tmp_path.name.lower())}")
        return RegistryBlobs(RegistryConnection(place), tmp_path / "uploads")
    _say(monkeypatch, request.getfixturevalue("endpoint"))
    return BucketBlobs(f"s3://shoal/{tmp_path.name}", tmp_path / "uploads")


def _upload(blobs: BlobStore, data: bytes, *, digest: str | None = None) -> None:
    upload = blobs.begin_upload()
    half = len(data) // 2
    assert blobs.append(upload, data[:half], offset=0) == half
    with pytest.raises(ConflictError):
        blobs.append(upload, data, offset=half + 1)
    blobs.append(upload, data[half:], offset=half)
    blobs.finish(upload, digest or sha256_digest(data))


def test_what_is_stored_can_be_read_whole_and_in_part(blobs: BlobStore) -> None:
    assert not blobs.has(DIGEST)
    _upload(blobs, DATA)
    assert (blobs.has(DIGEST), blobs.size(DIGEST)) == (True, len(DATA))
    with blobs.open(DIGEST) as file:
        assert file.read() == DATA
    with blobs.file(DIGEST) as path:
        assert path.read_bytes() == DATA
    assert b"".join(blobs.pieces(DIGEST)) == DATA
    assert b"".join(blobs.pieces(DIGEST, start=100, end=105)) == DATA[100:105]
    assert blobs.put(DATA) == DIGEST
    assert [(blob.digest, blob.size) for blob in blobs.stored()] == [(DIGEST, len(DATA))]


def test_what_is_not_there_is_said_so(blobs: BlobStore) -> None:
    for ask in (blobs.size, blobs.open, lambda digest: list(blobs.pieces(digest))):
        with pytest.raises(NotFoundError, match=DIGEST):
            ask(DIGEST)
    with pytest.raises(NotFoundError), blobs.file(DIGEST):
        pass
    assert blobs.remove(DIGEST, before=ALL_OLD) is False
    with pytest.raises(NotFoundError):
        blobs.offset("0" * 32)


def test_other_bytes_than_announced_never_become_a_blob(blobs: BlobStore) -> None:
    with pytest.raises(DigestMismatchError):
        _upload(blobs, DATA, digest=sha256_digest(b"other"))
    assert list(blobs.stored()) == []


def test_an_upload_is_seen_when_it_is_whole_and_can_be_given_up(blobs: BlobStore) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, DATA, offset=0)
    assert list(blobs.stored()) == []
    blobs.abort(upload)
    begun = blobs.begin_upload()
    assert blobs.abandon_uploads(before=ALL_OLD) == 1
    for gone in (upload, begun):
        with pytest.raises(NotFoundError):
            blobs.offset(gone)


def test_only_what_was_not_stored_again_is_removed(blobs: BlobStore) -> None:
    _upload(blobs, DATA)
    assert blobs.remove(DIGEST, before=1.0) is False
    assert blobs.has(DIGEST)
    assert blobs.remove(DIGEST, before=ALL_OLD) is True
    assert not blobs.has(DIGEST)
    blobs.check()


def test_a_large_blob_goes_through_whole(blobs: BlobStore) -> None:
    data = bytes(range(256)) * (18 * 4096)  # 18 MiB: more than one part of a multipart upload
    _upload(blobs, data)
    digest = sha256_digest(data)
    assert sha256_digest(b"".join(blobs.pieces(digest))) == digest


def test_a_registry_on_it_admits_serves_parts_and_collects(blobs: BlobStore, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/shoal.db")
    database.create_all()
    clock = FakeClock()
    trust = TrustService(database, keys_folder=tmp_path / "keys", clock=clock)
    shoal = fake_services(database, tmp_path, trust=trust, clock=clock, blobs=blobs)
    client = TestClient(program_of(shoal, [blob_routes.router, manifest_routes.router]))
    headers = {"authorization": f"Bearer {api_token(shoal, Role.RELEASER)}"}
    bundle = tiny_bundle()
    assert push_bundle(client, bundle, headers=headers).status_code == 201
    client.post("/v2/quality/blobs/uploads/", params={"digest": DIGEST}, content=DATA, headers=headers)
    with database.read() as session:
        assert store.resolve(session, "quality:1.0.0").digest == bundle.digest
    url = f"/v2/quality/blobs/{DIGEST}"
    etag = client.head(url, headers=headers).headers["etag"]
    for sent, status, body in (
        ({}, 200, DATA),
        ({"range": "bytes=10-19"}, 206, DATA[10:20]),
        ({"range": "bytes=10000-"}, 206, DATA[10000:]),
        ({"range": "bytes=-7"}, 206, DATA[-7:]),
        ({"range": "bytes=10-19", "if-range": etag}, 206, DATA[10:20]),
        ({"range": "bytes=10-19", "if-range": '"other"'}, 200, DATA),
    ):
        answer = client.get(url, headers={**headers, **sent})
        assert (answer.status_code, answer.content) == (status, body), sent
        assert answer.headers["content-length"] == str(len(body))
    assert client.get(url, headers={**headers, "range": "bytes=99999-"}).status_code == 416
    assert client.get(url, headers={**headers, "if-none-match": etag}).status_code == 304
    found = Collector(database, blobs, shoal.needs).collect(before=ALL_OLD)
    assert (found.blobs, found.bytes) == (1, len(DATA))
    assert {blob.digest for blob in blobs.stored()} == {*bundle.blobs, bundle.digest}
    database.close()


def test_a_bucket_that_is_not_there_is_told_as_such(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(monkeypatch, endpoint)
    blobs = BucketBlobs("s3://nowhere/x", tmp_path / "uploads")
    with pytest.raises(LocalError, match="the bucket doesn't do what is asked"):
        blobs.put(DATA)
    with pytest.raises(OSError, match="nowhere|bucket"):
        blobs.check()
