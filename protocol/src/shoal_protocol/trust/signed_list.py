"""What a verified list of releases allows, as values: who judges by it needs none of what verified it.

Owns the questions that are asked of such a list; leaves its signed form, and how one is made of it, to
`shoal_protocol.trust.targets`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shoal_protocol.errors import DeniedError, RollbackError, UnsignedError


class TargetEntry(msgspec.Struct, frozen=True):
    """One release that the list allows."""

    model: str
    version: str
    digest: str
    size: int
    counter: int
    """Grows with every release of the model; compared with the list's minimum."""
    platform: str | None = None

    @property
    def path(self) -> str:
        """The target's path."""
        return f"{self.model}/{self.version}"


class SignedList(msgspec.Struct, frozen=True):
    """What verified targets metadata allows.

    Attributes:
        version: Of the metadata; only grows.
        entries: By digest.
        deny: Digests that bar installation and return.
        minimum: Least counter by model.
    """

    version: int
    entries: Mapping[str, TargetEntry]
    deny: frozenset[str] = frozenset()
    minimum: Mapping[str, int] = {}

    def find(self, digest: str) -> TargetEntry | None:
        """Return the release with this digest, if the list names it."""
        return self.entries.get(digest)

    def revocation(self, digest: str) -> str | None:
        """Say why a bundle that was installed once may not be started on or returned to; none: nothing bars it.

        A list forgets nothing that it still allows, so what it doesn't name was taken off.
        """
        try:
            self.check(digest)
        except UnsignedError:
            return f"the signed list of version {self.version} does not name it any more"
        except (DeniedError, RollbackError) as error:
            return error.message
        return None

    def next_counter(self, model: str) -> int:
        """Return the release counter of the model's next version: above all that the list says of the model."""
        known = [entry.counter for entry in self.entries.values() if entry.model == model]
        return 1 + max([*known, self.minimum.get(model, 0)], default=0)

    def check(self, digest: str) -> TargetEntry:
        """Return the release, when it may be installed.

        Raises:
            UnsignedError: The list does not name it.
            DeniedError: The list denies it.
            RollbackError: Its counter is below the model's minimum.
        """
        if digest in self.deny:
            raise DeniedError(f"{digest} is on the signed deny list", digest=digest)
        entry = self.entries.get(digest)
        if entry is None:
            raise UnsignedError(
                f"no signed release has the digest {digest} (signed list version {self.version})",
                hint="push the bundle with a release key, or refresh the list",
                digest=digest,
            )
        least = self.minimum.get(entry.model, 0)
        if entry.counter < least:
            raise RollbackError(
                f"{entry.path} has release counter {entry.counter}, the signed minimum is {least}", digest=digest
            )
        return entry
