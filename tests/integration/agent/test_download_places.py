"""Mirrors, redirects and coded forms, against servers that lie, stall, redirect, truncate and change their mind."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from places_to_download_from import Place
from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.download import OciFetcher
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.sources import FAULT_REST_S, LIE_REST_S, Sources
from shoal_agent.adapters.transfer import Pace, Transfers
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.ports import HeldBlob
from shoal_agent.testing import FakeClock
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.codings import DCZ, DICTIONARY_HEADER, ZSTD, Encoder, dictionary_header
from shoal_protocol.bundle.manifest import Descriptor, encode_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError

NOISE = random.Random(3).randbytes(60_000)
OLD = NOISE + b"old" * 10_000
DATA = NOISE[:30_000] + b"new" + NOISE[30_000:] + b"old" * 10_000
ETAG = f'"{sha256_digest(DATA)}"'
BLOB = Descriptor("x", sha256_digest(DATA), len(DATA))


def coded(content: bytes, base: bytes | None = None) -> bytes:
    encoder = Encoder(len(content), level=3, dictionary=None if base is None else (sha256_digest(base), base))
    return encoder.feed(content) + encoder.finish()


class Device:
    """A fetcher with a store, a server and mirrors."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.clock = FakeClock()
        self.server = stack.enter_context(Place(DATA, etag=ETAG))
        self.store = FolderBlobStore(folder)
        self.part = self.store.part(BLOB.digest)
        self.held: HeldBlob | None = None
        self.start()

    def start(self, *mirrors: str, patch_bytes: int = 1 << 30) -> None:
        """Start anew, as a process does: only what lies on the disk is known."""
        client = HttpClient(self.server.url, user="dev-1", secret="secret", timeout_s=5.0)
        sources = Sources(client, mirrors, connect=lambda url: HttpClient(url, timeout_s=0.5), clock=self.clock)
        transfers = Transfers(Pace(), clock=self.clock, pause=lambda _s: None)
        self.fetcher = OciFetcher(sources, transfers, patch_bytes=patch_bytes)

    def mirror(self, content: bytes = DATA, **ways: object) -> Place:
        """Start with one mirror."""
        place = self.stack.enter_context(Place(content, **ways))
        self.start(place.url)
        return place

    def holds(self, content: bytes) -> None:
        """Have an older version of the blob."""
        digest = self.store.put(content)
        held = Descriptor("x", digest, len(content))
        self.held = HeldBlob(held, lambda: self.store.read(digest))

    def fetch(self, *, cancelled=lambda: False) -> None:
        self.fetcher.blob("m", BLOB, self.part, cancelled=cancelled, held=self.held)

    def fetched(self) -> bool:
        """Fetch, and have the store take it over."""
        self.fetch()
        self.store.adopt(BLOB)
        left = [path.name for path in (self.folder / "staging").iterdir()]
        return self.store.read(BLOB.digest) == DATA and not left


@pytest.fixture
def device(tmp_path):
    with ExitStack() as stack:
        yield Device(tmp_path, stack)


# Mirrors ----------------------------------------------------------------------------------------------------------


def test_a_mirror_is_asked_first_and_never_gets_credentials(device):
    mirror = device.mirror()
    assert device.fetched()
    assert [(asked["path"], asked.get("authorization")) for asked in mirror.asked] == [
        (f"/v2/m/blobs/{BLOB.digest}", None)
    ]
    assert device.server.asked == []


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_dead_mirror_is_passed_over(device):
    device.start(closed_port())
    assert device.fetched()
    assert device.server.asked[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_mirror_that_refuses_rests_for_a_while(device, status):
    mirror = device.mirror(status=status)
    for passed_s, asked in ((0.0, 1), (FAULT_REST_S - 1.0, 1), (2.0, 2)):
        device.clock.move(passed_s)
        device.fetch()
        device.store.discard_part(BLOB.digest)
        assert len(mirror.asked) == asked


@pytest.mark.parametrize("way", [{"stalls": True}, {"cut": len(DATA) // 2}], ids=["stalls", "breaks off"])
def test_what_a_mirror_left_unfinished_the_server_goes_on_with(device, way):
    mirror = device.mirror(etag='"of the mirror"', **way)
    assert device.fetched()
    assert device.server.ranges_asked() == [f"bytes={len(DATA) // 2}-"]
    assert "if-range" not in device.server.asked[0]  # the validator was the mirror's
    assert mirror.sent + device.server.sent == len(DATA)  # each byte once


def test_a_slow_mirror_is_left_for_the_server(device):
    mirror = device.mirror(stalls=True)

    def crawling() -> bool:
        device.clock.move(100.0 if not device.server.asked else 0.0)
        return False

    device.fetch(cancelled=crawling)
    assert (len(mirror.asked), len(device.server.asked)) == (1, 1)


def test_other_bytes_of_a_mirror_are_found_and_fetched_from_the_server(device):
    mirror = device.mirror(bytes(len(DATA)))
    assert device.fetched()
    assert device.server.ranges_asked() == [None]
    device.clock.move(LIE_REST_S - 1.0)
    device.fetch()
    assert len(mirror.asked) == 1


def test_a_lie_that_the_server_went_on_with_is_found_too(device):
    device.mirror(bytes(len(DATA)), cut=1000)
    with pytest.raises(DigestMismatchError, match="127.0.0.1"):
        device.fetch()
    assert not device.part.exists()
    assert device.fetched()
    assert device.server.ranges_asked() == ["bytes=1000-", None]


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("content", [DATA + b"x", DATA * 3, DATA[:-1], b""], ids=["more", "far more", "less", "none"])
def test_a_mirror_of_another_size_costs_no_disk(device, content, announces):
    device.mirror(content, announces=announces)
    largest = 0

    def watching() -> bool:
        nonlocal largest
        largest = max(largest, device.part.stat().st_size)
        return False

    device.fetch(cancelled=watching)
    assert largest <= len(DATA)
    device.store.adopt(BLOB)


def test_a_mirror_that_ignores_ranges_or_changes_meanwhile_begins_anew(device):
    device.mirror(cut=1000, etag='"a"')
    device.server.status = 503
    with pytest.raises(TransportError):
        device.fetch()
    device.mirror(etag='"b"')  # the same bytes at another address: they go on
    device.fetch()
    device.store.discard_part(BLOB.digest)
    mirror = device.mirror(cut=1000, etag='"a"')
    with pytest.raises(TransportError):
        device.fetch()
    mirror.cut, mirror.etag = None, '"c"'  # the same address with another validator: it begins anew
    device.start(mirror.url)
    assert device.fetched()
    assert [(a.get("range"), a.get("if-range")) for a in mirror.asked] == [(None, None), ("bytes=1000-", '"a"')]
    mirror = device.mirror(cut=1000, ranges=False)
    with pytest.raises(TransportError):
        device.fetch()
    mirror.cut = None
    device.start(mirror.url)
    assert device.fetched()


def test_a_part_that_is_longer_than_what_is_offered_begins_anew(device):
    device.server.cut = 50_000
    with pytest.raises(TransportError):
        device.fetch()
    device.server.cut, device.server.content = None, DATA[:100]
    for _ in range(2):
        with pytest.raises(TransportError):
            device.fetch()
    assert not device.part.exists() or device.part.stat().st_size <= 100
    device.server.content = DATA
    assert device.fetched()


def test_the_server_names_mirrors_with_a_manifest(device):
    raw = encode_manifest(build_manifest({"a": DATA}, config=b"{}"))
    digest = sha256_digest(raw)
    mirror = device.stack.enter_context(Place(DATA))
    device.server.content = raw
    device.server.always["Link"] = f'<{mirror.url}/v2/m/manifests/{digest}>; rel="duplicate"'
    assert device.fetcher.manifest("m", digest, size=len(raw)) == raw
    device.server.content = DATA
    assert device.fetched()
    assert (len(mirror.asked), len(device.server.asked)) == (1, 1)
    device.server.always.clear()
    device.server.content = raw
    device.fetcher.manifest("m", digest, size=len(raw))
    device.server.content = DATA
    device.fetch()
    assert len(mirror.asked) == 1  # it is named no more


def test_a_manifest_comes_from_a_mirror_when_the_server_is_away(device):
    raw = encode_manifest(build_manifest({"a": DATA}, config=b"{}"))
    mirror = device.mirror(raw)
    device.server.status = 503
    assert device.fetcher.manifest("m", sha256_digest(raw), size=len(raw)) == raw
    mirror.content = raw + b" "
    with pytest.raises(TransportError, match="503"):
        device.fetcher.manifest("m", sha256_digest(raw), size=len(raw))


# Redirects --------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_without_credentials_and_resumed(device):
    bucket = device.stack.enter_context(Place(DATA, etag='"bucket"', cut=1000))
    device.server.location = f"{bucket.url}/signed?X-Amz-Signature=abc"
    with pytest.raises(TransportError):
        device.fetch()
    bucket.cut = None
    assert device.fetched()
    assert [(a["path"], a.get("authorization"), a.get("range"), a.get("if-range")) for a in bucket.asked] == [
        ("/signed?X-Amz-Signature=abc", None, None, None),
        ("/signed?X-Amz-Signature=abc", None, "bytes=1000-", '"bucket"'),
    ]


def test_a_signed_address_that_has_expired_is_asked_for_anew_and_told_to_nobody(device):
    bucket = device.stack.enter_context(Place(DATA, etag='"bucket"', cut=1000))
    device.server.location = f"{bucket.url}/signed?X-Amz-Expires=60&X-Amz-Signature=first"
    with pytest.raises(TransportError) as cut:
        device.fetch()
    bucket.cut, bucket.status = None, 403  # as S3 answers when the time is over
    with pytest.raises(TransportError, match="403") as expired:
        device.fetch()
    for error in (cut.value, expired.value):
        assert "X-Amz" not in f"{error.message} {error.hint}"
    bucket.status, device.server.location = None, f"{bucket.url}/signed?X-Amz-Expires=60&X-Amz-Signature=%2Fnext%3D"
    assert device.fetched()
    assert bucket.asked[-1]["path"] == "/signed?X-Amz-Expires=60&X-Amz-Signature=%2Fnext%3D"
    assert (bucket.asked[-1]["range"], bucket.asked[-1]["if-range"]) == ("bytes=1000-", '"bucket"')
    assert not any("authorization" in asked or "cookie" in asked for asked in bucket.asked)


def test_a_redirect_to_the_same_origin_keeps_the_credentials(device):
    second: list[dict[str, str]] = device.server.asked
    device.server.location = "/elsewhere"

    def once(headers, real=device.server.answer):
        if len(second) > 1:
            device.server.location = ""
        return real(headers)

    device.server.answer = once  # type: ignore[method-assign]
    assert device.fetched()
    assert [asked["path"] for asked in second] == [f"/v2/m/blobs/{BLOB.digest}", "/elsewhere"]
    assert all("authorization" in asked for asked in second)


def test_a_circle_of_redirects_ends(device):
    device.server.location = "/again"
    with pytest.raises(TransportError, match="more than 5 redirects"):
        device.fetch()
    assert len(device.server.asked) == 6


def test_what_is_said_to_the_server_is_said_to_no_other(device):
    device.server.location = "https://shoal.example/api/v1/device/enrol"
    client = HttpClient(device.server.url, user="dev-1", secret="secret")
    with pytest.raises(TransportError, match="sends on to https://shoal.example") as caught:
        client.exchange("POST", "/api/v1/device/enrol", body=b"{}")
    assert "join with the address" in caught.value.hint
    client.close()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://user:secret@127.0.0.1/", "http://[1/"])
def test_a_redirect_to_no_address_is_refused(device, location):
    device.server.location = location
    with pytest.raises(TransportError, match="no address to follow"):
        device.fetch()


# Coded forms ------------------------------------------------------------------------------------------------------


def test_the_smaller_form_is_taken_and_the_part_is_the_blob(device):
    device.server.forms[ZSTD] = coded(DATA)
    assert device.fetched()
    assert device.server.sent == len(coded(DATA)) < len(DATA)
    assert DICTIONARY_HEADER.lower() not in device.server.asked[0]


def test_against_what_is_stored_little_travels(device):
    device.holds(OLD)
    device.server.forms[DCZ] = coded(DATA, OLD)
    assert device.fetched()
    assert device.server.asked[0][DICTIONARY_HEADER.lower()] == dictionary_header(sha256_digest(OLD))
    assert device.server.sent < 300


@pytest.mark.parametrize("wrong", [
    coded(DATA, b"another dictionary" * 500), coded(bytes(len(DATA)), OLD), coded(DATA + b"x", OLD),
    coded(bytes(50_000_000), OLD), coded(DATA, OLD)[:-3], coded(DATA, OLD) + b"tail", b"", b"garbage" * 100,
], ids=["other dictionary", "other bytes", "a byte more", "a bomb", "cut", "tail", "nothing", "garbage"])  # fmt: skip
def test_a_form_that_is_wrong_costs_a_request_and_no_more(device, wrong):
    device.holds(OLD)
    device.server.forms[DCZ] = wrong
    largest = 0

    def watching() -> bool:
        nonlocal largest
        largest = max(largest, sum(path.stat().st_size for path in (device.folder / "staging").glob("*.part")))
        return False

    device.fetch(cancelled=watching)
    assert largest <= len(DATA)
    device.store.adopt(BLOB)
    assert [asked["accept-encoding"] for asked in device.server.asked] == ["zstd, dcz", "identity"]
    device.fetch()
    assert device.server.asked[-1]["accept-encoding"] == "identity"  # it is not tried again


@pytest.mark.parametrize("announces", [True, False])
def test_a_form_that_saves_nothing_is_refused_before_it_comes(device, announces):
    device.server.forms[ZSTD] = coded(DATA).ljust(len(DATA) if announces else 10, b"x")
    device.server.announces = announces
    device.fetch(cancelled=device.part.with_suffix(".coded").exists)
    device.store.adopt(BLOB)
    assert [asked["accept-encoding"] for asked in device.server.asked] == ["zstd", "identity"]


def test_a_form_is_resumed_by_its_own_validator(device):
    form = coded(DATA)
    device.server.forms[ZSTD], device.server.cut = form, 1000
    with pytest.raises(TransportError, match="1000 bytes"):
        device.fetch()
    device.start()
    device.server.cut = None
    assert device.fetched()
    assert [(a["accept-encoding"], a.get("range"), a.get("if-range")) for a in device.server.asked] == [
        ("zstd", None, None),
        ("zstd", "bytes=1000-", f'"{sha256_digest(form)}"'),
    ]
    assert device.server.sent == len(form)


@pytest.mark.parametrize("later", [{ZSTD: coded(DATA[:-1] + b"d")[:-1]}, {}], ids=["another form", "no form"])
def test_a_form_that_is_offered_no_more_begins_anew(device, later):
    device.server.forms[ZSTD], device.server.cut = coded(DATA), 1000
    with pytest.raises(TransportError):
        device.fetch()
    device.start()
    device.server.cut, device.server.forms = None, later
    assert device.fetched()


@pytest.mark.parametrize("later", [None, OLD + b"another"], ids=["gone", "another"])
def test_a_patch_whose_base_is_there_no_more_begins_anew(device, later):
    device.holds(OLD)
    device.server.forms[DCZ], device.server.cut = coded(DATA, OLD), 60
    with pytest.raises(TransportError):
        device.fetch()
    device.start()
    device.server.cut, device.held = None, None
    if later is not None:
        device.server.forms = {}
        device.holds(later)
    assert device.fetched()
    assert device.server.asked[-1].get("range") is None


def test_a_stored_blob_that_can_not_be_read_is_no_base(device):
    device.holds(OLD)
    device.server.forms[DCZ] = coded(DATA, OLD)
    device.store.path(sha256_digest(OLD)).unlink()
    assert device.fetched()


def test_a_whole_form_is_decoded_after_a_restart_without_a_request(device):
    device.server.forms[ZSTD] = coded(DATA)
    calls = iter([False, True])
    with pytest.raises(CancelledError):
        device.fetch(cancelled=lambda: next(calls))
    assert device.part.with_suffix(".coded").stat().st_size == len(coded(DATA))
    device.start()
    device.server.status = 503
    assert device.fetched()


def test_what_was_begun_as_it_is_goes_on_as_it_is(device):
    device.server.cut = 1000
    with pytest.raises(TransportError):
        device.fetch()
    device.server.cut, device.server.forms = None, {ZSTD: coded(DATA)}
    device.start()
    assert device.fetched()
    assert device.server.ranges_asked() == [None, "bytes=1000-"]


def test_memory_disk_and_size_bound_what_is_asked_for(device, monkeypatch):
    device.holds(OLD)
    device.start(patch_bytes=len(OLD) + len(DATA) - 1)
    device.fetch()
    assert device.server.asked[-1]["accept-encoding"] == "zstd"
    device.store.discard_part(BLOB.digest)
    usage = type("Usage", (), {"free": 2 * len(DATA)})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    device.fetch()
    assert device.server.asked[-1]["accept-encoding"] == "identity"


def test_forms_come_from_mirrors_and_a_coding_nobody_asked_for_from_nowhere(device):
    mirror = device.mirror(forms={ZSTD: coded(DATA)})
    assert device.fetched()
    assert (len(mirror.asked), device.server.asked) == (1, [])
    mirror = device.mirror(always={"Content-Encoding": "gzip"})
    device.fetch()
    assert (len(mirror.asked), len(device.server.asked)) == (1, 1)
