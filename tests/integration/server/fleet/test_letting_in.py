"""Whom the line lets in, when two tell it at once."""

import threading
from collections.abc import Sequence

import pytest
from securesystemslib.signer import CryptoSigner

from shoal_server.fleet import store
from shoal_server.fleet.letting_in import let_in
from shoal_server.fleet.publisher import Publisher
from shoal_server.link.port import Credential, LettingIn, LinkError
from shoal_server.storage.database import Database
from shoal_server.testing.link import FakeLink
from shoal_server.testing.program import FakeClock
from shoal_server.testing.simulated_devices import fleet_of
from shoal_server.testing.stored_fleet import StoredFleet


class SlowLink(FakeLink):
    """A line that takes its first list only after the second, if there can be one meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = threading.Event(), threading.Event()

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        if self.first.is_set():
            super().sync_credentials(credentials)
            self.second.set()
            return
        self.first.set()
        self.second.wait(0.3)
        super().sync_credentials(credentials)


def test_a_list_from_before_a_revocation_does_not_let_the_device_in_again(database: Database) -> None:
    StoredFleet(database, fleet_of(2, active=None), clock=FakeClock())
    link, shared = SlowLink(), LettingIn()
    early = threading.Thread(target=let_in, args=(database, link, shared))
    early.start()
    assert link.first.wait(10)
    with database.write() as session:
        store.revoke(session, "cam-1")
    let_in(database, link, shared)
    early.join()
    assert set(link.credentials) == {"cam-0"}


class DeafLink(FakeLink):
    """A line that takes no list while it is deaf."""

    deaf = False

    def sync_credentials(self, credentials: Sequence[Credential]) -> None:
        if self.deaf:
            raise LinkError("the disk is full")
        super().sync_credentials(credentials)


def test_a_revocation_that_the_line_did_not_take_is_told_again(database: Database) -> None:
    StoredFleet(database, fleet_of(2, active=None), clock=FakeClock())
    link, shared, signer = DeafLink(), LettingIn(), CryptoSigner.generate_ecdsa()
    link.start(lambda _inbound: None)
    publisher = Publisher(database=database, link=link, signer=lambda: signer, clock=FakeClock(), letting_in=shared)
    publisher.tick()
    assert set(link.credentials) == {"cam-0", "cam-1"}
    with database.write() as session:
        store.revoke(session, "cam-1")
    link.deaf = True
    for tell in (lambda: let_in(database, link, shared), publisher.tick):
        with pytest.raises(LinkError):
            tell()
    link.deaf = False
    publisher.tick()
    assert set(link.credentials) == {"cam-0"}
    link.deaf = True
    publisher.tick()  # has nothing to tell any more
