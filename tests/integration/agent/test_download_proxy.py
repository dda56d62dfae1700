"""Downloads through proxies, and over TLS: what the proxy sees, and where redirects may not lead."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from places_to_download_from import ConnectProxy, Place
from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.download import OciFetcher
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.sources import Sources
from shoal_agent.adapters.transfer import Pace, Transfers
from shoal_agent.errors import TransportError
from shoal_protocol.bundle.manifest import Descriptor
from shoal_protocol.canonical import sha256_digest
from shoal_server.link.authority import open_authority

DATA = bytes(range(256)) * 400
BLOB = Descriptor("x", sha256_digest(DATA), len(DATA))


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority's certificate, and what speaks TLS by it as shoal.test."""
    authority = open_authority(tmp_path, name="Plant", now=time.time())
    certificate, key = authority.issue(["shoal.test", "127.0.0.1"], now=time.time())
    (tmp_path / "chain.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    return next(tmp_path.glob("ca.pem")), context


@pytest.fixture
def secure(tls: tuple[Path, ssl.SSLContext]) -> Iterator[Place]:
    with Place(DATA, etag='"a"', tls=tls[1]) as place:
        yield place


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def fetch(client: HttpClient, folder: Path) -> bytes:
    sources = Sources(client, connect=HttpClient, clock=time.monotonic)
    store = FolderBlobStore(folder)
    fetcher = OciFetcher(sources, Transfers(Pace(), clock=time.monotonic, pause=time.sleep))
    try:
        fetcher.blob("m", BLOB, store.part(BLOB.digest), cancelled=lambda: False)
    finally:
        client.close()
    store.adopt(BLOB)
    return store.read(BLOB.digest)


def test_a_tunnel_shows_the_proxy_a_host_and_nothing_more(tls, secure, tmp_path, monkeypatch):
    """The name resolves nowhere: only the proxy knows the way."""
    with ConnectProxy(secure.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = HttpClient("https://shoal.test:8443", user="dev-1", secret="secret", ca_file=tls[0])
        assert fetch(client, tmp_path) == DATA
        assert [head.split(b" HTTP/")[0] for head in proxy.heads] == [b"CONNECT shoal.test:8443"]
        assert b"uthorization" not in proxy.heads[0]
    assert secure.asked[0]["authorization"].startswith("Basic ")


def test_a_download_goes_on_through_a_tunnel(tls, secure, tmp_path, monkeypatch):
    with ConnectProxy(secure.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        secure.cut = 1000
        with pytest.raises(TransportError):
            fetch(HttpClient("https://shoal.test", ca_file=tls[0]), tmp_path)
        secure.cut = None
        assert fetch(HttpClient("https://shoal.test", ca_file=tls[0]), tmp_path) == DATA
    assert secure.ranges_asked() == [None, "bytes=1000-"]


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_that_refuses_is_said(tls, secure, tmp_path, monkeypatch, status):
    with ConnectProxy(secure.port) as proxy:
        proxy.status = status
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(TransportError, match=f"Tunnel connection failed: {status[:3]}"):
            fetch(HttpClient("https://shoal.test", ca_file=tls[0]), tmp_path)
    assert secure.asked == []


def test_without_tls_the_proxy_is_asked_for_the_whole_address(tmp_path, monkeypatch):
    with Place(DATA) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert fetch(HttpClient("http://shoal.test"), tmp_path) == DATA
    assert proxy.asked[0]["path"] == f"http://shoal.test/v2/m/blobs/{BLOB.digest}"


def test_from_a_server_with_tls_no_redirect_leads_out_of_it(tls, secure, tmp_path):
    with Place(DATA) as bare:
        secure.location = f"{bare.url}/x"
        with pytest.raises(TransportError, match="from https to http"):
            fetch(HttpClient(secure.url, user="dev-1", secret="secret", ca_file=tls[0]), tmp_path)
    assert bare.asked == []


def test_a_redirect_to_another_host_with_tls_is_trusted_by_the_same_authorities(tls, secure, tmp_path):
    with Place(DATA, tls=tls[1]) as other:
        secure.location = f"{other.url}/signed"
        assert fetch(HttpClient(secure.url, user="dev-1", secret="secret", ca_file=tls[0]), tmp_path) == DATA
    assert "authorization" not in other.asked[0]
    with Place(DATA, tls=tls[1]) as other:  # the system doesn't know that authority
        secure.location = f"{other.url}/signed"
        with pytest.raises(TransportError, match="certificate"):
            fetch(HttpClient(secure.url), tmp_path / "b")
