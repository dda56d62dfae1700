"""In-memory fakes of the ports; the contract tests hold them and the real adapters to the same promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal_agent.adapters.state_file import decode_state, encode_state
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.occasion import HookKind, Occasion
from shoal_agent.errors import CancelledError, TransportError
from shoal_agent.ports import (
    Cancelled,
    HeldBlob,
    HookOutcome,
    LinkHandlers,
    LinkReport,
    Needed,
    PreflightLimits,
    PreflightOutcome,
)
from shoal_agent.updating.model_host import Seen
from shoal_protocol.bundle.manifest import Descriptor, Manifest, parse_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError, ExpiredError
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.trust.signed_list import SignedList, TargetEntry


@dataclass
class FakeClock:
    """A clock that stands until it is moved; call it for the time."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class MemoryStateFile:
    """A state file without a file; `saves` counts."""

    def __init__(self) -> None:
        self.raw: bytes | None = None
        self.saves = 0
        self.error: OSError | None = None

    def load(self) -> DeviceState | None:
        """Return the last saved state."""
        return None if self.raw is None else decode_state(self.raw)

    def save(self, state: DeviceState) -> None:
        """Save, or raise `error`."""
        if self.error is not None:
            raise self.error
        self.raw = encode_state(state)
        self.saves += 1


class MemoryBlobStore:
    """A blob store in dictionaries; only parts are files."""

    def __init__(self, folder: Path, *, needed: Needed | None = None) -> None:
        self._folder = folder
        self._needed: Needed = needed or (lambda manifest, _read: manifest.blobs())
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.free = 1 << 40

    def part(self, digest: str) -> Path:
        """Return a part's path."""
        return self._folder / f"{digest.removeprefix('sha256:')}.part"

    def has(self, blob: Descriptor) -> bool:
        """Tell whether a blob is there in full length."""
        return len(self.blobs.get(blob.digest, b"")) == blob.size and blob.digest in self.blobs

    def read(self, digest: str) -> bytes:
        """Return a blob."""
        try:
            return self.blobs[digest]
        except KeyError:
            raise FileNotFoundError(digest) from None

    def adopt(self, blob: Descriptor) -> None:
        """Take a part over."""
        data = self.part(blob.digest).read_bytes()
        self.discard_part(blob.digest)
        if len(data) != blob.size or sha256_digest(data) != blob.digest:
            raise DigestMismatchError("the part is not the blob", digest=blob.digest)
        self.blobs[blob.digest] = data

    def discard_part(self, digest: str) -> None:
        """Forget a part."""
        self.part(digest).unlink(missing_ok=True)

    def add_bundle(self, raw: bytes) -> str:
        """Declare a bundle whole."""
        for blob in self._needed(parse_manifest(raw), self.read):
            if not self.has(blob):
                raise DigestMismatchError("a blob is missing", digest=blob.digest)
        digest = sha256_digest(raw)
        self.manifests.pop(digest, None)
        self.manifests[digest] = raw
        return digest

    def manifest(self, digest: str) -> Manifest | None:
        """Return a whole bundle's manifest."""
        raw = self.manifests.get(digest)
        return parse_manifest(raw) if raw is not None and sha256_digest(raw) == digest else None

    def manifest_bytes(self, digest: str) -> bytes:
        """Return its bytes."""
        try:
            return self.manifests[digest]
        except KeyError:
            raise FileNotFoundError(digest) from None

    def bundles(self) -> list[str]:
        """Return whole bundles, the newest first."""
        return list(reversed(self.manifests))

    def intact(self, digest: str) -> bool:
        """Hash everything."""
        try:
            manifest = self.manifest(digest)
        except ContentError:
            return False
        if manifest is None:
            return False
        needed = self._needed(manifest, self.read)
        damaged = [b for b in needed if sha256_digest(self.blobs.get(b.digest, b"")) != b.digest]
        for blob in damaged:
            self.blobs.pop(blob.digest, None)
        return not damaged

    def free_bytes(self) -> int:
        """Return the room that the test gave."""
        return self.free

    def sweep(self, keep: Iterable[str], *, parts: Iterable[str] = ()) -> int:
        """Delete the rest."""
        kept = set(keep)
        gone = [digest for digest in self.manifests if digest not in kept]
        for digest in gone:
            del self.manifests[digest]
        used = {blob.digest for raw in self.manifests.values() for blob in parse_manifest(raw).blobs()}
        loose = [digest for digest in self.blobs if digest not in used]
        for digest in loose:
            del self.blobs[digest]
        names = {digest.removeprefix("sha256:") for digest in parts}
        stale = [path for path in self._folder.glob("*.part") if path.stem not in names]
        for path in stale:
            path.unlink()
        return len(gone) + len(loose) + len(stale)


class FakeLink:
    """A link whose other end is the test."""

    def __init__(self) -> None:
        self.handlers: LinkHandlers | None = None
        self.sent: list[tuple[Up, bytes]] = []
        self.is_up = False
        self.is_full = False
        """Whether it takes no message just now, though it is connected."""

    @property
    def connected(self) -> bool:
        """Whether the test says so."""
        return self.is_up

    def start(self, handlers: LinkHandlers) -> None:
        """Remember whom to call."""
        self.handlers = handlers

    def connect(self) -> None:
        """Let the connection come up."""
        self.is_up = True
        assert self.handlers is not None
        self.handlers.on_connected()

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Keep what was sent."""
        takes = self.is_up and not self.is_full
        if takes:
            self.sent.append((kind, payload))
        return takes

    def tend(self) -> None:
        """Nothing works in the background."""

    def report(self) -> LinkReport:
        """Say what the test says."""
        return LinkReport(protocol="MQTT 5" if self.is_up else "")

    def stop(self) -> None:
        """Go down."""
        self.is_up = False


@dataclass
class FakeTrust:
    """Trust as the test dictates it."""

    releases: dict[str, TargetEntry] = field(default_factory=dict)
    deny: frozenset[str] = frozenset()
    online: bool = True
    version: int = 1
    refreshes: int = 0
    expired: bool = False

    def allow(self, model: str, version: str, manifest_raw: bytes, *, platform: str | None = None) -> str:
        """Add a release; return its digest."""
        digest = sha256_digest(manifest_raw)
        counter = len(self.releases) + 1
        self.releases[digest] = TargetEntry(model, version, digest, len(manifest_raw), counter, platform)
        self.version += 1
        return digest

    def refresh(self) -> SignedList:
        """Return the list, or fail as without network."""
        self.refreshes += 1
        if not self.online:
            raise TransportError("no network")
        return self.known()

    def known(self) -> SignedList:
        """Return the list, unless it has expired."""
        if self.expired:
            raise ExpiredError("the signed list has expired")
        return self._list()

    def newest(self) -> SignedList | None:
        """Return the list, expired or not."""
        return self._list()

    def targets_version(self) -> int:
        """Return the version."""
        return self.version

    def _list(self) -> SignedList:
        return SignedList(self.version, dict(self.releases), self.deny)


class FakeFetcher:
    """A registry in dictionaries; `faults` are raised one by one before anything is given."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Exception] = []
        self.fetched: list[str] = []
        self.held: dict[str, str | None] = {}

    def offer(self, manifest_raw: bytes, blobs: Iterable[bytes]) -> str:
        """Put a bundle up; return its digest."""
        digest = sha256_digest(manifest_raw)
        self.manifests[digest] = manifest_raw
        self.blobs.update({sha256_digest(blob): blob for blob in blobs})
        return digest

    def manifest(self, model: str, digest: str, *, size: int) -> bytes:
        """Return a manifest."""
        if self.faults:
            raise self.faults.pop(0)
        if digest not in self.manifests:
            raise TransportError(f"{model}: 404")
        raw = self.manifests[digest]
        if len(raw) != size or sha256_digest(raw) != digest:
            raise DigestMismatchError("the manifest is another one", digest=digest)
        return raw

    def blob(
        self, model: str, blob: Descriptor, part: Path, *, cancelled: Cancelled, held: HeldBlob | None = None,
        came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """Write a part; what could be coded against is noted in `held`."""
        self.held[blob.digest] = None if held is None else held.blob.digest
        if self.faults:
            raise self.faults.pop(0)
        if cancelled():
            raise CancelledError("given up")
        if blob.digest not in self.blobs:
            raise TransportError(f"{model}: 404")
        self.fetched.append(blob.digest)
        came(1.0)
        part.write_bytes(self.blobs[blob.digest][: blob.size])


@dataclass
class FakePreflight:
    """A self-test whose outcomes the test dictates; passes when there is none."""

    outcomes: list[PreflightOutcome] = field(default_factory=list)
    runs: list[tuple[str, PreflightLimits]] = field(default_factory=list)

    def run(self, digest: str, *, limits: PreflightLimits, cancelled: Cancelled) -> PreflightOutcome:
        """Return the next outcome, unless it was given up."""
        if cancelled():
            raise CancelledError("given up")
        self.runs.append((digest, limits))
        return self.outcomes.pop(0) if self.outcomes else PreflightOutcome(passed=True)


@dataclass(frozen=True)
class FakeModel:
    """What `FakeHost` loads."""

    digest: str


class FakeHost:
    """Loads and installs nothing but names.

    Attributes:
        answering: Digest by slot.
        broken: Digests that can't be loaded.
        counts: What the slot's model has done.
        holds_one: Whether the device can't hold two models.
        most: Models that there were at most at a time.
        cut: Digests whose calls were cut off.
        oldest_left_s: For how long a call of a replaced model is under way.
    """

    def __init__(self) -> None:
        self.answering: dict[str, str] = {}
        self.broken: dict[str, Exception] = {}
        self.counts: dict[str, Seen] = {}
        self.holds_one = False
        self.most = 0
        self.cut: list[str] = []
        self.oldest_left_s = 0.0

    def load(self, digest: str) -> Any:
        """Return a model, or raise what the test dictates."""
        self.most = max(self.most, len(self.answering) + 1)
        if digest in self.broken:
            raise self.broken[digest]
        return FakeModel(digest)

    def install(self, slot: str, model: Any) -> None:
        """Let it answer."""
        self.answering[slot] = model.digest
        self.counts[slot] = Seen()

    def remove(self, slot: str) -> None:
        """Let nobody answer."""
        self.answering.pop(slot, None)

    def active(self, slot: str) -> Any:
        """Return the model that answers."""
        return FakeModel(self.answering[slot]) if slot in self.answering else None

    def seen(self, slot: str) -> Seen:
        """Return what the test dictates."""
        return self.counts.get(slot, Seen())

    def running_s(self, slot: str) -> float:
        """Return what the test dictates."""
        return self.seen(slot).running_s

    def cut_off(self, slot: str) -> bool:
        """Take note."""
        self.cut.append(self.answering[slot])
        return True

    def cut_off_replaced(self, longest_s: float) -> float:  # noqa: ARG002 - of the real one
        """Return what the test dictates."""
        return self.oldest_left_s

    def variants(self) -> dict[str, str]:
        """Return one variant for all."""
        return dict.fromkeys(self.answering, "model/model.onnx")


@dataclass
class FakeHooks:
    """Hooks without processes.

    Attributes:
        outcomes: What each kind of hook does from now on; a kind that is missing has no hook.
        occasions: What they were called for.
    """

    outcomes: dict[HookKind, HookOutcome] = field(default_factory=dict)
    occasions: list[Occasion] = field(default_factory=list)

    def has(self, kind: HookKind) -> bool:
        """Tell whether there is one."""
        return kind in self.outcomes

    def run(self, occasion: Occasion) -> HookOutcome:
        """Remember the occasion."""
        self.occasions.append(occasion)
        return self.outcomes[occasion.hook]


@dataclass
class FakeHold:
    """An operator's word without a file."""

    hold: Hold | None = None

    def load(self) -> Hold | None:
        """Return it."""
        return self.hold
