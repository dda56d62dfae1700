"""The workers beside the requests, and what they do now and then: each could run in a process of its own."""

import time
from contextlib import closing
from functools import partial

from shoal_server.bootstrap.parts import open_blobs, registry_needs
from shoal_server.contracts.scan import CONTRACTS_S, ContractScan
from shoal_server.contracts.upkeep import CountingUpkeep
from shoal_server.drift.learning import LearningScan
from shoal_server.drift.scan import DriftScan
from shoal_server.drift.season import parse_season
from shoal_server.drift.sensitivity import parse_false_alarms
from shoal_server.fleet import (
    credentials,
)
from shoal_server.fleet.assignments import assigned_slots
from shoal_server.fleet.publisher import Publisher
from shoal_server.link.server_tls import ServerTls
from shoal_server.loops import Loop
from shoal_server.quality.scan import QualityScan
from shoal_server.quality.store import forget_said
from shoal_server.registry.collection import GRACE_S, Collected, Collector
from shoal_server.registry.form_making import FormMaker
from shoal_server.rollouts.evidence import Measurements
from shoal_server.rollouts.runner import Runner
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.storage.settings import Settings
from shoal_server.telemetry.labels import forget_labels
from shoal_server.telemetry.samples import SAMPLES_KEPT_S, forget_samples
from shoal_server.telemetry.shadows import SHADOWS_KEPT_S, forget_shadows
from shoal_server.telemetry.store import prune
from shoal_server.webhooks import queue
from shoal_server.webhooks.courier import Courier, DeliveryMetrics

UPLOAD_KEPT_S = 24 * 3600.0
"""How long an upload may pause before its part is deleted."""

QUALITY_KEPT_S = 92 * 86_400.0
"""Hours of predictions and labels are kept so long: a quarter of a year."""

ANNOUNCING = ("alerts", "devices", "models", "rollouts", "webhooks")
"""Signals after which there may be an event to send."""

_SETTLING_TICKS = 20
_QUIET_TICKS = 3
_SETTLING_PAUSE_S = 0.05


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
        loop("webhooks", courier_of(program).tick, every_s=pace.webhooks_s, topics=ANNOUNCING),
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


def courier_of(program: Services) -> Courier:
    """Make the worker that sends events to webhooks."""
    return Courier(
        database=program.database,
        sender=program.webhooks,
        source=program.url,
        clock=program.clock,
        signals=program.signals,
        metrics=DeliveryMetrics(program.metrics),
    )


def ask_old_credentials(program: Services) -> None:
    """Have devices get themselves new credentials whose present ones are as old as they may become."""
    now = program.clock()
    with program.database.write() as session:
        asked = credentials.ask_old(session, held_before=now - program.settings.credential_days * 86_400.0, now=now)
    if asked:
        program.signals.bump("desired")


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
    with program.database.write() as session:
        queue.prune(session, now=now)


def collect_garbage(settings: Settings, *, grace_s: float, dry_run: bool) -> Collected:
    """Collect the registry's garbage once, from outside of the server, which may be running.

    Args:
        settings: The server's.
        grace_s: What was touched in these last seconds stays.
        dry_run: Whether to only tell what would be done.
    """
    database = Database(settings.database_url)
    try:
        database.reach()
        database.upgrade()
        with closing(open_blobs(settings)) as blobs:
            collector = Collector(database, blobs, registry_needs())
            before = time.time() - grace_s
            return collector.plan(before=before) if dry_run else collector.collect(before=before)
    finally:
        database.close()
