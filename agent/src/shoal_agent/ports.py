"""What updating needs of the outside world, as small protocols; `shoal_agent.testing` has a fake of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shoal_agent.domain.coarsening import Span
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.occasion import HookKind, Occasion
from shoal_agent.domain.providers import CPU
from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_protocol.bundle.manifest import Descriptor, Manifest
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Down, Up

if TYPE_CHECKING:  # cryptography and tuf stay out of a start
    from securesystemslib.signer import Key

    from shoal_protocol.parcel import About
    from shoal_protocol.profile.labels import ErrorSums, LabelGroup
    from shoal_protocol.trust.targets import SignedList

Clock = Callable[[], float]
"""Seconds: UTC for dates, or since an arbitrary instant for durations (monotonic)."""

Cancelled = Callable[[], bool]
"""Tells whether a long piece of work should be given up."""


class StateFile(Protocol):
    """Where the device's state is kept."""

    def load(self) -> DeviceState | None:
        """Return the newest intact state; none when there never was one.

        Raises:
            DamagedFileError: Nothing intact is left.
        """

    def save(self, state: DeviceState) -> None:
        """Replace the state, at once or not at all.

        Raises:
            OSError: It could not be written; what is saved is the old state, or this one, and never less.
        """


Needed = Callable[[Manifest, Callable[[str], bytes]], tuple[Descriptor, ...]]
"""Takes a manifest and the reader of stored blobs; returns the blobs without which the bundle is not whole here."""


class BlobStore(Protocol):
    """Where bundles are kept, by content.

    A bundle is whole when everything is there that this device needs of it; of several variants that is one.
    """

    def part(self, digest: str) -> Path:
        """Return where a download of a blob is collected."""

    def has(self, blob: Descriptor) -> bool:
        """Tell whether a blob is stored in its full length."""

    def read(self, digest: str) -> bytes:
        """Return a blob's content.

        Raises:
            FileNotFoundError: It is not stored.
        """

    def adopt(self, blob: Descriptor) -> None:
        """Take a finished part into the store.

        Raises:
            DigestMismatchError: It is not the blob; the part is gone.
        """

    def discard_part(self, digest: str) -> None:
        """Forget a download under way."""

    def add_bundle(self, raw: bytes) -> str:
        """Declare a bundle whole by its manifest; return its digest.

        Raises:
            DigestMismatchError: A blob of it is missing.
        """

    def manifest(self, digest: str) -> Manifest | None:
        """Return a whole bundle's manifest, if the bundle is stored."""

    def manifest_bytes(self, digest: str) -> bytes:
        """Return a whole bundle's manifest as it was signed.

        Raises:
            FileNotFoundError: The bundle is not stored.
        """

    def bundles(self) -> list[str]:
        """Return the digests of the whole bundles, the newest first."""

    def intact(self, digest: str) -> bool:
        """Hash every file of a bundle that is needed here and tell whether all match.

        Raises:
            OSError: A file can't be read just now, which says nothing about what is in it.
        """

    def free_bytes(self) -> int:
        """Return the free room, bytes."""

    def sweep(self, keep: Iterable[str], *, parts: Iterable[str] = ()) -> int:
        """Delete all bundles and blobs but those of `keep`, and all parts but `parts`; return how many files."""


class Spooled(msgspec.Struct, frozen=True):
    """One message in the spool."""

    seq: int
    kind: Up
    body: bytes


class SpoolUsage(msgspec.Struct, frozen=True):
    """What waits in the spool.

    Attributes:
        windows: Closed windows that wait.
        size_bytes: Of all messages that wait.
        dropped: Messages ever dropped: for want of room, or because the server can't take them.
        fault: Why the spool does not keep what it should; empty: it does.
    """

    windows: int
    size_bytes: int
    dropped: int
    fault: str = ""


class Shed(msgspec.Struct, frozen=True):
    """What a spool lets go of to keep its budget; the builders of messages get the number of theirs first.

    Attributes:
        merge: Gives the one window that says what several said together.
        tell_merged: Gives the event about numbers that were merged into others, and never sent.
        tell_lost: Gives the event about numbers that were dropped, and the rows that were counted in them.
    """

    tell_lost: Callable[[int, list[int], int], bytes]
    merge: Callable[[int, list[bytes]], bytes] | None = None
    tell_merged: Callable[[int, list[int]], bytes] | None = None


class Spool(Protocol):
    """Where messages wait for the server's acknowledgement."""

    epoch: str
    boot: int
    first: int
    """Number from which this start counts its messages about the device's state."""

    def append(
        self, kind: Up, build: Callable[[int], bytes], *, key: str | None = None, span: Span | None = None
    ) -> int | None:
        """Store the message that `build` makes for its number; once per key. Return the number, if stored.

        A window with a span may be merged with others until it is handed over.
        """

    def has_stored(self, key: str) -> bool:
        """Tell whether a message with this key was ever stored, acknowledged or not; of old keys that is forgotten.

        Raises:
            SpoolError: That can't be told now.
        """

    def hand_over(self, seqs: Sequence[int]) -> None:
        """Remember, before it happens, that these are handed to a transport: they never change any more.

        Raises:
            SpoolError: That can't be stored; don't hand them over.
        """

    def make_room(self, shed: Shed) -> list[int]:
        """Keep the budget: merge windows that were never handed over, then drop the oldest; return what was dropped."""

    def give_up(self, seqs: Iterable[int], tell: Callable[[int, list[int], int], bytes] | None) -> list[int]:
        """Drop these, store the event that `tell` makes of it, if any; return the numbers dropped."""

    def waiting(self, limit: int = 1024) -> list[int]:
        """Return the oldest numbers that wait, ascending."""

    def read(self, seqs: Sequence[int]) -> list[Spooled]:
        """Return messages by number, ascending, without those that are gone."""

    def acknowledge(self, ack: Ack) -> int:
        """Delete what the server has committed; return how many."""

    def usage(self) -> SpoolUsage:
        """Return what waits."""

    def close(self) -> None:
        """Let go of the file."""


class LabelCount(msgspec.Struct, frozen=True):
    """One true label, as it is counted.

    Attributes:
        model: Names the bundle and slot, see `LabelBook.register`.
        mark: Of the labelled row; a mark counts once.
        start_ms, length_ms: Of the window of the prediction.
        truth, said, bin: The cell, as in `shoal_protocol.profile.labels`.
        errors: Of a regression.
    """

    model: bytes
    mark: bytes
    start_ms: int
    length_ms: int
    truth: int
    said: int
    bin: int
    errors: ErrorSums | None = None


class LabelBook(Protocol):
    """Where counts of labels wait for a message that takes them; the fake is the adapter in memory."""

    key: bytes
    """Authenticates this device's prediction ids."""

    @property
    def waiting(self) -> int:
        """Return how many counts no message has taken."""

    def register(self, model: bytes, *, slot: str, digest: str, form: bytes) -> None:
        """Remember a model that prediction ids name, and how its answers are kept in them."""

    def form(self, model: bytes) -> bytes | None:
        """Return how a model's answers are kept in ids, none when it is not known."""

    def count(self, labels: Sequence[LabelCount]) -> int:
        """Count labels, each mark once; return how many were new."""

    def take(self, mark: int) -> tuple[LabelGroup, ...]:
        """Return the oldest counts, marked as taken by one message."""

    def put_back(self, mark: int) -> None:
        """Let what a message took wait again: it was not stored."""

    def delivered(self, mark: int) -> None:
        """Forget what a message took: it is stored."""

    def taken(self) -> tuple[int, ...]:
        """Return the marks of messages of which nobody has said yet whether they were stored."""

    def close(self) -> None:
        """Let go of the file."""


class LinkHandlers(msgspec.Struct, frozen=True):
    """Whom a link calls, on a thread of its own; they only enqueue."""

    on_message: Callable[[Down, bytes], None]
    """Something came from the server."""
    on_connected: Callable[[], None]
    """Messages can be handed over, from the beginning."""
    greeting: Callable[[], tuple[bytes, bytes]]
    """Gives the presence of a new connection, and its last will."""
    farewell: Callable[[], bytes]
    """Gives the presence of an orderly end."""
    on_refused: Callable[[Up, bytes, str], None] = lambda _kind, _payload, _fault: None
    """The server said that it can't take a message, and why."""


class LinkFault(msgspec.Struct, frozen=True):
    """Why a way to the server is not open, or does not carry everything."""

    code: str
    message: str


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is talked to now.

    Attributes:
        protocol: ``MQTT 5``, ``MQTT 3.1.1`` or ``HTTP``; empty: there is no way now.
        fault: What is wrong with the preferred way; none: nothing.
        replaced: Threads that had ended or hung and were replaced, since the start.
    """

    protocol: str = ""
    fault: LinkFault | None = None
    replaced: int = 0


class Link(Protocol):
    """A way to talk to the server."""

    def start(self, handlers: LinkHandlers) -> None:
        """Begin to connect, for ever, in the background."""

    @property
    def connected(self) -> bool:
        """Whether messages can be handed over now."""

    def publish(self, kind: Up, payload: bytes) -> bool:
        """Hand a message to the transport; return whether it took it. That proves nothing about the server."""

    def tend(self) -> None:
        """Look after the background work, which may have ended or hang; called every few seconds."""

    def report(self) -> LinkReport:
        """Return how the server is talked to now."""

    def stop(self) -> None:
        """Say good-bye and end the background work."""


class HeldBlob(msgspec.Struct, frozen=True):
    """A stored blob that is likely to be much like one that is to be fetched.

    Attributes:
        blob: What it is.
        read: Returns its content; raises OSError when it is gone.
    """

    blob: Descriptor
    read: Callable[[], bytes]


class Fetcher(Protocol):
    """Downloads blobs and manifests."""

    def manifest(self, model: str, digest: str, *, size: int) -> bytes:
        """Return a manifest's bytes, checked against its digest and signed size.

        Raises:
            TransportError: Try again later.
            DigestMismatchError: The server holds something else.
        """

    def blob(
        self, model: str, blob: Descriptor, part: Path, *, cancelled: Cancelled, held: HeldBlob | None = None,
        came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """Complete a part file, continuing where it ends; never more bytes than the blob's size.

        Args:
            model: Repository.
            blob: What is to come.
            part: Where it is collected.
            cancelled: Tells that it is given up.
            held: What the server may code it against.
            came: Told after every read which share of what travels is there, 0 to 1.

        Raises:
            TransportError: Try again later; the part is kept.
            CancelledError: It was given up.
        """


class Trust(Protocol):
    """What may run, and who may say what should run where."""

    def refresh(self) -> SignedList:
        """Fetch and verify the newest signed list.

        Raises:
            TransportError: The server could not be reached.
            TrustError: What it sent can't be trusted.
        """

    def known(self) -> SignedList | None:
        """Return the list that was verified last, without any network."""

    def newest(self) -> SignedList | None:
        """Return the list that was verified last, even when it has expired, without any network."""

    def assignment_keys(self) -> list[Key]:
        """Return the keys that sign assignments, of the newest verified root."""

    def targets_version(self) -> int:
        """Return the version below which no signed list is accepted."""


class PreflightLimits(msgspec.Struct, frozen=True):
    """What the child process runs and may use.

    Attributes:
        variant: Path of the form of the model that would answer here; no other form vouches for it.
        memory_bytes: For the model, over what the interpreter and runtime need themselves; none: by its size.
        wall_s: Seconds until it is killed.
        threads: Of the runtime.
        latency_budget_ms: p95 of one row that the bundle allows; none: any.
        providers: Execution providers of the runtime, the best first.
    """

    variant: str = MODEL_ONNX
    memory_bytes: int | None = None
    wall_s: float = 120.0
    threads: int = 1
    latency_budget_ms: float | None = None
    providers: tuple[str, ...] = (CPU,)


class PreflightOutcome(msgspec.Struct, frozen=True):
    """What the child found.

    Attributes:
        passed: Whether the model may run here.
        code: Why not, as a word.
        message: Why not, in a sentence.
        transient: Not passed, but the model is not to blame: try again later.
        measured: ``rows``, ``p95_ms``, ``rss_bytes``, ``seconds``.
    """

    passed: bool
    code: str = ""
    message: str = ""
    transient: bool = False
    measured: dict[str, float] = {}


class Preflight(Protocol):
    """Runs a stored bundle's self-test where it can do no harm."""

    def run(self, digest: str, *, limits: PreflightLimits, cancelled: Cancelled) -> PreflightOutcome:
        """Return the outcome; never raises for what a model does.

        Raises:
            CancelledError: It was given up.
        """


class HookOutcome(msgspec.Struct, frozen=True):
    """What became of a hook.

    Attributes:
        exit_code: With which it ended; none: it did not end by itself.
        said: The first line that it printed.
        fault: Why it did not run to its end; empty: it did.
    """

    exit_code: int | None = None
    said: str = ""
    fault: str = ""


class Hooks(Protocol):
    """The integrator's programs around an update."""

    def has(self, kind: HookKind) -> bool:
        """Tell whether there is a hook of this kind."""

    def run(self, occasion: Occasion) -> HookOutcome:
        """Run the hook for an occasion, bounded in time; never raises for what it does."""


class HoldSource(Protocol):
    """Where an operator at the device says that updates should wait."""

    def load(self) -> Hold | None:
        """Return what was said last; none: nothing. It may be over."""


class DocumentSource(Protocol):
    """Where the signed documents of the list come from: the server, or a parcel."""

    url: str

    def open(self, method: str, path: str) -> AbstractContextManager[Any]:
        """Return an answer with `status` and `read1`, for a URL below `url`."""


class Parcel(DocumentSource, Protocol):
    """A file that brings an assignment and all that belongs to it."""

    about: About

    def desired(self) -> bytes:
        """Return the signed assignment."""

    def receipt(self) -> bytes | None:
        """Return the signed receipt for the device's mail, if there is one."""

    def manifest(self, digest: str) -> bytes:
        """Return a bundle's manifest."""

    def copy_blob(self, blob: Descriptor, target: Path) -> None:
        """Copy a blob, of exactly its size."""
