"""The parts that rooms share: blobs, TLS, the line to the devices, trust, ingest; and who takes in what devices say.

A lower room gets what it needs from a higher one here, as a function.
"""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prometheus_client import CollectorRegistry
from sqlmodel import Session

from shoal_protocol.errors import ShoalError
from shoal_protocol.mqtt.messages import Event
from shoal_protocol.mqtt.topics import Up
from shoal_server.device_notices import on_clone, on_event
from shoal_server.drift.learning import FIRST_ROWS, References, on_first_rows
from shoal_server.errors import StartError
from shoal_server.fleet import (
    intake,
)
from shoal_server.fleet import store as fleet_store
from shoal_server.fleet.assignments import may_run, sign_all_again
from shoal_server.fleet.needs import assigned_digests, device_needs
from shoal_server.link.addresses import is_unspecified, own_names
from shoal_server.link.broker import DEFAULT_PORTS, BrokerLink
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.mosquitto import MosquittoCredentials
from shoal_server.link.port import DeviceLink
from shoal_server.link.server_tls import FileTls, LanTls, ServerTls
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.needs import Needs, joined
from shoal_server.registry.store import alias_needs
from shoal_server.registry.trust import TrustService
from shoal_server.rollouts.needs import offered_digests, rollout_needs
from shoal_server.services import Services
from shoal_server.signals import Signals
from shoal_server.storage.blobs import BlobStore, FolderBlobs
from shoal_server.storage.bucket import BucketBlobs
from shoal_server.storage.database import Clock, Database
from shoal_server.storage.registry_blobs import RegistryBlobs
from shoal_server.storage.registry_connection import RegistryConnection
from shoal_server.storage.registry_place import parse_place
from shoal_server.storage.settings import EMBEDDED, Settings, split_address
from shoal_server.telemetry.batch import Handler
from shoal_server.telemetry.ingest import Ingest
from shoal_server.webhooks.sender import Sender
from shoal_server.webhooks.targets import parse_allowed

HANDLERS: Mapping[Up, Handler] = {
    Up.PRESENCE: intake.on_presence,
    Up.BIRTH: intake.on_birth,
    Up.REPORTED: intake.on_reported,
    Up.EVENT: on_event,
}
"""Who takes in what devices say, besides windows."""


def handlers_of(bundles: Bundles) -> dict[Up, Handler]:
    """Return who takes in what devices say, with what needs to know of bundles."""

    def on_any_event(session: Session, device: str, event: Event, now: float) -> None:
        if event.kind == FIRST_ROWS:
            on_first_rows(session, device, event, now, own=bundles.reference)
        else:
            on_event(session, device, event, now)

    return {**HANDLERS, Up.EVENT: on_any_event}


def build_tls(settings: Settings, clock: Clock) -> ServerTls | None:
    """Make what speaks TLS; None where a proxy does, or nobody.

    Raises:
        StartError: certificate or key can't be used.
    """
    if settings.tls_cert is not None and settings.tls_key is not None:
        return FileTls(settings.tls_cert, settings.tls_key, ca_file=settings.tls_ca)
    if not settings.lan:
        return None
    told = {*settings.tls_names, urlsplit(settings.public_url or "").hostname or ""} - {""}
    if not is_unspecified(settings.host):
        told.add(settings.host)
    name = f"Shoal at {socket.gethostname()}"
    return LanTls(settings.data / "tls", names=lambda: told | own_names(), authority_name=name, clock=clock)


def build_services(
    settings: Settings, database: Database, clock: Clock, *, url: str, tls: ServerTls | None = None
) -> Services:
    """Make the parts that rooms share."""
    blobs = open_blobs(settings)
    bundles = Bundles(blobs)
    signals = Signals()
    link = build_link(settings, clock, tls=tls)
    return Services(
        settings=settings,
        database=database,
        blobs=blobs,
        bundles=bundles,
        clock=clock,
        signals=signals,
        url=settings.public_url or url,
        ca_pem=None if tls is None or tls.ca_file is None else tls.ca_file.read_bytes(),
        metrics=CollectorRegistry(),
        trust=TrustService(database, keys_folder=settings.data / "keys", clock=clock),
        link=link,
        ingest=Ingest(link, database, handlers_of(bundles), clock, on_clone=on_clone, signals=signals, meant=may_run),
        webhooks=Sender(allowed=parse_allowed(settings.webhook_allow), clock=clock, ca=settings.webhook_ca),
        call_devices=sign_all_again,
        reference=References(database, bundles.reference),
        verify_device=fleet_store.verify_secret,
        needs=registry_needs(),
        may_fetch=lambda session, device: assigned_digests(session, device) | offered_digests(session, device),
    )


def open_blobs(settings: Settings) -> BlobStore:
    """Open the place for blobs: a folder of the server's own, a bucket, or a registry of somebody else's.

    Raises:
        StartError: nothing can be stored there.
    """
    if not settings.blobs:
        return FolderBlobs(settings.data / "blobs")
    elsewhere, hint = _open_elsewhere(settings, settings.data / "uploads")
    try:
        elsewhere.check()
    except OSError as error:
        elsewhere.close()
        advice = error.__cause__.hint if isinstance(error.__cause__, ShoalError) else ""
        raise StartError(str(error), hint=advice or hint) from error
    return elsewhere


def _open_elsewhere(settings: Settings, spool: Path) -> tuple[BlobStore, str]:
    """Return the place that `--blobs` names, and what to look at when nothing can be stored there."""
    if urlsplit(settings.blobs).scheme == "s3":
        return BucketBlobs(settings.blobs, spool), "see AWS_ENDPOINT_URL, AWS_REGION and the keys"
    connection = RegistryConnection(
        parse_place(settings.blobs),
        user=settings.blobs_user,
        password=settings.blobs_password,
        ca=settings.blobs_ca,
    )
    return RegistryBlobs(connection, spool), "see --blobs, --blobs-ca, SHOAL_BLOBS_USER and SHOAL_BLOBS_PASSWORD"


def build_link(settings: Settings, clock: Clock, *, tls: ServerTls | None = None) -> DeviceLink:
    """Make the line to the devices: our own endpoint, or somebody's broker."""
    if settings.broker == EMBEDDED:
        host, port = split_address(settings.mqtt_listen)
        return EmbeddedLink(host, port, clock=clock, ssl_context=None if tls is None else tls.context)
    credentials, parts, context = None, urlsplit(settings.broker), _broker_context(settings)
    if settings.broker_credentials_dir is not None:
        address = (parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
        server = (unquote(parts.username or "server"), unquote(parts.password or ""))
        credentials = MosquittoCredentials(
            settings.broker_credentials_dir,
            address=address,
            server=server,
            ssl_context=context,
        )
    return BrokerLink(settings.broker, clock=clock, credentials=credentials, ssl_context=context)


def _broker_context(settings: Settings) -> ssl.SSLContext | None:
    """Make the TLS of the line to an external broker; None where it speaks none."""
    if urlsplit(settings.broker).scheme not in {"mqtts", "wss"}:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.broker_ca)
        if settings.broker_cert is not None:
            context.load_cert_chain(settings.broker_cert, settings.broker_key)
    except OSError as error:
        raise StartError(f"the certificates for the broker can't be used: {error}") from error
    return context


def registry_needs() -> Needs:
    """Return who needs bundles: every room that can name one."""
    return joined(alias_needs, device_needs, rollout_needs)
