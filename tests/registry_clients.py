"""Programs that others wrote, which tests of the registry stand on: skopeo, docker-registry, a moto server for S3."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peers import peer
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE
from shoal_server.testing.bundles import TinyBundle


def write_layout(bundle: TinyBundle, folder: Path) -> Path:
    """Write a bundle as an OCI image layout."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, content in {**bundle.blobs, bundle.digest: bundle.manifest}.items():
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": bundle.digest, "size": len(bundle.manifest)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


def skopeo(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (apt-get install skopeo)")
    return subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True)
class Peer:
    """A docker-registry of this test's own."""

    host: str
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}"

    def blobs_given(self) -> int:
        """Return how many blobs it has given out."""
        return self.log.read_text().count("/blobs/sha256:")

    def uploads(self) -> int:
        """Return how many uploads of blobs it has been asked to begin."""
        return self.log.read_text().count('"POST /v2/')


@contextmanager
def docker_registry(
    folder: Path, *, cache_of: dict[str, str] | None = None, config: dict[str, Any] | None = None
) -> Iterator[Peer]:
    """Run docker-registry on a free port of the loopback, with everything in `folder`.

    With `cache_of` (remoteurl, username, password) it is a pull-through cache of another registry. Sections of `config`
    are added to, or replace, those of the usual one.
    """
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    own = config or {}
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        **({} if cache_of is None else {"proxy": cache_of}),
        **own,
        "http": {"addr": host, **own.get("http", {})},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://{host}/v2/", process, log)  # one with TLS answers too, that it wants TLS
        yield Peer(host, log)
    finally:
        _end(process)


@contextmanager
def bucket_server(folder: Path) -> Iterator[str]:
    """Run a moto server with one empty bucket `shoal`; yields its address."""
    program = peer("moto_server")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"{url}/moto-api/", process, log)
        with urllib.request.urlopen(urllib.request.Request(f"{url}/shoal", method="PUT"), timeout=10):
            yield url
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} doesn't answer: {log.read_text()}")
