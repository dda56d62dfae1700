"""What this device believes, on disk: the pinned root, the newest verified metadata, and the floors.

    trust/root.pinned.json   the root that the join token named; the anchor of every refresh
    trust/metadata/          the cache of the TUF client
    trust/floor.json         version of the newest signed list and newest signed time that were ever verified

The floors are our own and synced, because the TUF client syncs nothing: a cache file that a power cut emptied counts as
absent there, and its memory of versions would be lost. Who verifies is a `Judge`; what it found last is kept here, so
that it is asked for what is new only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.adapters.durable import put
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.domain.reference_time import believable, believed_clock, reference_ms
from shoal_agent.errors import ImplausibleTimeError
from shoal_agent.ports import Clock, DocumentSource
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError, ExpiredError, RollbackError, TrustError

if TYPE_CHECKING:
    from shoal_agent.adapters.judge import Judge, StoredList, Verdict
    from shoal_protocol.trust.signed_list import SignedList


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """``floor.json``: what only ever grows.

    Attributes:
        targets_version: Of the newest signed list that was verified, or that the join token told.
        time_ms: Newest time that the server signed, milliseconds since the epoch.
        time_keys: Ids of the keys that signed it; a floor of keys that a root took away is forgotten.
    """

    targets_version: int = 0
    time_ms: int = 0
    time_keys: tuple[str, ...] = ()


class TrustStore:
    """Trust of one device; used by one thread at a time.

    Args:
        folder: ``trust`` in the state folder.
        http: The server; none: only what is known already.
        root_digest: Of the pinned root.
        clock: Seconds UTC by the device's clock.
        judge: Makes who verifies, from the folder of what it stores; none: in this process.
    """

    def __init__(
        self, folder: Path, *, http: HttpClient | None, root_digest: str, clock: Clock,
        judge: Callable[[Path], Judge] | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._metadata = folder / "metadata"
        self._http = http
        self._root_digest = root_digest
        self._clock = clock
        self._floors: Floors | None = None
        self._make_judge = judge
        self._keys: tuple[str, ...] | None = None
        self._stored: StoredList | None = None

    @cached_property
    def _judge(self) -> Judge:
        if self._make_judge is not None:
            return self._make_judge(self._metadata)
        from shoal_agent.adapters.judge import InProcessJudge  # noqa: PLC0415 - a start asks nothing

        return InProcessJudge(self._metadata)

    def floors(self) -> Floors:
        """Return the floors; read once, because nobody else writes them.

        Raises:
            TrustError: The file is damaged: without it an old list could be passed off as new.
            OSError: It can't be read just now.
        """
        if self._floors is None:
            try:
                self._floors = msgspec.json.decode((self._folder / "floor.json").read_bytes(), type=Floors)
            except FileNotFoundError:
                return Floors()
            except msgspec.DecodeError as error:
                raise TrustError(f"trust/floor.json is damaged: {error}", hint="let the device join again") from error
        return self._floors

    def raise_floors(self, *, targets_version: int = 0, time_ms: int = 0) -> None:
        """Remember a verified version or signed time, before anything acts on it."""
        old = self.floors()
        keys = old.time_keys if time_ms <= old.time_ms else self._time_keys()
        self._put_floors(
            old,
            Floors(
                targets_version=max(old.targets_version, targets_version),
                time_ms=max(old.time_ms, time_ms),
                time_keys=keys,
            ),
        )

    def check_time(self, time_ms: int) -> None:
        """Refuse a signed time that is too far ahead; see `shoal_agent.domain.reference_time`.

        Raises:
            ImplausibleTimeError: Neither the clock nor the release key's list speaks for it.
            PeerError: The list that could is not known, and the server can't be asked.
        """
        floor_ms, clock_ms = self.floors().time_ms, int(self._clock() * 1000)
        if believable(time_ms, clock_ms=clock_ms, floor_ms=floor_ms) or time_ms <= self.list_ends_ms():
            return
        self.refresh()
        end_ms = self.list_ends_ms()
        if time_ms > end_ms:
            raise ImplausibleTimeError(
                f"the server signed the time {time_ms} ms, which is past the end of the signed list ({end_ms} ms) and "
                f"of what this device's clock says ({clock_ms} ms)",
                hint="look at the server's clock and this device's; if both are right, the online key may be stolen",
            )

    def targets_version(self) -> int:
        """Return the version below which no signed list is accepted."""
        return self.floors().targets_version

    def now_ms(self) -> int:
        """Return the reference time, milliseconds since the epoch."""
        return reference_ms(int(self._clock() * 1000), self.floors().time_ms)

    def certificate_time(self, *, pinned: bool) -> float | None:
        """Return by which time a server's certificate is judged, seconds since the epoch; None: dates don't count.

        Without any signed time the clock is all there is. It is not asked where the authority was pinned by the join
        token, since a wrong clock would keep such a device from ever learning the time.

        Args:
            pinned: Whether the certificate must be of the server's own authority.
        """
        try:
            known = self.floors().time_ms > 0
        except (TrustError, OSError):
            known = False  # said by whoever needs the floors for what they are
        if known:
            return self.now_ms() / 1000
        return None if pinned else believed_clock(self._clock())

    def pin_root(self, raw: bytes) -> None:
        """Store the root that everything else is verified from.

        Raises:
            DigestMismatchError: It is not the root that the join token named.
        """
        self._check_root(raw)
        self._metadata.mkdir(parents=True, exist_ok=True)
        put(self._folder / "root.pinned.json", raw)

    def refresh(self, source: DocumentSource | None = None) -> SignedList:
        """Fetch, verify and persist the newest metadata.

        Args:
            source: Instead of the server: a parcel.

        Raises:
            TransportError: The server could not be reached.
            TrustError: What it sent can't be trusted; what was known stays.
        """
        http = source or self._http
        if http is None:
            raise TrustError("there is no server to ask for the signed list")
        try:
            found = self._refreshed(http)
        except ExpiredError:
            if not self._forget_times_of_old_keys():
                raise
            found = self._refreshed(http)
        self._forget_times_of_old_keys()
        self._hold_floor(found.releases)
        self.raise_floors(targets_version=found.releases.version)
        return found.releases

    def known(self) -> SignedList | None:
        """Return the list that was verified last.

        Raises:
            ExpiredError: It is no longer valid for new installs.
            TrustError: The cache is damaged.
        """
        stored = self._recalled()
        if stored is None:
            return None
        self._hold_floor(stored.releases)
        if self.now_ms() >= stored.expires_ms:
            raise ExpiredError("the signed list has expired", hint="the release key's owner has to sign it again")
        return stored.releases

    def newest(self) -> SignedList | None:
        """Return the list that was verified last, even when it has expired: what it revokes stays revoked.

        Raises:
            TrustError: The cache is damaged.
        """
        stored = self._recalled()
        if stored is None:
            return None
        self._hold_floor(stored.releases)
        return stored.releases

    def opened(self, raw: bytes, kind: str, *, what: str) -> bytes:
        """Return the payload of an envelope that the timestamp role's key of the newest verified root signed.

        Args:
            raw: As received.
            kind: Which type it must have.
            what: What it is called in errors.

        Raises:
            TrustError: It did not sign it.
            ContentError: The envelope does not parse, or is of another type.
            PeerError: It can't be judged now.
        """
        return self._learnt(self._judge.open(raw, kind, what=what, pinned=self._pinned())).payload

    def list_ends_ms(self) -> int:
        """Return until when the stored list lets new installs in, milliseconds since the epoch; 0: there is none."""
        try:
            stored = self._recalled()
        except (TrustError, ContentError):  # a damaged cache: a refresh makes it whole
            return 0
        return 0 if stored is None else stored.expires_ms

    def _time_keys(self) -> tuple[str, ...]:
        if self._keys is None:
            self._learnt(self._judge.time_keys(pinned=self._pinned()))
        return self._keys or ()

    def _refreshed(self, source: DocumentSource) -> StoredList:
        self._keys = self._stored = None  # even a refresh that fails may have brought a newer root
        found = self._learnt(self._judge.refresh(source, pinned=self._pinned(), now_ms=self.now_ms())).stored
        assert found is not None  # see `Judge`
        return found

    def _recalled(self) -> StoredList | None:
        if self._stored is None:
            self._learnt(self._judge.recall(pinned=self._pinned()))
        return self._stored

    def _learnt(self, verdict: Verdict) -> Verdict:
        """Keep what a judge found; one question is not asked about the list, and its answer says nothing of it."""
        self._keys, self._stored = verdict.time_keys, verdict.stored or self._stored
        return verdict

    def _forget_times_of_old_keys(self) -> bool:
        """Drop the floor of time when a root took its keys away; True when it was dropped."""
        old = self.floors()
        if not old.time_keys or old.time_keys == self._time_keys():
            return False
        self._put_floors(old, Floors(targets_version=old.targets_version))
        return True

    def _put_floors(self, old: Floors, new: Floors) -> None:
        if new != old:
            put(self._folder / "floor.json", msgspec.json.encode(new))
            self._floors = new

    def _hold_floor(self, found: SignedList) -> None:
        floor = self.targets_version()
        if found.version < floor:
            raise RollbackError(f"the signed list has version {found.version}, this device has already seen {floor}")

    def _pinned(self) -> bytes:
        try:
            raw = (self._folder / "root.pinned.json").read_bytes()
        except FileNotFoundError as error:
            raise TrustError("trust/root.pinned.json is missing", hint="let the device join again") from error
        return self._check_root(raw)

    def _check_root(self, raw: bytes) -> bytes:
        if sha256_digest(raw) != self._root_digest:
            raise DigestMismatchError(
                f"the trust root has {sha256_digest(raw)}, the join token named {self._root_digest}",
                hint="this is another server than the token was made for",
            )
        return raw
