"""Where the device's state and its bundles are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from shoal_agent.domain.device import DeviceState
from shoal_protocol.bundle.manifest import Descriptor, Manifest


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
