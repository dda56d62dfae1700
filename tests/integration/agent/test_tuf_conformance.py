"""The conformance suite's command set, driven as the suite drives it: by exit codes, files and requests."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from shoal_agent.cli import main
from shoal_agent.testing import SimulatedServer


class Client:
    def __init__(self, server: SimulatedServer, folder) -> None:
        self.server, self.folder = server, folder / "metadata"
        self.url = f"{server.url}/trust"
        root = folder / "initial_root.json"
        root.write_bytes(server.trust_files["1.root.json"])
        assert main(["tuf-client", "--metadata-dir", str(self.folder), "init", str(root)]) == 0

    def refresh(self, *options: str) -> int:
        return main(["tuf-client", "--metadata-dir", str(self.folder), "--metadata-url", self.url, *options, "refresh"])

    def version(self, role: str) -> int:
        return json.loads((self.folder / f"{role}.json").read_bytes())["signed"]["version"]


@pytest.fixture
def client(tmp_path):
    with SimulatedServer() as server:
        yield Client(server, tmp_path)


def test_init_asks_nothing_and_a_refresh_follows_roots_and_lists(client):
    assert client.server.requests == []
    assert client.refresh() == 0
    client.server.rotate("root", "targets", "timestamp")
    assert client.refresh() == 0
    assert (client.version("root"), client.version("targets"), client.version("timestamp")) == (2, 2, 2)
    asked = [path.rsplit("/", 1)[1] for _, path, _ in client.server.requests]
    assert asked[-5:] == ["2.root.json", "3.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]


@pytest.mark.parametrize("role", ["root", "snapshot", "timestamp", "targets"])
def test_metadata_that_nobody_signed_fails(client, role):
    assert client.refresh() == 0
    client.server._signers[role] = type(client.server._signers[role]).generate_ecdsa()
    if role == "root":
        client.server._sign("2.root.json", client.server._root, "root")
    client.server.publish()
    assert client.refresh() == 1


def test_old_and_expired_metadata_fails(client):
    old = dict(client.server.trust_files)
    client.server.publish()
    assert client.refresh() == 0
    now = client.server.trust_files
    client.server.trust_files = old
    assert client.refresh() == 1
    client.server.trust_files = now
    assert client.refresh("--days-in-future", "4000") == 1
    client.server.publish(expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert client.refresh() == 1


def test_no_server_fails(client):
    client.url = "http://127.0.0.1:9/trust"
    assert client.refresh() == 1


def test_a_download_takes_only_the_named_bytes_and_is_made_once(client, monkeypatch):
    digest = client.server.release(client.server.add_bundle({"README.md": b"1"}), "q", "1.0")
    raw, given = client.server._manifests[digest], client.server.get
    answers = [raw + b" ", raw]

    def get(path, headers):
        return (200, {}, answers.pop(0)) if path == f"/targets/q/{digest[7:]}.1.0" else given(path, headers)

    monkeypatch.setattr(client.server, "get", get)
    targets = client.folder.parent / "targets"
    words = ["tuf-client", "--metadata-dir", str(client.folder), "--metadata-url", client.url, "--target-dir"]
    words += [str(targets), "--target-base-url", f"{client.server.url}/targets", "--target-name"]
    assert main([*words, "q/1.0", "download"]) == 1
    assert not targets.exists()
    assert main([*words, "q/1.0", "download"]) == 0
    assert [path.read_bytes() for path in targets.iterdir()] == [raw]
    assert main([*words, "q/1.0", "download"]) == 0  # there already: no answer is left
    assert main([*words, "q/2.0", "download"]) == 1
