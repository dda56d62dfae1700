"""What only the store in a folder can meet: a disk that fails while the store is swept."""

from __future__ import annotations

import errno
from pathlib import Path

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


def failing(*paths):
    """Return a disk that fails whenever one of these files or folders is opened."""
    really_open, really_list = Path.open, Path.iterdir

    def fail_at(path):
        if path in paths:
            raise OSError(errno.EIO, "the disk fails", str(path))

    def opened(path, *args, **named):
        fail_at(path)
        return really_open(path, *args, **named)

    def listed(path):
        fail_at(path)
        return really_list(path)

    return {"open": opened, "iterdir": listed}


@pytest.mark.parametrize("whole_disk", [False, True])
def test_a_file_that_the_disk_fails_at_is_damaged_unless_the_disk_fails_at_everything(
    tmp_path, monkeypatch, whole_disk
):
    store = FolderBlobStore(tmp_path)
    blob = store.put(b"model")
    store.put(b"{}")
    kept = store.add_bundle(encode_manifest(build_manifest({"model/model.onnx": b"model"}, config=b"{}")))
    for name, fake in failing(store.path(blob), *[store.path(blob).parent] * whole_disk).items():
        monkeypatch.setattr(Path, name, fake)
    if whole_disk:
        with pytest.raises(OSError, match="disk fails"):
            store.intact(kept)
        assert store.path(blob).exists()
    else:
        assert not store.intact(kept)
        assert not store.path(blob).exists()
