"""What most parts of an agent need: identity, spool, trust, store, slots, and the settings that choose among them.

Owns what an embedding program or a test may replace (`Overrides`).
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import Identity, IdentityFolder
from shoal_agent.adapters.label_book import open_label_book
from shoal_agent.adapters.spare_spool import open_spool
from shoal_agent.adapters.succession import finish_succession
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.domain.fit import DeviceFacts, needed_blobs
from shoal_agent.machine import known_facts
from shoal_agent.ports import BlobStore, Clock, LabelBook, Link, Preflight, Spool, StateFile
from shoal_agent.settings import Settings
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.updater import Inbox

if TYPE_CHECKING:
    from shoal_agent.adapters.judge import Judge
    from shoal_agent.adapters.tls import CertificateTime
    from shoal_agent.runtime.feedback import Feedback
    from shoal_agent.runtime.slots import SlotTable


class Overrides(msgspec.Struct, frozen=True):
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
        judge: Makes who judges signatures, from the folder of the signed documents; none: a child process. Many agents
            in one process are better off with `shoal_agent.adapters.judge.InProcessJudge`.
    """

    clock: Clock = time.time
    monotonic: Clock = time.monotonic
    chance: Callable[[], float] = random.random
    preflight_turns: threading.Semaphore = msgspec.field(default_factory=lambda: threading.Semaphore(1))
    link: Callable[[Identity], Link | None] | None = None
    state_file: Callable[[StateFile], StateFile] = lambda real: real
    store: Callable[[BlobStore], BlobStore] = lambda real: real
    preflight: Preflight | None = None
    judge: Callable[[Path], Judge] | None = None


class Relay:
    """Calls between parts of which one is made before the other; what is not connected yet is not called."""

    def __init__(self) -> None:
        self._targets: dict[str, Callable[[], None]] = {}

    def connect(self, **targets: Callable[[], None]) -> None:
        """Say who is called by which name."""
        self._targets.update(targets)

    def call(self, name: str) -> None:
        """Call who was connected."""
        target = self._targets.get(name)
        if target is not None:
            target()


class Base(msgspec.Struct, frozen=True):
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
    relay: Relay


def make_base(state: Path, settings: Settings, overrides: Overrides) -> Base:
    """Open what is in the state folder.

    Raises:
        NotEnrolledError: The folder belongs to no device yet.
        LocalError: The folder can't be used.
    """
    from shoal_agent.runtime.feedback import Feedback  # noqa: PLC0415 - numpy comes with it
    from shoal_agent.runtime.slots import SlotTable  # noqa: PLC0415 - likewise

    finish_succession(state)
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
    ca_file = folder.ca_file

    def certificate_time() -> float | None:
        return trust.certificate_time(pinned=ca_file is not None)

    http = HttpClient(identity.url, login=credentials, ca_file=ca_file, certificate_time=certificate_time)
    facts = known_facts(settings)
    judge, digest = overrides.judge or child_judge, identity.root_digest
    trust = TrustStore(state / "trust", http=http, root_digest=digest, clock=overrides.clock, judge=judge)
    return Base(
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
        relay=Relay(),
    )


def child_judge(folder: Path) -> Judge:
    """Return a judge in child processes; made at the first question."""
    from shoal_agent.adapters.judge_process import ChildJudge  # noqa: PLC0415 - a start asks nothing

    return ChildJudge(folder)


def new_client(base: Base) -> HttpClient:
    """Return a client with a pool of its own, so that nothing waits for what another does."""
    return HttpClient(
        base.identity.url, login=base.credentials, ca_file=base.ca_file, certificate_time=base.certificate_time
    )
