"""Who judges signatures: what is asked, what is answered, and the judge that works in this process.

A judge reads and writes one folder, the cache of the TUF client; it knows no credentials and no network but the source
of documents that it is given. Judging needs 10 MB of libraries that nothing else of an agent at work needs, so an agent
lets a child process do it (`shoal_agent.adapters.judge_process`). Here, and in that child, they are imported at the
first question.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from shoal_agent.ports import DocumentSource
from shoal_protocol.trust.signed_list import SignedList

if TYPE_CHECKING:
    from securesystemslib.signer import Key


class StoredList(msgspec.Struct, frozen=True):
    """A verified list, and until when it allows new installs, milliseconds since the epoch."""

    releases: SignedList
    expires_ms: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge found.

    Attributes:
        time_keys: Ids of the keys of the timestamp role in the newest verified root, sorted.
        stored: The newest verified list; none: there is none, or it was not asked for.
        payload: Of the envelope that was asked about.
    """

    time_keys: tuple[str, ...]
    stored: StoredList | None = None
    payload: bytes = b""


class Judge(Protocol):
    """Judges what came, from the pinned root on. Every question may be asked again.

    Every method raises `TrustError` and `ContentError` for what it judges, `PeerError` when it could not judge, and
    `OSError` for the disk.
    """

    def refresh(self, source: DocumentSource, *, pinned: bytes, now_ms: int) -> Verdict:
        """Fetch, verify and durably store the newest metadata; the answer has the list.

        Args:
            source: The server, or a parcel.
            pinned: The root that all else is verified from.
            now_ms: Reference time for expiry.
        """

    def recall(self, *, pinned: bytes) -> Verdict:
        """Verify again what is stored."""

    def time_keys(self, *, pinned: bytes) -> Verdict:
        """Verify again the stored roots only."""

    def open(self, raw: bytes, kind: str, *, what: str, pinned: bytes) -> Verdict:
        """Verify an envelope's signature by the timestamp role; the answer has its payload.

        Args:
            raw: The envelope as received.
            kind: Which type its payload must have.
            what: What it is called in errors.
            pinned: The root that all else is verified from.
        """


class InProcessJudge:
    """Judges in this process.

    Args:
        folder: Cache of the TUF client.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def refresh(self, source: DocumentSource, *, pinned: bytes, now_ms: int) -> Verdict:
        """See `Judge`."""
        from shoal_agent.adapters import tuf_client  # noqa: PLC0415 - see the module's docstring

        stored = tuf_client.refresh(self._folder, http=source, bootstrap=pinned, now_ms=now_ms)
        return Verdict(time_keys=self._keys(pinned), stored=stored)

    def recall(self, *, pinned: bytes) -> Verdict:
        """See `Judge`."""
        from shoal_agent.adapters import tuf_client  # noqa: PLC0415 - see the module's docstring

        stored = tuf_client.stored_list(self._folder, bootstrap=pinned)
        return Verdict(time_keys=self._keys(pinned), stored=stored)

    def time_keys(self, *, pinned: bytes) -> Verdict:
        """See `Judge`."""
        return Verdict(time_keys=self._keys(pinned))

    def open(self, raw: bytes, kind: str, *, what: str, pinned: bytes) -> Verdict:
        """See `Judge`."""
        from shoal_agent.adapters import tuf_client  # noqa: PLC0415 - see the module's docstring
        from shoal_protocol.trust.envelope import opened  # noqa: PLC0415 - likewise

        keys = tuf_client.timestamp_keys(self._folder, bootstrap=pinned)
        return Verdict(time_keys=_ids(keys), payload=opened(raw, kind, keys, what=what))

    def _keys(self, pinned: bytes) -> tuple[str, ...]:
        from shoal_agent.adapters import tuf_client  # noqa: PLC0415 - see the module's docstring

        return _ids(tuf_client.timestamp_keys(self._folder, bootstrap=pinned))


def _ids(keys: list[Key]) -> tuple[str, ...]:
    return tuple(sorted(key.keyid for key in keys))
