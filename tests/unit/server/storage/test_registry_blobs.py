"""Blobs in a registry that others run: credentials, redirects, what is tried again, how refusals are told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fake_registry import ORIGIN, REPOSITORY, Breaking, FakeRegistry
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError, LocalError
from shoal_server.errors import NotFoundError
from shoal_server.storage.blobs import DeletesRefusedError
from shoal_server.storage.registry_blobs import RegistryBlobs
from shoal_server.storage.registry_connection import RegistryConnection
from shoal_server.storage.registry_place import RegistryPlace
from shoal_server.testing import FakeClock

DATA = bytes(range(256)) * 8
DIGEST = sha256_digest(DATA)
HEX = DIGEST.removeprefix("sha256:")
LATER = 4_000_000_000.0


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def blobs(registry: FakeRegistry, clock: FakeClock, waits: list[float], tmp_path: Path) -> Iterator[RegistryBlobs]:
    with closing(_store(registry, tmp_path, clock=clock, sleep=waits.append)) as store:
        yield store


def _store(registry: FakeRegistry, folder: Path, *, clock: FakeClock | None = None, **settings: Any) -> RegistryBlobs:
    account = {"user": "shoal", "password": "fish"} if registry.auth != "none" else {}
    connection = RegistryConnection(
        RegistryPlace(ORIGIN, REPOSITORY), transport=registry.transport(), **account, **settings
    )
    return RegistryBlobs(connection, folder, clock=clock or FakeClock())


def _upload(blobs: RegistryBlobs, data: bytes) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, data, offset=0)
    blobs.finish(upload, sha256_digest(data))


def test_a_blob_is_there_when_its_holder_is(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    registry.blobs[DIGEST] = DATA  # as a push left it that was cut before the holder, or somebody else's
    assert not blobs.has(DIGEST)
    blobs.put(DATA)
    assert blobs.has(DIGEST)
    assert registry.seen().count("PUT /blobs/uploads/7") == 1  # the empty config; the blob was not sent again


def test_storing_again_notes_the_time_and_leaves_one_holder(
    registry: FakeRegistry, blobs: RegistryBlobs, clock: FakeClock
) -> None:
    _upload(blobs, DATA)
    first = clock()
    assert [one.modified_at for one in blobs.stored()] == [first]
    clock.advance(100)
    _upload(blobs, DATA)
    assert [one.modified_at for one in blobs.stored()] == [first + 100]
    assert len(registry.manifests) == 1
    assert blobs.remove(DIGEST, before=first + 50) is False
    assert blobs.remove(DIGEST, before=first + 101) is True


def test_a_list_of_many_pages_is_read_to_its_end(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    registry.page = 2
    digests = {blobs.put(bytes([number])) for number in range(5)}
    blobs.put(DATA)
    registry.tags["latest"] = next(iter(registry.manifests))  # not ours
    assert {one.digest for one in blobs.stored()} == {*digests, DIGEST}


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_the_account_is_given_when_it_is_asked_for(auth: str, tmp_path: Path) -> None:
    registry = FakeRegistry(auth=auth)
    with closing(_store(registry, tmp_path)) as blobs:
        assert blobs.put(DATA) == DIGEST
        assert b"".join(blobs.pieces(DIGEST)) == DATA
        unauthorized = [one for one in registry.requests if "authorization" not in one.headers]
        assert len(unauthorized) == 1  # the very first; then it is known what the registry wants
        if auth == "bearer":
            asked = next(one for one in registry.requests if one.url.path == "/token")
            assert f"repository:{REPOSITORY}:pull,push,delete" in asked.url.params.get_list("scope")
            registry.tokens += 1  # the token has expired
            assert blobs.has(DIGEST)


def test_a_wrong_password_is_told_as_such(tmp_path: Path) -> None:
    registry = FakeRegistry(auth="basic")
    connection = RegistryConnection(
        RegistryPlace(ORIGIN, REPOSITORY), user="shoal", password="x", transport=registry.transport()
    )
    with closing(RegistryBlobs(connection, tmp_path)) as blobs:
        with pytest.raises(LocalError, match="refuses this name and password") as caught:
            blobs.has(DIGEST)
        assert "SHOAL_BLOBS_PASSWORD" in caught.value.hint
        with pytest.raises(OSError, match="refuses this name"):
            blobs.check()


def test_credentials_follow_no_redirect_to_elsewhere(tmp_path: Path) -> None:
    registry = FakeRegistry(auth="basic", elsewhere="bucket.example")
    with closing(_store(registry, tmp_path)) as blobs:
        blobs.put(DATA)
        assert b"".join(blobs.pieces(DIGEST)) == DATA
        (there,) = [one for one in registry.requests if one.url.host == "bucket.example"]
        assert "authorization" not in there.headers


def test_nothing_goes_from_tls_into_the_open(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    def downgrade(request: httpx2.Request) -> httpx2.Response | None:
        if request.method != "POST":
            return None
        return httpx2.Response(202, headers={"location": f"http://registry.example/v2/{REPOSITORY}/blobs/uploads/1"})

    registry.faults.append(downgrade)
    with pytest.raises(LocalError, match="without TLS"):
        blobs.put(DATA)
    assert all(one.url.scheme == "https" for one in registry.requests)


def test_a_download_that_breaks_goes_on_where_it_broke(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    blobs.put(DATA)
    asked = []

    def breaking(request: httpx2.Request) -> httpx2.Response | None:
        if "range" not in request.headers:
            return None
        asked.append(request.headers["range"])
        at = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        return httpx2.Response(206, stream=Breaking(DATA[at : at + 1000]))

    registry.faults.append(breaking)
    assert b"".join(blobs.pieces(DIGEST)) == DATA
    assert asked == ["bytes=0-2047", "bytes=1000-2047", "bytes=2000-2047"]
    registry.faults[:] = [lambda _: httpx2.Response(206, stream=Breaking(b""))]
    with pytest.raises(LocalError, match="breaks off"):
        list(blobs.pieces(DIGEST))


def test_a_registry_that_knows_no_range_is_read_all_the_same(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    blobs.put(DATA)
    registry.faults.append(lambda request: httpx2.Response(200, content=DATA) if "range" in request.headers else None)
    assert b"".join(blobs.pieces(DIGEST, start=100, end=105)) == DATA[100:105]


def test_other_bytes_than_the_digest_names_are_never_given_out_whole(
    registry: FakeRegistry, blobs: RegistryBlobs
) -> None:
    blobs.put(DATA)
    registry.blobs[DIGEST] = DATA[:-1] + b"!"
    came = []
    with pytest.raises(DigestMismatchError, match="other bytes"):
        came.extend(blobs.pieces(DIGEST))
    assert len(b"".join(came)) < len(DATA)
    with pytest.raises(DigestMismatchError):
        blobs.open(DIGEST)
    with pytest.raises(DigestMismatchError), blobs.file(DIGEST):
        pass


def test_a_busy_registry_is_asked_again_and_a_silent_one_is_not(
    registry: FakeRegistry, blobs: RegistryBlobs, waits: list[float]
) -> None:
    blobs.put(DATA)
    answers = [httpx2.Response(503), httpx2.Response(429)]
    registry.faults.append(lambda _: answers.pop() if answers else None)
    assert blobs.has(DIGEST)
    assert waits == pytest.approx([0.1, 0.4])

    def silent(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("")

    registry.faults.append(silent)
    registry.requests.clear()
    with pytest.raises(LocalError, match="no answer in time"):
        blobs.has(DIGEST)
    assert len(registry.requests) == 1


def test_an_upload_that_breaks_is_sent_again_whole(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    breaks = [httpx2.WriteError("broken"), httpx2.WriteError("broken")]

    def breaking(request: httpx2.Request) -> httpx2.Response | None:
        if request.method == "PUT" and "uploads" in request.url.path and breaks:
            raise breaks.pop()
        return None

    registry.faults.append(breaking)
    with pytest.raises(LocalError, match="can't be reached"):
        _upload(blobs, DATA)  # the empty config broke twice
    breaks.append(httpx2.WriteError("broken"))
    _upload(blobs, DATA)
    assert registry.blobs[DIGEST] == DATA


def test_a_registry_without_deletes_is_told_as_such(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    registry.deletes = False
    blobs.put(DATA)
    with pytest.raises(DeletesRefusedError, match=r"refuses deletes \(405\)"):
        blobs.remove(DIGEST, before=LATER)
    assert blobs.has(DIGEST)


def test_a_tag_that_somebody_else_wrote_is_not_taken_for_ours(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    blobs.put(DATA)
    registry.manifests[registry.tags[f"blob-{HEX}"]] = b'{"layers": []}'
    with pytest.raises(LocalError, match="not what this server wrote"):
        blobs.size(DIGEST)


def test_a_blob_that_the_registry_lost_is_said_to_be_gone(registry: FakeRegistry, blobs: RegistryBlobs) -> None:
    blobs.put(DATA)
    registry.blobs.clear()
    with pytest.raises(NotFoundError, match=DIGEST):
        list(blobs.pieces(DIGEST))
