"""Bundles as files: every byte is verified, wherever it comes from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures_models import linear_bundle, write_layout, write_tar
from shoal_agent.runtime.bundle_files import BundleFiles, from_blobs, from_store, open_bundle
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import parse_bundle_info
from shoal_protocol.errors import CallerError, ContentError, DigestMismatchError

DIGEST, BLOBS = linear_bundle()


def blob(digest: str, most: int) -> bytes:
    if digest not in BLOBS:
        raise FileNotFoundError(digest)
    return BLOBS[digest][: most + 1]


def as_folder(tmp: Path) -> BundleFiles:
    return open_bundle(write_layout(tmp, DIGEST, BLOBS))


def as_tar(tmp: Path) -> BundleFiles:
    return open_bundle(write_tar(tmp / "b.tar", DIGEST, BLOBS))


def as_blobs(tmp: Path) -> BundleFiles:
    return from_blobs(DIGEST, blob)


def as_store(tmp: Path) -> BundleFiles:
    return from_store(DIGEST, BLOBS[DIGEST], lambda name: BLOBS[name])


@pytest.mark.parametrize("opened", [as_folder, as_tar, as_blobs, as_store])
def test_a_bundle_reads_the_same_from_anywhere(opened: Callable[[Path], BundleFiles], tmp_path: Path) -> None:
    files = opened(tmp_path)
    assert files.digest == DIGEST
    assert parse_bundle_info(files.read(BUNDLE_JSON)).name == "quality"
    assert files.has("model/model.onnx")
    assert not files.has("../secret")
    with pytest.raises(ContentError, match="no file"):
        files.read("../secret")


@pytest.mark.parametrize("change", [lambda raw: raw[:-1] + b"?", lambda raw: raw + b"?", lambda raw: raw[:-1]])
def test_other_bytes_are_refused(change: Callable[[bytes], bytes]) -> None:
    layer = from_blobs(DIGEST, blob).manifest.files()[BUNDLE_JSON]
    files = from_blobs(DIGEST, lambda d, most: (change(BLOBS[d]) if d == layer.digest else BLOBS[d])[: most + 1])
    with pytest.raises(DigestMismatchError):
        files.read(BUNDLE_JSON)


def test_another_manifest_is_refused() -> None:
    with pytest.raises(DigestMismatchError):
        from_blobs(DIGEST, lambda d, most: BLOBS[d].replace(b"2", b"3", 1))
    with pytest.raises(DigestMismatchError):
        from_store(DIGEST, b"{}", lambda name: b"")


def test_missing_blobs_are_named() -> None:
    manifest_only = from_store(DIGEST, BLOBS[DIGEST], lambda name: (_ for _ in ()).throw(FileNotFoundError(name)))
    with pytest.raises(ContentError, match="is missing"):
        manifest_only.read(BUNDLE_JSON)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="no bundle at"):
        open_bundle(tmp_path / "absent")
    with pytest.raises(ContentError, match="index.json"):
        open_bundle(tmp_path)
    text = tmp_path / "a.tar"
    text.write_text("not a tar")
    with pytest.raises(ContentError, match=r"no \.tar"):
        open_bundle(text)
    (tmp_path / "index.json").write_text('{"manifests": [{"digest": "x", "size": 1}, {"digest": "y", "size": 1}]}')
    with pytest.raises(CallerError, match="2 bundles"):
        open_bundle(tmp_path)
