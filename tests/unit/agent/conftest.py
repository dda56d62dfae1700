"""Transactions over fakes: a device without disk, network or models."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.fit import DeviceFacts, needed_blobs
from shoal_agent.domain.slot import Slot, SlotState
from shoal_agent.domain.trial import TrialRules
from shoal_agent.testing import (
    FakeClock,
    FakeFetcher,
    FakeHold,
    FakeHooks,
    FakeHost,
    FakePreflight,
    FakeTrust,
    MemoryBlobStore,
    MemorySpool,
    MemoryStateFile,
)
from shoal_agent.updating.callouts import Callouts
from shoal_agent.updating.leave import Leave, LeaveRules
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.model_host import Seen
from shoal_agent.updating.surroundings import Rhythm, Surroundings
from shoal_agent.updating.transaction import Transactions
from shoal_agent.updating.work import Parts, Work
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.manifest import encode_manifest
from shoal_protocol.bundle.schema import BundleInfo, Runtime, Variant, encode_document
from shoal_protocol.maintenance import Instant
from shoal_protocol.mqtt.messages import parse_message
from shoal_protocol.trust.assignment import Assignment, SlotTarget

FACTS = DeviceFacts(platform="linux/amd64", onnxruntime="1.31.0", memory_bytes=1 << 33)


@dataclass
class Device:
    """One device over fakes; `restart` is what a power cut leaves."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    state_file: MemoryStateFile = field(default_factory=MemoryStateFile)
    trust: FakeTrust = field(default_factory=FakeTrust)
    fetcher: FakeFetcher = field(default_factory=FakeFetcher)
    preflight: FakePreflight = field(default_factory=FakePreflight)
    spool: MemorySpool = field(default_factory=MemorySpool)
    host: FakeHost = field(default_factory=FakeHost)
    hold: FakeHold = field(default_factory=FakeHold)
    hooks: FakeHooks = field(default_factory=FakeHooks)
    leave_rules: LeaveRules = field(default_factory=LeaveRules)
    instant: Instant | None = field(default_factory=lambda: Instant(0, 0))
    news: bool = False
    reports: int = 0
    generation: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryBlobStore(self.folder, needed=partial(needed_blobs, facts=FACTS))
        self.restart()

    def restart(self) -> None:
        """Start anew from what was saved."""
        self.host.answering.clear()
        leave = Leave(
            "d",
            self.leave_rules,
            holds=self.hold,
            hooks=self.hooks,
            now_ms=lambda: int(self.clock() * 1000),
            instant=lambda: self.instant,
        )
        parts = Parts(self.store, self.fetcher, self.trust, self.preflight, FACTS, may_download=leave.to_download)
        messages = Messages(epoch=self.spool.epoch, boot=1, clock=self.clock)
        around = Surroundings(
            self.state_file,
            self.store,
            self.host,
            Work(parts, preflight_s=9.0, threads=1),
            self.spool,
            messages,
            leave,
            Callouts("d", self.hooks, spool=self.spool, messages=messages),
        )
        rules = TrialRules(predictions=10, seconds=60.0)
        rhythm = Rhythm(self.clock, self.clock, lambda: 0.5, Backoff(2.0, 60.0), rules, longest_call_s=600.0)
        self.all = Transactions(around, rhythm=rhythm, cancelled=lambda: self.news, changed=self._reported)
        self.all.boot()

    def bundle(
        self, version: str, *, offered: bool = True, signed: bool = True, variants: tuple[Variant, ...] = (), **runtime
    ) -> str:
        """A bundle that the server offers; returns its digest."""
        forms = {"variants": variants} if variants else {}
        info = BundleInfo(name="q", version=version, task="other", framework="t", runtime=Runtime(**runtime), **forms)
        files = {"bundle.json": encode_document(info), "model/model.onnx": version.encode() * 10}
        files |= {form.path: f"{form.path} {version}".encode() for form in variants}
        raw = encode_manifest(build_manifest(files, config=b"{}"))
        if offered:
            self.fetcher.offer(raw, [*files.values(), b"{}"])
        return self.trust.allow("q", version, raw) if signed else self.fetcher.offer(raw, [])

    def want(self, digest: str | None, *, attempt: int = 0) -> None:
        """Take an assignment over and work."""
        self.generation += 1
        target = SlotTarget(digest=digest, attempt=attempt)
        self.all.take_over(Assignment(device="d", generation=self.generation, slots={"s": target}, issued=0, expires=1))
        self.all.work()

    def install(self, version: str) -> str:
        """Bring a bundle in and through its trial; returns its digest."""
        digest = self.bundle(version)
        self.want(digest)
        self.host.counts["s"] = Seen(predictions=10)
        self.turn()
        assert (self.slot.state, self.slot.proven) == (SlotState.IDLE, digest)
        return digest

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass and work."""
        self.clock.move(seconds)
        self.all.tick()
        self.all.work()

    @property
    def slot(self) -> Slot:
        return self.all.state.slots["s"]

    @property
    def saved(self) -> Slot:
        state = self.state_file.load()
        assert state is not None
        return state.slots["s"]

    def events(self) -> list[str]:
        return [parse_message(item.kind, item.body).kind for item in self.spool.items.values()]

    def _reported(self) -> None:
        self.reports += 1


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)
