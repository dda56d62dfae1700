"""The composition root: from a state folder and settings to the parts of an agent, connected.

The only place where adapters are chosen. Everything can be replaced by an `Overrides`, which is how tests and the demo
run many agents, or unreliable ones, in one process.
"""

from __future__ import annotations

import os
import platform
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.download import OciFetcher
from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.http_link import FallbackLink, HttpLink
from shoal_agent.adapters.identity import Identity, IdentityFolder
from shoal_agent.adapters.label_book import open_label_book
from shoal_agent.adapters.mqtt_dialect import Dialect
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.adapters.preflight import ChildPreflight
from shoal_agent.adapters.rotation import Rotation
from shoal_agent.adapters.sources import Sources
from shoal_agent.adapters.spare_spool import open_spool
from shoal_agent.adapters.state_file import StateFile as FolderStateFile
from shoal_agent.adapters.transfer import Pace, Transfers
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.fit import DeviceFacts, needed_blobs
from shoal_agent.domain.occasion import HookKind
from shoal_agent.domain.reference_time import plausible, reference_ms
from shoal_agent.domain.trial import TrialRules
from shoal_agent.machine import batching_of, installed_version, known_facts, week_instant
from shoal_agent.ports import BlobStore, Cancelled, Clock, Hooks, LabelBook, Link, Parcel, Preflight, Spool, StateFile
from shoal_agent.settings import Settings
from shoal_agent.status import live_status, save_snapshot
from shoal_agent.updating.assignments import AssignmentIntake
from shoal_agent.updating.callouts import Callouts, NoHooks
from shoal_agent.updating.counting import SEEN_EVENT, Counting
from shoal_agent.updating.desk import Desk
from shoal_agent.updating.leave import Leave, LeaveRules
from shoal_agent.updating.list_watch import ListWatch
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.model_host import ModelHost, engines
from shoal_agent.updating.pulse import Pulse
from shoal_agent.updating.sampling import Sampling, SamplingClocks
from shoal_agent.updating.surroundings import Rhythm, Surroundings
from shoal_agent.updating.transaction import Transactions
from shoal_agent.updating.updater import Inbox, Updater
from shoal_agent.updating.uplink import Situation, Uplink, WindowSpool
from shoal_agent.updating.work import Parts, Work
from shoal_protocol.errors import LocalError, TrustError
from shoal_protocol.maintenance import Instant, parse_windows
from shoal_protocol.mqtt.topics import Up

if TYPE_CHECKING:
    from shoal_agent.adapters.tls import CertificateTime
    from shoal_agent.runtime.feedback import Feedback
    from shoal_agent.runtime.learner import Learner
    from shoal_agent.runtime.model import LoadedModel
    from shoal_agent.runtime.sampler import Sampler
    from shoal_agent.runtime.slots import SlotTable
    from shoal_agent.updating.courier import Courier


_UPDATING_PATIENCE_S = 1800.0
"""Loading a large model on a small device beats no pulse meanwhile."""

_TELLING_PATIENCE_S = 300.0
_MOST_PATCH_BYTES = 256 << 20

_LEARNING_WINDOWS = 3
"""For so many windows the first rows of a model without data are looked at."""


@dataclass(frozen=True)
class Overrides:
    """What an embedding program or a test puts in the place of the real thing.

    Attributes:
        clock: Seconds UTC.
        monotonic: Seconds for durations.
        chance: Uniform draws from [0, 1).
        preflight_turns: Shared by the agents of one process, so that they don't all start self-tests at once.
        link: Makes the link, from the identity.
        state_file: Wraps the state file.
        store: Wraps the blob store.
        preflight: Instead of a child process.
    """

    clock: Clock = time.time
    monotonic: Clock = time.monotonic
    chance: Callable[[], float] = random.random
    preflight_turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    link: Callable[[Identity], Link | None] | None = None
    state_file: Callable[[StateFile], StateFile] = lambda real: real
    store: Callable[[BlobStore], BlobStore] = lambda real: real
    preflight: Preflight | None = None


class Assembly(msgspec.Struct, frozen=True):
    """The parts of one agent, connected but not started."""

    identity: Identity
    slots: SlotTable
    spool: Spool
    labels: LabelBook
    feedback: Feedback
    windows: WindowSpool
    trust: TrustStore
    http: HttpClient
    inbox: Inbox
    transactions: Transactions
    updater: Updater
    uplink: Uplink
    sampling: Sampling
    rotation: Rotation
    credentials: Credentials
    counting: Counting
    engines: Callable[[], Mapping[str, Any]]
    pulses: tuple[Pulse, ...] = ()


class _Relay:
    """Calls between parts of which one is made before the other; what is not connected yet is not called."""

    def __init__(self) -> None:
        self._targets: dict[str, Callable[[], None]] = {}

    def connect(self, **targets: Callable[[], None]) -> None:
        self._targets.update(targets)

    def call(self, name: str) -> None:
        target = self._targets.get(name)
        if target is not None:
            target()


class _Base(msgspec.Struct, frozen=True):
    """What most parts need."""

    state: Path
    settings: Settings
    overrides: Overrides
    identity: Identity
    credentials: Credentials
    ca_file: Path | None
    certificate_time: CertificateTime
    spool: Spool
    labels: LabelBook
    feedback: Feedback
    messages: Messages
    trust: TrustStore
    http: HttpClient
    slots: SlotTable
    inbox: Inbox
    facts: DeviceFacts
    store: BlobStore
    relay: _Relay


# Long because it names every part once, line by line.
def assemble(state: Path, settings: Settings, overrides: Overrides) -> Assembly:
    """Connect the parts of an agent whose device has joined.

    Args:
        state: The state folder.
        settings: Of the agent.
        overrides: Replacements.

    Raises:
        NotEnrolledError: The folder belongs to no device yet.
        LocalError: The folder can't be used.
    """
    base = _base(state, settings, overrides)
    desk = Desk(state / "requests", show=partial(base.relay.call, "show"), monotonic=overrides.monotonic)
    updating = Pulse("updating", patience_s=_UPDATING_PATIENCE_S, monotonic=overrides.monotonic)
    telling = Pulse("telling the server", patience_s=_TELLING_PATIENCE_S, monotonic=overrides.monotonic)

    def cancelled() -> bool:  # asked between all parts of long steps, so it is a sign of life too
        updating.beat()
        return base.inbox.has_news() or desk.has_requests()

    hooks = _hooks(settings, beat=updating.beat)
    transactions = _transactions(base, hooks=hooks, cancelled=cancelled)
    windows = WindowSpool(base.spool, base.messages, stored=partial(base.relay.call, "stored"), labels=base.labels)
    uplink = _uplink(base, transactions, windows, beat=telling.beat)
    rotation = _rotation(base)
    updater = _updater(base, transactions, uplink, desk=desk, beat=updating.beat, rotate=rotation.wish)
    assembly = Assembly(
        identity=base.identity,
        slots=base.slots,
        spool=base.spool,
        labels=base.labels,
        feedback=base.feedback,
        windows=windows,
        trust=base.trust,
        http=base.http,
        inbox=base.inbox,
        transactions=transactions,
        updater=updater,
        uplink=uplink,
        sampling=_sampling(base, transactions),
        rotation=rotation,
        credentials=base.credentials,
        counting=_counting(base, transactions),
        engines=partial(engines, base.slots),
        pulses=(updating, telling),
    )
    base.relay.connect(
        changed=partial(_each, uplink.changed, assembly.sampling.look, assembly.counting.look),
        stored=uplink.nudge,
        show=lambda: save_snapshot(state, live_status(assembly, settings)),
    )
    return assembly


def _base(state: Path, settings: Settings, overrides: Overrides) -> _Base:
    from shoal_agent.runtime.feedback import Feedback  # noqa: PLC0415 - numpy comes with it
    from shoal_agent.runtime.slots import SlotTable  # noqa: PLC0415 - likewise

    folder = IdentityFolder(state / "identity")
    identity = folder.load()
    credentials = Credentials(folder, identity)
    spool = open_spool(
        state / "spool.db",
        budget_bytes=settings.spool_bytes,
        new_epoch=lambda: secrets.token_hex(8),
        clock=overrides.clock,
        chance=overrides.chance,
    )
    labels = open_label_book(state / "labels.db")
    labels.settle(lambda seq: bool(spool.read([seq])))
    ca_file = folder.ca_file

    def certificate_time() -> float | None:
        return trust.certificate_time(pinned=ca_file is not None)

    http = HttpClient(identity.url, login=credentials, ca_file=ca_file, certificate_time=certificate_time)
    facts = known_facts(settings)
    trust = TrustStore(state / "trust", http=http, root_digest=identity.root_digest, clock=overrides.clock)
    return _Base(
        state=state,
        settings=settings,
        overrides=overrides,
        identity=identity,
        credentials=credentials,
        ca_file=ca_file,
        certificate_time=certificate_time,
        spool=spool,
        labels=labels,
        feedback=Feedback(
            labels, window_s=settings.window_s, max_age_s=86_400 * settings.feedback_days, wall=overrides.clock
        ),
        messages=Messages(
            epoch=spool.epoch,
            boot=spool.boot,
            clock=overrides.clock,
            first=spool.first,
            run=secrets.token_hex(8),
        ),
        trust=trust,
        http=http,
        slots=SlotTable(),
        inbox=Inbox(),
        facts=facts,
        store=overrides.store(FolderBlobStore(state, needed=partial(needed_blobs, facts=facts))),
        relay=_Relay(),
    )


def _updater(
    base: _Base,
    transactions: Transactions,
    uplink: Uplink,
    *,
    desk: Desk,
    beat: Callable[[], None],
    rotate: Callable[[int], None],
) -> Updater:
    settings, monotonic = base.settings, base.overrides.monotonic
    return Updater(
        transactions,
        intake=lambda: AssignmentIntake(base.identity.device, base.trust),
        inbox=base.inbox,
        spool=base.spool,
        messages=base.messages,
        desk=desk,
        tick_s=min(max(settings.trial_seconds / 20, 0.2), 5.0),
        monotonic=monotonic,
        watch=ListWatch(base.trust, monotonic=monotonic, every_s=settings.trust_refresh_s),
        by_hand=partial(_courier, base, uplink),
        beat=beat,
        rotate=rotate,
    )


def _courier(base: _Base, uplink: Uplink) -> Courier:
    from shoal_agent.updating.courier import Courier  # noqa: PLC0415 - few devices get anything by hand
    from shoal_agent.updating.delivery import Delivery  # noqa: PLC0415 - likewise
    from shoal_agent.updating.mail import Mail  # noqa: PLC0415 - likewise

    def open_parcel(path: Path) -> AbstractContextManager[Parcel]:
        from shoal_agent.adapters.parcel_file import ParcelFile  # noqa: PLC0415 - few devices get parcels

        return ParcelFile(path)

    def sign(message: bytes) -> str:
        from shoal_agent.adapters.device_key import signature  # noqa: PLC0415 - likewise

        key = IdentityFolder(base.state / "identity").key()
        if key is None:
            raise LocalError("this device has no key of its own", hint="let it join again")
        return signature(key, message)

    mail = Mail(base.identity.device, base.spool, standing=uplink.standing, sign=sign, now_ms=base.messages.now_ms)
    return Courier(base.identity.device, Delivery(base.trust, base.store, base.facts), mail, open_parcel=open_parcel)


def _hooks(settings: Settings, *, beat: Callable[[], None]) -> Hooks:
    programs = {
        HookKind.VETO: settings.hooks_veto,
        HookKind.ON_ACTIVATE: settings.hooks_on_activate,
        HookKind.ON_ROLLBACK: settings.hooks_on_rollback,
    }
    given = {kind: Path(program) for kind, program in programs.items() if program}
    if not given:
        return NoHooks()
    from shoal_agent.adapters.hooks import ChildHooks  # noqa: PLC0415 - few devices have hooks

    return ChildHooks(given, timeout_s=settings.hooks_timeout_s, beat=beat)


def _leave(base: _Base, hooks: Hooks) -> Leave:
    settings, clock, trust = base.settings, base.overrides.clock, base.trust
    lock_file = settings.activation_lock_file

    def floor_ms() -> int:
        try:
            return trust.floors().time_ms
        except (TrustError, OSError):  # said by whoever needs the floors for what they are
            return 0

    def instant() -> Instant | None:
        now = clock()
        return week_instant(now) if plausible(int(now * 1000), floor_ms()) else None

    rules = LeaveRules(
        download=parse_windows(settings.download_windows),
        activation=parse_windows(settings.activation_windows),
        locked=lambda: lock_file if lock_file and os.path.lexists(lock_file) else "",
        veto_retry_s=settings.hooks_retry_s,
    )
    return Leave(
        base.identity.device,
        rules,
        holds=HoldFile(base.state),
        hooks=hooks,
        now_ms=lambda: reference_ms(int(clock() * 1000), floor_ms()),
        instant=instant,
    )


def _transactions(base: _Base, *, hooks: Hooks, cancelled: Cancelled) -> Transactions:
    settings, overrides, leave = base.settings, base.overrides, _leave(base, hooks)
    store = base.store
    preflight = ChildPreflight(base.state, turns=overrides.preflight_turns, clock=overrides.monotonic)
    parts = Parts(
        store=store,
        fetcher=_fetcher(base),
        trust=base.trust,
        preflight=overrides.preflight or preflight,
        facts=base.facts,
        may_download=leave.to_download,
    )
    around = Surroundings(
        state_file=overrides.state_file(FolderStateFile(base.state)),
        store=store,
        host=ModelHost(
            store,
            base.slots,
            facts=base.facts,
            threads=settings.threads,
            feedback=base.feedback,
            shadow_share=settings.shadow_share,
            batching=batching_of(settings),
            holds_one=settings.activation_mode == "stop-then-load",
        ),
        work=Work(parts, preflight_s=settings.preflight_seconds, threads=settings.threads or 1),
        spool=base.spool,
        messages=base.messages,
        leave=leave,
        callouts=Callouts(base.identity.device, hooks, spool=base.spool, messages=base.messages),
    )
    rhythm = Rhythm(
        clock=overrides.clock,
        monotonic=overrides.monotonic,
        chance=overrides.chance,
        backoff=Backoff(base_s=1.0, cap_s=settings.retry_max_s),
        rules=TrialRules(
            predictions=settings.trial_predictions,
            seconds=settings.trial_seconds,
            max_error_rate=settings.trial_max_error_rate,
        ),
    )
    changed = partial(base.relay.call, "changed")
    return Transactions(around, rhythm=rhythm, cancelled=cancelled, changed=changed)


def _fetcher(base: _Base) -> OciFetcher:
    settings, monotonic = base.settings, base.overrides.monotonic

    def connect(url: str) -> HttpClient:
        return HttpClient(url, ca_file=base.ca_file, certificate_time=base.certificate_time, system_too=True)

    patch_bytes = settings.download_patch_bytes
    if patch_bytes is None:
        patch_bytes = min(base.facts.memory_bytes // 8, _MOST_PATCH_BYTES)
    pace = Pace(max_bytes_per_s=settings.download_max_bytes_per_s)
    return OciFetcher(
        Sources(base.http, settings.download_mirrors, connect=connect, clock=monotonic),
        Transfers(pace, clock=monotonic, pause=time.sleep),
        patch_bytes=patch_bytes,
    )


def _uplink(base: _Base, transactions: Transactions, sink: WindowSpool, *, beat: Callable[[], None]) -> Uplink:
    from shoal_agent.runtime.windows import Clocks, WindowClock  # noqa: PLC0415 - numpy comes with it

    overrides = base.overrides
    clocks = Clocks(wall=overrides.clock, monotonic=overrides.monotonic)
    situation = Situation(
        facts=lambda: birth_facts(
            base.identity,
            base.facts,
            base.settings,
            slots=tuple(transactions.state.slots),
            targets_version=base.trust.targets_version(),
        ),
        state=lambda: transactions.state,
        progress=transactions.progress,
        variants=transactions.variants,
        shadows=transactions.shadows,
        revoked=lambda: transactions.revoked,
        troubles=lambda: transactions.troubles,
        hold=lambda: transactions.hold,
    )
    return Uplink(
        overrides.link(base.identity) if overrides.link else _link(base),
        spool=base.spool,
        messages=base.messages,
        situation=situation,
        windows=WindowClock(
            base.slots,
            sink,
            window_s=base.settings.window_s,
            clocks=clocks,
            labels_wait=lambda: base.labels.waiting > 0,
        ),
        monotonic=overrides.monotonic,
        resend_s=base.settings.resend_s,
        beat=beat,
    )


def _sampling(base: _Base, transactions: Transactions) -> Sampling:
    overrides, trust = base.overrides, base.trust

    def sample(model: LoadedModel, share: float) -> Sampler:
        from shoal_agent.runtime.sampler import Budget, Sampler  # noqa: PLC0415 - few devices sample

        return Sampler(model, share=share, clock=overrides.clock, budget=Budget())

    clocks = SamplingClocks(trust.now_ms, overrides.monotonic, base.settings.window_s)
    sender = _http(base)
    return Sampling(
        state=lambda: transactions.state, active=base.slots.get, sample=sample, sender=sender, clocks=clocks
    )


def _rotation(base: _Base) -> Rotation:
    backoff = Backoff(base_s=1.0, cap_s=base.settings.reconnect_max_s)
    return Rotation(base.credentials, _http(base), backoff=backoff, chance=base.overrides.chance)


def _counting(base: _Base, transactions: Transactions) -> Counting:
    overrides, spool, messages = base.overrides, base.spool, base.messages

    def learner(model: LoadedModel) -> Learner:
        from shoal_agent.runtime.learner import Learner  # noqa: PLC0415 - few bundles come without data

        return Learner(model, seconds=_LEARNING_WINDOWS * base.settings.window_s, monotonic=overrides.monotonic)

    def tell(slot: str, digest: str, data: Mapping[str, Any]) -> None:
        spool.append(Up.EVENT, messages.event(SEEN_EVENT, slot=slot, digest=digest, data=data))
        base.relay.call("stored")

    return Counting(
        base.state / "counting",
        state=lambda: transactions.state,
        slots=base.slots,
        source=_http(base),
        learner=learner,
        tell=tell,
        monotonic=overrides.monotonic,
    )


def _each(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()


def birth_facts(
    identity: Identity, facts: DeviceFacts, settings: Settings, *, slots: tuple[str, ...], targets_version: int
) -> dict[str, Any]:
    """Return the fields of the birth message."""
    return {
        "agent_version": installed_version("shoal-agent"),
        "arch": facts.platform.partition("/")[2],
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": facts.onnxruntime,
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": facts.memory_bytes,
        "providers": facts.providers,
        "labels": identity.labels,
        "slots": slots,
        "window_s": settings.window_s,
        "targets_version": targets_version,
    }


def _http(base: _Base) -> HttpClient:
    """Return a client with a pool of its own, so that nothing waits for what another does."""
    return HttpClient(
        base.identity.url, login=base.credentials, ca_file=base.ca_file, certificate_time=base.certificate_time
    )


def _link(base: _Base) -> Link:
    identity, chance = base.identity, base.overrides.chance
    backoff = Backoff(base_s=0.5, cap_s=base.settings.reconnect_max_s)
    polling = _http(base)
    poll_s = base.settings.poll_s or identity.poll_s
    if identity.mqtt_url is None:
        return HttpLink(
            polling, poll_s=poll_s, first_s=min(poll_s, 1.0), wanted=lambda: True, backoff=backoff, chance=chance
        )
    mqtt = MqttLink(
        identity.mqtt_url,
        device=identity.device,
        secret=base.credentials.broker_secret,
        ca_file=Path(base.settings.tls_broker_ca) if base.settings.tls_broker_ca else base.ca_file,
        certificate_time=base.certificate_time,
        client=base.settings.client_certificate,
        dialect=Dialect(
            base.state / "broker.json",
            broker=identity.mqtt_url,
            agent=installed_version("shoal-agent"),
            clock=base.overrides.clock,
        ),
        keepalive_s=base.settings.keepalive_s,
        backoff=backoff,
        chance=chance,
    )
    by_http = HttpLink(
        polling,
        poll_s=poll_s,
        first_s=10.0,
        wanted=lambda: not mqtt.connected or mqtt.is_too_narrow,
        backoff=backoff,
        chance=chance,
    )
    return FallbackLink(mqtt, by_http)
