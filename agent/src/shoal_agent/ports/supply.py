"""Whence bundles and signed documents come: the server, or what somebody carries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shoal_agent.ports.work import Cancelled
from shoal_protocol.bundle.manifest import Descriptor

if TYPE_CHECKING:  # a start does without
    from shoal_protocol.parcel import About
    from shoal_protocol.trust.signed_list import SignedList


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

    def targets_version(self) -> int:
        """Return the version below which no signed list is accepted."""


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
