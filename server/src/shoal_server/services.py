"""What the program is made of, in one value that routes and worker loops are handed.

`bootstrap` fills it. It imports no room (only their types), so that every room may import it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlmodel import Session

from shoal_server.link.port import LettingIn
from shoal_server.signals import Signals
from shoal_server.storage.blobs import BlobStore
from shoal_server.storage.database import Clock, Database
from shoal_server.storage.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from shoal_protocol.profile.reference import Reference
    from shoal_server.link.port import DeviceLink
    from shoal_server.registry.bundles import Bundles
    from shoal_server.registry.needs import Need
    from shoal_server.registry.trust import TrustService
    from shoal_server.telemetry.ingest import Ingest
    from shoal_server.webhooks.sender import Sender


class Absent:
    """Stands for a service that this program, often a test of one room, was not given."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"this program was put together without the service whose {name!r} is wanted here")

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse to be called."""
        raise RuntimeError("this program was put together without the service that is called here")


_ABSENT: Any = Absent()


@dataclass(kw_only=True)
class Services:
    """The parts of one server."""

    settings: Settings
    database: Database
    blobs: BlobStore
    clock: Clock
    signals: Signals
    url: str = ""
    """Where this server is reached, as told to devices; known once the socket is bound."""
    ca_pem: bytes | None = None
    """The certificate authority that devices have to pin; None when their systems know it, or without TLS."""
    metrics: CollectorRegistry = _ABSENT
    bundles: Bundles = _ABSENT
    trust: TrustService = _ABSENT
    link: DeviceLink = _ABSENT
    letting_in: LettingIn = field(default_factory=LettingIn)
    """Shared by all that tell the link whom to let in, so that no older list comes after a newer."""
    ingest: Ingest = _ABSENT
    webhooks: Sender = _ABSENT
    call_devices: Callable[[Session], None] = _ABSENT
    """(session of a write): have every device's assignment signed again, so that each looks at the signed list."""
    reference: Callable[[str], Reference | None] = _ABSENT
    """Bundle digest -> the profile of its training data, None when the bundle has none; see `Bundles.reference`."""
    needs: Callable[[Session], Iterable[Need]] = lambda _session: ()
    """(session) -> who needs which bundle, versions apart; see `registry.needs`."""
    wish_form: Callable[[str, str, str], None] = lambda _repository, _digest, _base: None
    """(repository, blob, base or "") -> nothing; asks for a coded form that a device could have used."""
    settle_rollouts: Callable[[], None] = lambda: None
    """() -> nothing; carries the rollouts on until nothing changes, so that a device within reach has its offers."""
    may_fetch: Callable[[Session, str], Collection[str]] = _ABSENT
    """(session, device id) -> digests of the bundles that this server ever wants on the device."""
    verify_device: Callable[[Session, str, str], bool] = _ABSENT
    """(session, device id, secret) -> whether this is that device, accepted and not revoked."""
