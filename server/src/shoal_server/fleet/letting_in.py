"""Whom the line lets in: the accepted devices, told as one list.

Owns the order in which such lists are told. Leaves who is accepted to `store`, and how a broker learns it to `link`.

Invariant: a list that was read earlier is never told after a newer one, else a device that was just revoked would be
let in again by whoever had read before.
"""

from __future__ import annotations

from shoal_server.fleet import store
from shoal_server.link.port import DeviceLink, LettingIn
from shoal_server.storage.database import Database


def let_in(database: Database, link: DeviceLink, shared: LettingIn) -> None:
    """Let exactly the accepted devices in.

    Args:
        database: With the devices.
        link: The line to them.
        shared: One for all that tell this line; see `Services.letting_in`.

    Raises:
        LinkError: The broker does not take them now; it stays due.
    """
    with shared.order:
        shared.is_due = True
        with database.read() as session:
            known = store.credentials(session)
        link.sync_credentials(known)
        shared.is_due = False
