"""Blobs in a docker-registry as people run it: accounts, TLS, its own garbage collection, read-only, away."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from faulty_proxy import FaultyProxy, Mode
from registry_clients import Peer, docker_registry
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError, LocalError
from shoal_server.bootstrap.parts import open_blobs
from shoal_server.errors import NotFoundError, StartError
from shoal_server.link.authority import open_authority
from shoal_server.registry.collection import Collector
from shoal_server.storage.blobs import DeletesRefusedError
from shoal_server.storage.database import Database
from shoal_server.storage.registry_blobs import RegistryBlobs
from shoal_server.storage.settings import Settings

DATA = b"the weights of a model" * 1000
OTHER = b"another file" * 1000
LATER = 4_000_000_000.0
HTPASSWD = "shoal:$2b$04$7uIG9fkV7QE.9shn7Qk8TuAii.n7C4.M3xvxEwuJOlWXnvnmYu6cG\n"
PASSWORD = "fish & chips"


def _settings(folder: Path, peer: Peer, *, scheme: str = "oci+http", **more: Any) -> Settings:
    return Settings(data=folder / "server", blobs=f"{scheme}://{peer.host}/edge/models", **more)


def _opened(folder: Path, peer: Peer, **more: Any) -> RegistryBlobs:
    found = open_blobs(_settings(folder, peer, **more))
    assert isinstance(found, RegistryBlobs)
    return found


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Peer, Path]]:
    """A registry with an account and TLS by an authority of its own; with the authority's file."""
    authority = open_authority(tmp_path / "authority", name="An authority of theirs", now=time.time())
    certificate, key = authority.issue(["127.0.0.1"], now=time.time())
    for name, content in (("ca.pem", authority.pem), ("cert.pem", certificate), ("key.pem", key)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    config = {
        "auth": {"htpasswd": {"realm": "theirs", "path": str(tmp_path / "htpasswd")}},
        "http": {"tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}},
    }
    with docker_registry(tmp_path / "registry", config=config) as peer:
        yield peer, tmp_path / "ca.pem"


def test_one_with_accounts_and_tls_is_used_as_its_settings_say(guarded: tuple[Peer, Path], tmp_path: Path) -> None:
    peer, ca = guarded
    account = {"blobs_user": "shoal", "blobs_password": PASSWORD, "scheme": "oci"}
    with closing(_opened(tmp_path, peer, blobs_ca=ca, **account)) as blobs:
        digest = blobs.put(DATA)
        assert b"".join(blobs.pieces(digest)) == DATA
    with pytest.raises(StartError, match="not trusted") as caught:
        _opened(tmp_path, peer, **account)
    assert "--blobs-ca" in caught.value.message + caught.value.hint
    with pytest.raises(StartError, match="refuses this name and password"):
        _opened(tmp_path, peer, blobs_ca=ca, **{**account, "blobs_password": "meat"})
    with pytest.raises(StartError, match="who gives no name and password"):
        _opened(tmp_path, peer, blobs_ca=ca, scheme="oci")


def test_its_own_garbage_collection_takes_what_we_let_go_and_nothing_else(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as peer, closing(_opened(tmp_path, peer)) as blobs:
        kept, gone = blobs.put(DATA), blobs.put(OTHER)
        blobs.put(b"stored again")
        assert blobs.remove(gone, before=LATER)
    stored = tmp_path / "registry" / "storage"
    assert _files_with(stored, OTHER) == 1
    config = str(tmp_path / "registry" / "config.yml")
    subprocess.run(["docker-registry", "garbage-collect", "--delete-untagged", config], check=True, capture_output=True)
    assert (_files_with(stored, DATA), _files_with(stored, OTHER)) == (1, 0)
    with docker_registry(tmp_path / "registry") as peer, closing(_opened(tmp_path, peer)) as blobs:
        assert b"".join(blobs.pieces(kept)) == DATA
        assert not blobs.has(gone)
        with pytest.raises(NotFoundError):
            blobs.open(gone)
        assert blobs.put(OTHER) == gone  # and may come back
        assert b"".join(blobs.pieces(gone)) == OTHER


def _files_with(folder: Path, content: bytes) -> int:
    return sum(path.is_file() and path.read_bytes() == content for path in folder.rglob("data"))


def test_one_that_keeps_everything_is_told_and_nothing_breaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "theirs")}}}
    with (
        docker_registry(tmp_path / "registry", config=config) as peer,
        closing(_opened(tmp_path, peer)) as blobs,
        closing(Database(f"sqlite:///{tmp_path}/shoal.db")) as database,
    ):
        database.create_all()
        digest = blobs.put(DATA)
        with pytest.raises(DeletesRefusedError):
            blobs.remove(digest, before=LATER)
        found = Collector(database, blobs, lambda _session: ()).collect(before=LATER)
        assert (found.blobs, found.kept_blobs, found.kept_bytes) == (0, 1, len(DATA))
        assert "refuses deletes (405)" in found.refused
        assert "garbage stays" in caplog.text


def test_one_that_is_read_only_is_no_place_to_start_with(tmp_path: Path) -> None:
    config = {
        "storage": {
            "filesystem": {"rootdirectory": str(tmp_path / "theirs")},
            "maintenance": {"readonly": {"enabled": True}},
        }
    }
    with docker_registry(tmp_path / "registry", config=config) as peer, pytest.raises(StartError, match="405"):
        _opened(tmp_path, peer)


def test_one_that_goes_away_is_told_and_used_again_when_it_is_back(tmp_path: Path) -> None:
    with (
        docker_registry(tmp_path / "registry") as peer,
        FaultyProxy(int(peer.host.rpartition(":")[2]), seed=1) as line,
        closing(_opened(tmp_path, Peer(f"127.0.0.1:{line.port}", peer.log))) as blobs,
    ):
        digest = blobs.put(DATA)
        line.set(Mode.REFUSE)
        for ask in (lambda: blobs.has(digest), lambda: blobs.put(OTHER), lambda: list(blobs.pieces(digest))):
            with pytest.raises(LocalError, match="can't be reached"):
                ask()
        with pytest.raises(OSError, match="can't be reached"):
            blobs.check()
        upload = blobs.begin_upload()
        blobs.append(upload, OTHER, offset=0)
        with pytest.raises(LocalError, match="can't be reached"):
            blobs.finish(upload, sha256_digest(OTHER))
        with pytest.raises(StartError, match="can't be reached"):
            _opened(tmp_path, Peer(f"127.0.0.1:{line.port}", peer.log))
        line.set(Mode.PASS)
        assert b"".join(blobs.pieces(digest)) == DATA
        assert blobs.put(OTHER) == sha256_digest(OTHER)


def test_bytes_that_were_changed_in_it_are_never_given_out_whole(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as peer, closing(_opened(tmp_path, peer)) as blobs:
        digest = blobs.put(DATA)
        (lies,) = (path for path in (tmp_path / "registry").rglob("data") if path.read_bytes() == DATA)
        lies.write_bytes(DATA[:-1] + b"?")
        with pytest.raises(DigestMismatchError, match="other bytes"):
            blobs.open(digest)
