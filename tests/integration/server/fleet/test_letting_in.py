"""Whom the line lets in, when two tell it at once."""

import threading
from collections.abc import Sequence

from shoal_server.fleet import store
from shoal_server.fleet.letting_in import let_in
from shoal_server.link.port import Credential
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
    link, order = SlowLink(), threading.Lock()
    early = threading.Thread(target=let_in, args=(database, link, order))
    early.start()
    assert link.first.wait(10)
    with database.write() as session:
        store.revoke(session, "cam-1")
    let_in(database, link, order)
    early.join()
    assert set(link.credentials) == {"cam-0"}
