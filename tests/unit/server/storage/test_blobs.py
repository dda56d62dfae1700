"""Content-addressed blobs in a folder."""

import os
import threading
from pathlib import Path

import pytest

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.storage.blobs import FolderBlobs

DATA = b"some bytes of a model"
DIGEST = sha256_digest(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_put_can_be_read(blobs: FolderBlobs, tmp_path: Path) -> None:
    assert blobs.put(DATA) == blobs.put(DATA) == DIGEST
    assert blobs.size(DIGEST) == len(DATA)
    with blobs.open(DIGEST) as file:
        assert file.read() == DATA
    assert _files(tmp_path) == [DIGEST.removeprefix("sha256:")]


def test_an_upload_is_no_blob_before_it_is_finished(blobs: FolderBlobs) -> None:
    upload = blobs.begin_upload()
    assert blobs.append(upload, DATA[:5], offset=0) == 5
    assert not blobs.has(DIGEST)
    blobs.append(upload, DATA[5:], offset=5)
    blobs.finish(upload, DIGEST)
    assert blobs.has(DIGEST)
    with pytest.raises(NotFoundError):
        blobs.offset(upload)


def test_an_upload_survives_a_restart(blobs: FolderBlobs, tmp_path: Path) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, DATA[:5], offset=0)
    again = FolderBlobs(tmp_path)
    assert again.offset(upload) == 5
    again.append(upload, DATA[5:], offset=5)
    again.finish(upload, DIGEST)
    assert again.has(DIGEST)


def test_bytes_for_another_offset_are_not_taken(blobs: FolderBlobs) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, DATA, offset=0)
    with pytest.raises(ConflictError) as caught:
        blobs.append(upload, DATA, offset=0)
    assert caught.value.data["offset"] == len(DATA)
    assert blobs.offset(upload) == len(DATA)


def test_other_bytes_than_the_digest_names_are_thrown_away(blobs: FolderBlobs, tmp_path: Path) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, b"other", offset=0)
    with pytest.raises(DigestMismatchError, match="expected"):
        blobs.finish(upload, DIGEST)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:00", "sha256:" + "A" * 64, ""])
def test_only_digests_name_blobs(blobs: FolderBlobs, digest: str) -> None:
    with pytest.raises(ContentError):
        blobs.has(digest)


@pytest.mark.parametrize("upload", ["", "../sha256/x", "nothing", "a/b"])
def test_only_begun_uploads_can_be_continued(blobs: FolderBlobs, upload: str) -> None:
    with pytest.raises(NotFoundError):
        blobs.append(upload, b"x", offset=0)


def test_uploads_that_nobody_goes_on_with_are_forgotten(blobs: FolderBlobs, tmp_path: Path) -> None:
    old, new = blobs.begin_upload(), blobs.begin_upload()
    os.utime(tmp_path / "uploads" / old, (1000, 1000))
    assert blobs.abandon_uploads(before=2000) == 1
    assert blobs.offset(new) == 0
    with pytest.raises(NotFoundError):
        blobs.offset(old)


def test_the_check_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    blobs.check()
    assert _files(tmp_path) == []
    (tmp_path / "uploads").rmdir()
    with pytest.raises(OSError, match="No such file"):
        blobs.check()


def test_an_upload_that_is_being_finished_takes_no_more_bytes(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = blobs.begin_upload()
    blobs.append(upload, DATA, offset=0)
    refused: list[Exception] = []

    def late() -> None:
        try:
            blobs.append(upload, b"and more", offset=len(DATA))
        except (ConflictError, NotFoundError) as error:
            refused.append(error)

    other = threading.Thread(target=late)
    sync = os.fsync

    def slow_sync(descriptor: int) -> None:  # between the comparison of digests and the rename
        if other.ident is None:
            other.start()
            other.join(0.2)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_sync)
    blobs.finish(upload, DIGEST)
    other.join()
    assert sha256_digest((tmp_path / "sha256" / DIGEST.removeprefix("sha256:")).read_bytes()) == DIGEST
    assert len(refused) == 1
    assert _files(tmp_path) == [DIGEST.removeprefix("sha256:")]
