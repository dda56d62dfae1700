"""The steps of an update, each from a target to the event that follows: check, fetch, test.

Owns which fault is final and which only postpones: what the transport or this machine did is tried again, also when it
brought other bytes than were signed; what the bundle is or does is final. It keeps no state of slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.domain.disk_room import room_needed
from shoal_agent.domain.fit import DeviceFacts, misfits, needed_blobs, variant_for
from shoal_agent.domain.slot import (
    MEMORY_SHORT,
    Cleared,
    Damaged,
    Deferred,
    Fetched,
    Passed,
    Postponed,
    Refused,
    SlotEvent,
    Target,
)
from shoal_agent.errors import CancelledError, DiskFullError, ListUnusableError, UnfitError
from shoal_agent.ports import BlobStore, Cancelled, Fetcher, HeldBlob, Preflight, PreflightLimits, Trust
from shoal_agent.updating.bundle_names import shown_stored
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.manifest import Descriptor, Manifest, parse_manifest
from shoal_protocol.bundle.schema import BundleInfo, parse_bundle_info
from shoal_protocol.errors import (
    ContentError,
    DigestMismatchError,
    ExpiredError,
    LocalError,
    PeerError,
    ShoalError,
    TrustError,
)

if TYPE_CHECKING:
    from shoal_protocol.trust.signed_list import SignedList, TargetEntry

_TOLD_SHARE = 0.05
_log = logging.getLogger(__name__)


class Parts(msgspec.Struct, frozen=True):
    """The outside world that the steps use."""

    store: BlobStore
    fetcher: Fetcher
    trust: Trust
    preflight: Preflight
    facts: DeviceFacts
    may_download: Callable[[], Deferred | None] = lambda: None
    """Returns why no file should be fetched now."""


class _Release(msgspec.Struct, frozen=True):
    """A target that is being installed: what the signed list says, and its manifest."""

    entry: TargetEntry
    raw: bytes
    manifest: Manifest


def is_stored(store: BlobStore, digest: str, *, facts: DeviceFacts) -> bool:
    """Tell whether a bundle is stored with every file that this device needs of it now.

    A file that the disk damaged is put away and the manifest stays; and what is needed changes with the device.
    """
    stored = store.manifest(digest)
    return stored is not None and all(store.has(blob) for blob in needed_blobs(stored, store.read, facts=facts))


class Work:
    """Carries out the steps; one update at a time.

    Args:
        parts: The outside world.
        preflight_s: Wall clock of a self-test, seconds.
        threads: Of onnxruntime.
    """

    def __init__(self, parts: Parts, *, preflight_s: float, threads: int) -> None:
        self._parts = parts
        self._preflight_s = preflight_s
        self._threads = threads
        self._releases: dict[str, _Release] = {}

    def check(self, target: Target, *, cancelled: Cancelled) -> SlotEvent:
        """Check trust and fit; fetches the manifest and ``bundle.json``, which say what will be needed.

        Raises:
            CancelledError: It was given up.
        """
        digest = target.digest or ""

        def run() -> SlotEvent:
            entry = self._listed(digest).check(digest)
            release = self._release(entry)
            info = self._bundle_info(release, cancelled)
            faults = misfits(info, self._parts.facts, platform=entry.platform)
            if faults:
                raise UnfitError("; ".join(faults))
            self._check_room(release)
            return Cleared()

        return _guarded(run)

    def fetch(self, target: Target, *, progress: Callable[[float], None], cancelled: Cancelled) -> SlotEvent:
        """Fetch every missing file, and declare the bundle whole; what comes when it may not is put off.

        Raises:
            CancelledError: It was given up; what came is kept.
        """
        digest, may_download = target.digest or "", self._parts.may_download

        def given_up() -> bool:
            return cancelled() or may_download() is not None

        def run() -> SlotEvent:
            release = self._releases.get(digest) or self._release(self._listed(digest).check(digest))
            self._bundle_info(release, cancelled)  # says which variant to leave out
            total = max(sum(blob.size for blob in self._needed(release)), 1)
            tell = _in_steps(progress)
            for blob in self._missing(release):
                if (deferred := may_download()) is not None:
                    return deferred
                begun = total - sum(b.size for b in self._missing(release))
                tell(begun / total)
                came = partial(_tell_part, tell, begun, blob.size, total)
                self._fetch_blob(release, blob, given_up, came=came)
            self._parts.store.add_bundle(release.raw)
            progress(1.0)
            return Fetched()

        return _guarded(run)

    def test(self, digest: str, *, cancelled: Cancelled) -> SlotEvent:
        """Run the golden rows in a child process.

        Raises:
            CancelledError: It was given up.
        """

        def run() -> SlotEvent:
            try:
                limits = self._limits(digest)
            except FileNotFoundError:  # what the disk lost is fetched again
                return Damaged(digest)
            outcome = self._parts.preflight.run(digest, limits=limits, cancelled=cancelled)
            if outcome.passed:
                measured = ", ".join(f"{name} {value:.4g}" for name, value in sorted(outcome.measured.items()))
                _log.info("%s passed its self-test: %s", shown_stored(self._parts.store, digest), measured)
                return Passed()
            if outcome.code == DigestMismatchError.code:
                # what the disk did to a file says nothing about the bundle; looking puts the damaged file away
                whole = self._parts.store.intact(digest)
                return Postponed(outcome.code, outcome.message) if whole else Damaged(digest)
            if outcome.transient:
                return Postponed(outcome.code, outcome.message, costly=outcome.code == MEMORY_SHORT)
            return Refused(outcome.code, outcome.message)

        return _guarded(run)

    def forget(self) -> None:
        """Drop what is known of releases; nothing is under way any more."""
        self._releases.clear()

    def _listed(self, digest: str) -> SignedList:
        """Return the list to judge by.

        An expired one bars what is new. A bundle that is stored whole was let in by a list that was valid then: to it
        the device may go back, unless the newest verified list took it off.
        """
        try:
            return self._signed(digest)
        except ListUnusableError as error:
            if not isinstance(error.__cause__, ExpiredError) or not self._is_stored(digest):
                raise
            newest = self._parts.trust.newest()
            if newest is None:
                raise
            _log.warning("the signed list has expired; going back to a stored bundle that it still names")
            return newest

    def _is_stored(self, digest: str) -> bool:
        return is_stored(self._parts.store, digest, facts=self._parts.facts)

    def _signed(self, digest: str) -> SignedList:
        """Return the newest list; without network the known one serves, if it names the digest."""
        try:
            try:
                return self._parts.trust.refresh()
            except PeerError:
                known = self._parts.trust.known()
                if known is None or (known.find(digest) is None and digest not in known.deny):
                    raise
                return known
        except (TrustError, ContentError) as error:
            # a list that can't be trusted or read is not the bundle's fault, and may come right later
            raise ListUnusableError(f"the signed list can't be used: {error.message}", hint=error.hint) from error

    def _release(self, entry: TargetEntry) -> _Release:
        if self._is_stored(entry.digest):
            raw = self._parts.store.manifest_bytes(entry.digest)
        else:
            raw = self._parts.fetcher.manifest(entry.model, entry.digest, size=entry.size)
        release = _Release(entry, raw, parse_manifest(raw))
        self._releases[entry.digest] = release
        return release

    def _bundle_info(self, release: _Release, cancelled: Cancelled) -> BundleInfo:
        blob = release.manifest.files().get(BUNDLE_JSON)
        if blob is None:
            raise ContentError(f"the bundle {release.entry.path} has no {BUNDLE_JSON}")
        if not self._parts.store.has(blob):
            self._fetch_blob(release, blob, cancelled)
        return parse_bundle_info(self._parts.store.read(blob.digest))

    def _needed(self, release: _Release) -> list[Descriptor]:
        needed = needed_blobs(release.manifest, self._parts.store.read, facts=self._parts.facts)
        return list({blob.digest: blob for blob in needed}.values())

    def _missing(self, release: _Release) -> list[Descriptor]:
        return [blob for blob in self._needed(release) if not self._parts.store.has(blob)]

    def _check_room(self, release: _Release) -> None:
        need, free = room_needed(sum(blob.size for blob in self._missing(release))), self._parts.store.free_bytes()
        if need > free:
            raise DiskFullError(f"the update needs {need} bytes on the disk, {free} are free")

    def _fetch_blob(
        self, release: _Release, blob: Descriptor, cancelled: Cancelled,
        *, came: Callable[[float], None] = lambda _share: None,
    ) -> None:  # fmt: skip
        """Fetch one blob; a wrong one is fetched once more from its first byte, because a cut may have broken it.

        Wrong twice, the server or something on the way to it holds other bytes than were signed. That says nothing
        about the bundle: the step is postponed, for longer than after a cut.
        """
        model, held = release.entry.model, self._held(release, blob)
        for last in (False, True):
            part = self._parts.store.part(blob.digest)
            try:
                self._parts.fetcher.blob(model, blob, part, cancelled=cancelled, held=held, came=came)
                self._parts.store.adopt(blob)
            except DigestMismatchError:
                self._parts.store.discard_part(blob.digest)
                if last:
                    raise
            else:
                return

    def _held(self, release: _Release, blob: Descriptor) -> HeldBlob | None:
        """Return the same file of the newest stored version of this model, which the server may code against."""
        store, listed = self._parts.store, self._parts.trust.newest()
        path = next((path for path, one in release.manifest.files().items() if one.digest == blob.digest), None)
        if listed is None or path is None:
            return None
        for digest in store.bundles():
            entry = listed.find(digest)
            manifest = store.manifest(digest) if entry is not None and entry.model == release.entry.model else None
            older = None if manifest is None else manifest.files().get(path)
            if older is not None and store.has(older):
                return HeldBlob(older, partial(store.read, older.digest))
        return None

    def _limits(self, digest: str) -> PreflightLimits:
        manifest = self._parts.store.manifest(digest)
        blob = manifest.files().get(BUNDLE_JSON) if manifest else None
        if blob is None:
            raise FileNotFoundError(f"the bundle {digest} is not stored whole")
        info = parse_bundle_info(self._parts.store.read(blob.digest))
        variant = variant_for(info, self._parts.facts)
        if variant is None:
            raise UnfitError(f"the bundle {digest} has no variant for {self._parts.facts.platform}")
        runtime = info.runtime
        return PreflightLimits(
            variant=variant.path,
            memory_bytes=runtime.memory_budget_bytes,
            wall_s=self._preflight_s,
            threads=self._threads,
            latency_budget_ms=runtime.latency_budget_ms,
            providers=self._parts.facts.place(variant).names,
        )


def _in_steps(progress: Callable[[float], None]) -> Callable[[float], None]:
    """Return what tells of progress only where it is worth a message to the server: a twentieth at a time."""
    told = -1.0

    def tell(share: float) -> None:
        nonlocal told
        if share - told >= _TOLD_SHARE:
            told = share
            progress(share)

    return tell


def _tell_part(tell: Callable[[float], None], begun: int, size: int, total: int, share: float) -> None:
    """Tell of a share of one file as one of all."""
    tell((begun + share * size) / total)


def _guarded(run: Callable[[], SlotEvent]) -> SlotEvent:
    """Run a step and say what its fault means.

    Raises:
        CancelledError: It was given up.
    """
    try:
        return run()
    except CancelledError:
        raise
    except (PeerError, LocalError) as error:
        return Postponed(error.code, error.message)
    except DigestMismatchError as error:
        return Postponed(error.code, f"what came is not what was signed: {error.message}", costly=True)
    except ShoalError as error:
        return Refused(error.code, error.message)
    except OSError as error:
        return Postponed("disk", f"a file operation failed: {error}")
