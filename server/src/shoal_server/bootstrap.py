"""The composition root: settings in, a whole server out.

Owns which part is given which other, the order in which parts start and stop, and the list of routes that are open to
everybody. A lower room gets what it needs from a higher one here, as a function. No part keeps state outside of the
server it belongs to, so several servers can run in one process.
"""

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from sqlmodel import Session

from shoal_protocol.mqtt.messages import Event
from shoal_protocol.mqtt.topics import Up
from shoal_server.access import people
from shoal_server.access import routes as access_routes
from shoal_server.access.guard import unguarded
from shoal_server.access.secrets import Passwords
from shoal_server.alerts import routes as alert_routes
from shoal_server.contracts import routes as contract_routes
from shoal_server.contracts.scan import CONTRACTS_S, ContractScan
from shoal_server.contracts.upkeep import CountingUpkeep
from shoal_server.device_notices import on_clone, on_event
from shoal_server.drift import routes as drift_routes
from shoal_server.drift.learning import FIRST_ROWS, LearningScan, References, on_first_rows
from shoal_server.drift.scan import DriftScan
from shoal_server.drift.season import parse_season
from shoal_server.drift.sensitivity import parse_false_alarms
from shoal_server.errors import StartError
from shoal_server.fleet import (
    counting_routes,
    credential_routes,
    credentials,
    device_routes,
    intake,
    parcel_routes,
    sampling_routes,
    shadow_routes,
)
from shoal_server.fleet import routes as fleet_routes
from shoal_server.fleet import store as fleet_store
from shoal_server.fleet.assignments import assigned_slots, may_run, sign_all_again
from shoal_server.fleet.needs import assigned_digests, device_needs
from shoal_server.fleet.publisher import Publisher
from shoal_server.link.addresses import is_unspecified, own_names, reached_at
from shoal_server.link.broker import DEFAULT_PORTS, BrokerLink
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.mosquitto import MosquittoCredentials
from shoal_server.link.port import DeviceLink
from shoal_server.link.server_tls import FileTls, LanTls, ServerTls
from shoal_server.loops import Loop
from shoal_server.quality import routes as quality_routes
from shoal_server.quality.scan import QualityScan
from shoal_server.quality.store import forget_said
from shoal_server.registry import blob_routes, manifest_routes, trust_routes
from shoal_server.registry import routes as model_routes
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.collection import GRACE_S, Collected, Collector
from shoal_server.registry.form_making import FormMaker
from shoal_server.registry.needs import Needs, joined
from shoal_server.registry.store import alias_needs
from shoal_server.registry.trust import TrustService
from shoal_server.rollouts import routes as rollout_routes
from shoal_server.rollouts.evidence import Measurements
from shoal_server.rollouts.needs import offered_digests, rollout_needs
from shoal_server.rollouts.runner import Runner
from shoal_server.runtime_file import DataFolder, Runtime
from shoal_server.services import Services
from shoal_server.signals import Signals
from shoal_server.storage.blobs import BlobStore, FolderBlobs
from shoal_server.storage.bucket import BucketBlobs
from shoal_server.storage.database import Clock, Database
from shoal_server.storage.settings import EMBEDDED, Settings, split_address
from shoal_server.telemetry import routes as telemetry_routes
from shoal_server.telemetry.batch import Handler
from shoal_server.telemetry.ingest import Ingest
from shoal_server.telemetry.labels import forget_labels
from shoal_server.telemetry.samples import SAMPLES_KEPT_S, forget_samples
from shoal_server.telemetry.shadows import SHADOWS_KEPT_S, forget_shadows
from shoal_server.telemetry.store import prune
from shoal_server.web import health, pages, problems
from shoal_server.web.gauges import gauges
from shoal_server.web.http_server import HttpServer, bind, url_of
from shoal_server.web.metrics import ProgramMetrics, RequestMetrics

_log = logging.getLogger(__name__)

PUBLIC: tuple[tuple[str, str], ...] = (
    *health.PUBLIC,
    *pages.PUBLIC,
    ("*", "/static"),  # style sheets and scripts of the dashboard
    ("POST", "/api/v1/login"),  # how a person gets a session
    ("POST", "/api/v1/device/enrol"),  # carries a join token of its own
    *credential_routes.PUBLIC,  # worth nothing to who can't sign it
    ("GET", "/trust/{file}"),  # signed, and no secret
    ("GET", "/trust/ca.pem"),  # a device compares it with the digest in its join token
)
"""Routes that need no credentials; every other one has a guard, or the server doesn't start."""

UPLOAD_KEPT_S = 24 * 3600.0
QUALITY_KEPT_S = 92 * 86_400.0
"""Hours of predictions and labels are kept so long: a quarter of a year."""
"""How long an upload may pause before its part is deleted."""

MAX_BODY_BYTES = 8 * 1024**2
"""Of a request, where its route doesn't say otherwise as uploads do."""

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    access_routes.router,
    device_routes.router,
    credential_routes.router,
    telemetry_routes.router,
    fleet_routes.router,
    parcel_routes.router,
    shadow_routes.router,
    sampling_routes.router,
    counting_routes.router,
    blob_routes.router,
    manifest_routes.router,
    model_routes.router,
    trust_routes.router,
    trust_routes.api,
    rollout_routes.router,
    drift_routes.router,
    quality_routes.router,
    contract_routes.router,
    alert_routes.router,
)


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


class Server:
    """One whole server.

    Args:
        settings: what it was told.
        clock: the wall clock, other in tests.
    """

    def __init__(self, settings: Settings, *, clock: Clock = time.time) -> None:
        settings.check()
        self.settings = settings
        self.first_password: str | None = None
        """The admin's password when this start made it; shown once, kept nowhere."""
        self._clock = clock
        self._folder = DataFolder(settings.data)
        self._undo: list[Callable[[], None]] = []
        self._runtime: Runtime | None = None
        self._services: Services | None = None
        self._http: HttpServer | None = None
        self._tls: ServerTls | None = None

    @property
    def runtime(self) -> Runtime:
        """Where it is reached; only while it runs."""
        assert self._runtime is not None, "the server isn't running"
        return self._runtime

    @property
    def services(self) -> Services:
        """Its parts, for programs that run it inside themselves; only while it runs."""
        assert self._services is not None, "the server isn't running"
        return self._services

    @property
    def alive(self) -> bool:
        """Whether it answers requests."""
        return self._http is not None and self._http.alive

    def start(self) -> None:
        """Start every part; returns when requests are answered and `runtime.json` says where.

        Raises:
            StartError: this machine or these settings don't allow it; nothing is left running.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started, the last first."""
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except Exception:  # noqa: BLE001 - the other parts must still be stopped
                _log.exception("a part did not stop as it should")
        self._runtime = self._http = self._services = None

    def _start(self) -> None:
        self._folder.hold()
        self._undo.append(self._folder.release)
        listener = bind(self.settings.host, self.settings.port)
        self._undo.append(listener.close)
        database = Database(self.settings.database_url)
        self._undo.append(database.close)
        database.upgrade()
        passwords = Passwords()
        tls = self._tls = build_tls(self.settings, self._clock)
        url = url_of(listener, scheme="http" if tls is None else "https")
        program = self._services = build_services(self._settled(), database, self._clock, url=url, tls=tls)
        # After what settings can spoil, since the password is shown by the start that makes it and never again.
        self.first_password = people.ensure_admin(database, passwords, now=self._clock())
        loops = build_loops(program, tls=tls)
        app = build_app(program, loops)
        app.state.passwords = passwords
        with database.write() as session:
            fleet_store.forget_presence(session)
        program.ingest.start()  # with the link, which hands it what devices send
        self._undo.append(program.ingest.stop)
        for loop in loops:
            loop.start()
            self._undo.append(loop.stop)
        self._start_http(app, listener, program)

    def _start_http(self, app: FastAPI, listener: socket.socket, program: Services) -> None:
        self._http = HttpServer(app, listener, tls=None if self._tls is None else self._tls.context)
        self._undo.append(self._http.stop)
        self._undo.append(program.signals.close)  # first of all, so that open event streams end
        self._http.start()
        ca_file = None if self._tls is None else self._tls.ca_file
        broker_url = reached_at(program.link.url, urlsplit(program.url).hostname or "")
        self._runtime = Runtime(program.url, broker_url, os.getpid(), None if ca_file is None else str(ca_file))
        self._folder.write_runtime(self._runtime)
        if self.settings.broker == EMBEDDED:
            self._folder.keep_mqtt_port(urlsplit(program.link.url).port or 0)

    def _settled(self) -> Settings:
        """Return the settings with the MQTT port of the last start, since joined devices know that one."""
        host, port = split_address(self.settings.mqtt_listen)
        kept = self._folder.kept_mqtt_port()
        if port != 0 or not kept:
            return self.settings
        try:
            bind(host, kept).close()
        except StartError:
            _log.warning("MQTT port %d is taken now: devices that joined before reach this server by HTTP only", kept)
            return self.settings
        return replace(self.settings, mqtt_listen=f"{host}:{kept}")


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
    program = Services(
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
        call_devices=sign_all_again,
        reference=References(database, bundles.reference),
        verify_device=fleet_store.verify_secret,
        needs=registry_needs(),
        may_fetch=lambda session, device: assigned_digests(session, device) | offered_digests(session, device),
    )
    program.settle_rollouts = partial(settle_rollouts, program)
    return program


def open_blobs(settings: Settings) -> BlobStore:
    """Open the place for blobs: a folder of the server's own, or a bucket.

    Raises:
        StartError: the bucket can't be written.
    """
    if not settings.blobs:
        return FolderBlobs(settings.data / "blobs")
    bucket = BucketBlobs(settings.blobs, settings.data / "uploads")
    try:
        bucket.check()
    except OSError as error:
        raise StartError(str(error), hint="see AWS_ENDPOINT_URL, AWS_REGION and the keys") from error
    return bucket


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


_SETTLING_TICKS = 20
_QUIET_TICKS = 3
_SETTLING_PAUSE_S = 0.05


def settle_rollouts(program: Services) -> None:
    """Carry all rollouts on, those that are completed and look for newcomers too, until nothing changes."""
    runner = Runner(
        database=program.database,
        measure=Measurements(program.bundles.reference),  # as in `build_loops`
        signals=program.signals,
        clock=program.clock,
        standing_s=0.0,
    )
    quiet = 0
    for _ in range(_SETTLING_TICKS):
        quiet = 0 if runner.tick() else quiet + 1
        if quiet == _QUIET_TICKS:
            return
        time.sleep(_SETTLING_PAUSE_S)  # another runner may be at it just now


def build_loops(program: Services, *, tls: ServerTls | None = None) -> list[Loop]:
    """Make the workers; each could as well run in a process of its own, on the same database and link."""
    settings, pace = program.settings, program.settings.pace
    publisher = Publisher(
        database=program.database,
        link=program.link,
        signer=lambda: program.trust.assignment_signer,
        clock=program.clock,
        letting_in=program.letting_in,
    )
    runner = Runner(
        database=program.database,
        measure=Measurements(program.bundles.reference),  # gates judge by what releases said, not by what was learnt
        signals=program.signals,
        clock=program.clock,
    )
    scan = DriftScan(
        program.database,
        program.reference,
        program.clock,
        false_alarms=parse_false_alarms(settings.false_alarms) if settings.false_alarms else None,
        season=None if settings.season == "auto" else parse_season(settings.season),
        slots=assigned_slots,
        signals=program.signals,
    )
    learning = LearningScan(
        program.database, program.bundles.schema, program.bundles.reference, program.clock, signals=program.signals
    )
    upkeep = CountingUpkeep(program.database, program.clock, signals=program.signals)
    contracts = ContractScan(program.database, program.bundles.schema, program.clock, signals=program.signals)
    quality = QualityScan(program.database, program.reference, program.clock, signals=program.signals)
    collector = Collector(program.database, program.blobs, program.needs)
    loop = partial(Loop, clock=program.clock, signals=program.signals)
    loops = [
        loop("publisher", publisher.tick, every_s=pace.publisher_s, topics=("desired",)),
        loop("controller", runner.tick, every_s=pace.controller_s, topics=("rollouts",)),
        loop("drift", scan.tick, every_s=pace.scan_s),
        loop("quality", quality.tick, every_s=pace.scan_s),
        loop("learning", learning.tick, every_s=pace.scan_s, topics=("events",)),
        loop("counting", upkeep.tick, every_s=pace.scan_s, topics=("counting", "desired")),
        loop("contracts", contracts.tick, every_s=max(pace.scan_s, CONTRACTS_S)),
        loop("housekeeping", lambda: forget_old(program), every_s=pace.housekeeping_s),
        loop("collection", lambda: collector.collect(before=program.clock() - GRACE_S), every_s=pace.collection_s),
        loop("trust", program.trust.refresh, every_s=pace.trust_s),
    ]
    if settings.compress:
        maker = FormMaker(
            program.database, program.blobs, program.bundles, clock=program.clock, signals=program.signals
        )
        program.wish_form = maker.wish
        loops.append(loop("forms", maker.turn, every_s=pace.collection_s, topics=("models", "forms"), niceness=10))
    if settings.credential_days:
        loops.append(loop("credentials", lambda: ask_old_credentials(program), every_s=pace.housekeeping_s))
    if tls is not None:
        loops.append(loop("certificates", tls.refresh, every_s=pace.trust_s))
    return loops


def ask_old_credentials(program: Services) -> None:
    """Have devices get themselves new credentials whose present ones are as old as they may become."""
    now = program.clock()
    with program.database.write() as session:
        asked = credentials.ask_old(session, held_before=now - program.settings.credential_days * 86_400.0, now=now)
    if asked:
        program.signals.bump("desired")


def collect_garbage(settings: Settings, *, grace_s: float, dry_run: bool) -> Collected:
    """Collect the registry's garbage once, from outside of the server, which may be running.

    Args:
        settings: The server's.
        grace_s: What was touched in these last seconds stays.
        dry_run: Whether to only tell what would be done.
    """
    database = Database(settings.database_url)
    try:
        database.upgrade()
        collector = Collector(database, open_blobs(settings), registry_needs())
        before = time.time() - grace_s
        return collector.plan(before=before) if dry_run else collector.collect(before=before)
    finally:
        database.close()


def registry_needs() -> Needs:
    """Return who needs bundles: every room that can name one."""
    return joined(alias_needs, device_needs, rollout_needs)


def forget_old(program: Services) -> None:
    """Delete what is older than is kept: uploads that were given up, and windows, whose hourly sums stay."""
    now = program.clock()
    program.blobs.abandon_uploads(before=now - UPLOAD_KEPT_S)
    with program.database.write() as session:
        prune(session, received_before=now - program.settings.windows_kept_s)
        forget_said(session, before_ms=round(1000 * (now - QUALITY_KEPT_S)))
        forget_labels(session, before_ms=round(1000 * (now - QUALITY_KEPT_S)))
        forget_samples(session, received_before=now - SAMPLES_KEPT_S)
        forget_shadows(session, before_ms=int((now - SHADOWS_KEPT_S) * 1000))


def build_app(program: Services, loops: Sequence[Loop], *, routers: Sequence[APIRouter] = ROUTERS) -> FastAPI:
    """Make the HTTP program.

    Raises:
        RuntimeError: a route has neither a guard nor a place among `PUBLIC`.
    """
    app = FastAPI(title="Shoal", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=MAX_BODY_BYTES)
    app.state.shoal = program
    problems.install(app)
    app.add_middleware(RequestMetrics, registry=program.metrics)
    for router in routers:
        app.include_router(router)
    pages.install(app)
    program.metrics.register(ProgramMetrics(loops=lambda: [loop.health for loop in loops], gauges=gauges(program)))
    open_routes = unguarded(app, public=PUBLIC)
    if open_routes:
        raise RuntimeError(f"these routes have no guard: {', '.join(open_routes)}")
    return app
