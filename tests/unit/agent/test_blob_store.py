"""What only the store in a folder can meet: a disk that fails while the store is swept."""

from __future__ import annotations

import pytest

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.manifest import encode_manifest


def test_a_manifest_that_can_not_be_read_just_now_costs_no_blob(tmp_path):
    store = FolderBlobStore(tmp_path)
    for data in (b"{}", b"model"):
        store.put(data)
    kept = store.add_bundle(encode_manifest(build_manifest({"model/model.onnx": b"model"}, config=b"{}")))
    manifest = tmp_path / "bundles" / f"{kept.removeprefix('sha256:')}.json"
    aside = manifest.rename(tmp_path / "aside")
    manifest.mkdir()  # reading it fails, whoever reads
    with pytest.raises(OSError, match="directory"):
        store.sweep({kept})
    manifest.rmdir()
    aside.rename(manifest)
    assert store.intact(kept)
