"""The signed list as a real TUF client sees it, over HTTP in process."""

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DeniedError, DigestMismatchError, UnsignedError
from shoal_protocol.trust.signed_list import SignedList
from shoal_protocol.trust.targets import signed_list
from shoal_server.errors import StartError
from shoal_server.registry.trust import LIFETIMES, TrustService
from shoal_server.registry.trust_routes import router
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, fake_services, program_of

MANIFEST = b'{"schemaVersion":2}'


@pytest.fixture
def clock() -> FakeClock:
    import time

    return FakeClock(time.time())  # the TUF client has its own clock, which can't be given


@pytest.fixture
def trust(database: Database, tmp_path: Path, clock: FakeClock) -> TrustService:
    return TrustService(database, keys_folder=tmp_path / "keys", clock=clock)


@pytest.fixture
def client(trust: TrustService, database: Database, tmp_path: Path) -> TestClient:
    return TestClient(program_of(fake_services(database, tmp_path, trust=trust), [router]))


class _Fetcher(FetcherInterface):
    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.asked: list[str] = []

    def _fetch(self, url: str):
        self.asked.append(url.rsplit("/", 1)[1])
        answer = self.client.get(url)
        if answer.status_code != 200:
            raise DownloadHTTPError(answer.text, answer.status_code)
        yield answer.content


def _refresh(client: TestClient, folder: Path) -> tuple[SignedList, list[str]]:
    fetcher = _Fetcher(client)
    root = client.get("/trust/1.root.json").content
    folder.mkdir(exist_ok=True)
    updater = Updater(str(folder), "http://testserver/trust/", fetcher=fetcher, bootstrap=root)
    updater.refresh()
    from tuf.api.metadata import Metadata, Targets

    return signed_list(Metadata[Targets].from_bytes((folder / "targets.json").read_bytes()).signed), fetcher.asked


def _release(trust: TrustService, database: Database, version: str = "1.0", manifest: bytes = MANIFEST) -> None:
    with database.write() as session:
        trust.publish_release(session, model="m", version=version, manifest_raw=manifest, counter=int(version[0]))


def test_a_tuf_client_accepts_what_was_released(trust: TrustService, database, client, tmp_path: Path) -> None:
    _release(trust, database)
    found, _ = _refresh(client, tmp_path / "device")
    entry = found.check(sha256_digest(MANIFEST))
    assert (entry.path, entry.counter, entry.size) == ("m/1.0", 1, len(MANIFEST))
    with pytest.raises(UnsignedError):
        found.check(sha256_digest(b"other"))


def test_a_client_that_has_seen_the_list_follows_its_changes(
    trust: TrustService, database, client, tmp_path: Path
) -> None:
    first, _ = _refresh(client, tmp_path / "device")
    _release(trust, database)
    _release(trust, database, "2.0", b"{}")
    second, _ = _refresh(client, tmp_path / "device")
    assert (first.version, second.version, len(second.entries)) == (1, 3, 2)
    _, asked = _refresh(client, tmp_path / "device")
    assert asked == ["2.root.json", "timestamp.json"]  # unchanged: two requests


def test_the_same_release_again_signs_nothing(trust: TrustService, database) -> None:
    _release(trust, database)
    _release(trust, database)
    assert trust.targets_version == 2


def test_a_version_cannot_be_released_with_two_digests(trust: TrustService, database) -> None:
    _release(trust, database)
    with pytest.raises(DigestMismatchError, match="another digest"):
        _release(trust, database, manifest=b"{}")


def test_denied_digests_are_in_the_signed_list_until_they_are_lifted(
    trust: TrustService, database, client, tmp_path
) -> None:
    _release(trust, database)
    with database.write() as session:
        trust.set_denied(session, sha256_digest(MANIFEST), denied=True)
    with pytest.raises(DeniedError):
        _refresh(client, tmp_path / "device")[0].check(sha256_digest(MANIFEST))
    with database.write() as session:
        trust.set_denied(session, sha256_digest(MANIFEST), denied=False)
    assert _refresh(client, tmp_path / "device")[0].check(sha256_digest(MANIFEST)).version == "1.0"


def test_a_release_that_is_rolled_back_is_not_in_the_list(trust: TrustService, database) -> None:
    def release() -> None:
        with database.write() as session:
            trust.publish_release(session, model="m", version="1.0", manifest_raw=MANIFEST, counter=1)
            raise KeyError

    with pytest.raises(KeyError):
        release()
    assert trust.targets_version == 1


@pytest.mark.parametrize(
    ("role", "renewed"),
    [
        ("timestamp", {"timestamp"}),
        ("snapshot", {"snapshot", "timestamp"}),
        ("targets", {"targets", "snapshot", "timestamp"}),
    ],
)
def test_documents_are_renewed_at_half_their_life(
    trust: TrustService, clock: FakeClock, role: str, renewed: set[str]
) -> None:
    trust.refresh()
    clock.advance((LIFETIMES[role] / 2 - timedelta(seconds=10)).total_seconds())
    trust.refresh()  # whatever lives shorter
    before = trust.expiries()
    assert not trust.refresh()
    clock.advance(20)
    assert trust.refresh()
    after = trust.expiries()
    assert {name for name in after if after[name] != before[name]} == renewed


def test_a_second_service_on_the_same_database_serves_the_same_root(
    trust: TrustService, database, clock, tmp_path
) -> None:
    again = TrustService(database, keys_folder=tmp_path / "keys", clock=clock)
    assert again.pinned_root() == trust.pinned_root() == (1, sha256_digest(trust.metadata("1.root.json")))
    assert again.assignment_signer.public_key.keyid == trust.assignment_signer.public_key.keyid


def test_lost_keys_are_told_and_not_made_anew(trust: TrustService, database, clock, tmp_path) -> None:
    for role in ("targets", "snapshot"):
        (tmp_path / "keys" / f"{role}.pem").unlink()
    with pytest.raises(StartError, match="targets, snapshot"):
        TrustService(database, keys_folder=tmp_path / "keys", clock=clock)


def test_keys_are_readable_by_the_server_only(trust: TrustService, tmp_path: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize(
    "name", ["9.root.json", "../keys/root.pem", "other.json", "targets.json.part", "1.targets.pem"]
)
def test_other_files_are_not_there(client: TestClient, name: str) -> None:
    assert client.get(f"/trust/{name}").status_code == 404
