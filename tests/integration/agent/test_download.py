"""Downloads against a real HTTP server: resumed, bounded, paced."""

from __future__ import annotations

import pytest

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.download import OciFetcher
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.sources import Sources
from shoal_agent.adapters.transfer import Pace, Transfers
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.testing import FakeClock, SimulatedServer
from shoal_protocol.bundle.manifest import Descriptor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError

DATA = bytes(range(256)) * 400


@pytest.fixture
def place(tmp_path):
    with SimulatedServer() as server:
        server.add_bundle({"README.md": DATA})
        yield Place(server, FolderBlobStore(tmp_path))


class Place:
    def __init__(self, server, store) -> None:
        self.server, self.store = server, store
        self.blob = Descriptor("x", sha256_digest(DATA), len(DATA))
        self.part = store.part(self.blob.digest)
        self.clock = FakeClock()
        self.paused: list[float] = []
        self.fetcher = self.paced(Pace())

    def paced(self, pace: Pace) -> OciFetcher:
        sources = Sources(HttpClient(self.server.url), connect=HttpClient, clock=self.clock)
        return OciFetcher(sources, Transfers(pace, clock=self.clock, pause=self.pause))

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.clock.move(seconds)

    def fetch(self, *, cancelled=lambda: False) -> None:
        self.fetcher.blob("m", self.blob, self.part, cancelled=cancelled)

    def ranges(self) -> list[str | None]:
        return [span for _, path, span in self.server.requests if "/blobs/" in path]


def test_a_whole_blob_comes_in_one_request(place):
    place.fetch()
    place.store.adopt(place.blob)
    assert place.store.read(place.blob.digest) == DATA
    assert place.ranges() == [None]


@pytest.mark.parametrize("sixtyfourth", range(0, 64, 7))
def test_a_download_cut_anywhere_goes_on_from_there(place, sixtyfourth):
    cut = len(DATA) * sixtyfourth // 64
    place.server.faults.cut_after = cut
    with pytest.raises(TransportError):
        place.fetch()
    assert (place.part.stat().st_size if cut else 0) == cut
    place.server.faults.cut_after = None
    place.fetch()
    assert place.part.read_bytes() == DATA
    assert place.ranges() == [None, f"bytes={cut}-" if cut else None]


def test_a_finished_part_needs_no_request(place):
    place.fetch()
    place.fetch()
    assert len(place.ranges()) == 1


def test_a_file_that_was_swapped_meanwhile_begins_anew(place):
    place.server.faults.cut_after = 1000
    with pytest.raises(TransportError):
        place.fetch()
    place.server.faults.cut_after = None
    place.server.faults.swapped[place.blob.digest] = b"z" * len(DATA)
    place.fetch()
    assert place.part.read_bytes() == b"z" * len(DATA)
    with pytest.raises(DigestMismatchError):
        place.store.adopt(place.blob)
    assert not place.part.exists()


def test_a_server_that_ignores_ranges_begins_anew(place):
    place.server.faults.cut_after = 1000
    with pytest.raises(TransportError):
        place.fetch()
    place.server.faults.cut_after, place.server.faults.no_ranges = None, True
    place.fetch()
    assert place.part.read_bytes() == DATA


def test_never_more_bytes_than_signed_are_kept(place):
    place.server.faults.swapped[place.blob.digest] = DATA + b"endless" * 100_000
    with pytest.raises(DigestMismatchError, match="more than"):
        place.fetch()
    assert not place.part.exists()  # its announced length tells


def test_a_part_without_its_validator_or_too_long_begins_anew(place):
    for content in (DATA[:100], DATA + b"x"):
        place.part.write_bytes(content)
        place.part.with_suffix(".note").unlink(missing_ok=True)
        place.fetch()
        assert place.part.read_bytes() == DATA
        place.part.unlink()


def test_giving_up_keeps_what_came(place):
    with pytest.raises(CancelledError):
        place.fetch(cancelled=lambda: True)
    assert 0 < place.part.stat().st_size <= len(DATA)


def test_a_slow_or_endless_transfer_is_broken_off(place):
    def crawl() -> bool:
        place.clock.move(100.0)
        return False

    place.server.faults.cut_after = len(DATA) // 2
    place.fetcher = place.paced(Pace(min_bytes_per_s=1e9, patience_s=60.0))
    with pytest.raises(TransportError, match="bytes/s"):
        place.fetch(cancelled=lambda: crawl() or crawl())
    place.fetcher = place.paced(Pace(min_bytes_per_s=0.0, deadline_s=150.0))
    place.part.unlink()
    with pytest.raises(TransportError, match="longer than"):
        place.fetch(cancelled=lambda: crawl() or crawl())


def test_the_bandwidth_is_capped(place):
    place.fetcher = place.paced(Pace(max_bytes_per_s=len(DATA) / 8))
    place.fetch()
    assert sum(place.paused) == pytest.approx(7.0)  # a second's worth may come at once
    assert max(place.paused) <= 1.0  # so that it can be given up meanwhile


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_refusal_is_the_transports_fault(place, status):
    place.server.faults.status = status
    with pytest.raises(TransportError, match=str(status)):
        place.fetch()
    assert not place.part.exists()


def test_a_manifest_is_checked_against_its_signed_size_and_digest(place):
    digest = place.server.add_bundle({"README.md": DATA})
    raw = place.server.get(f"/v2/m/manifests/{digest}", {})[2]
    assert place.fetcher.manifest("m", digest, size=len(raw)) == raw
    with pytest.raises(DigestMismatchError):
        place.fetcher.manifest("m", digest, size=len(raw) + 1)
    place.server.faults.swapped[digest] = raw + b" "
    with pytest.raises(DigestMismatchError):
        place.fetcher.manifest("m", digest, size=len(raw) + 1)
