"""The signed list of releases: TUF targets metadata over manifest digests.

A target's path is ``<model>/<version>``, its hash the bundle's digest, its length the manifest's; ``custom`` carries
the release counter. Two lists stand in the field ``x-shoal`` of the signed part: ``deny``, digests that must not be
installed, and ``minimum``, the least counter per model. (The Update Framework specification 1.0, section 4.5; unknown
fields are covered by the signature.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from shoal_protocol.canonical import parse_digest, sha256_digest
from shoal_protocol.errors import CallerError, ContentError, DeniedError, RollbackError, UnsignedError
from shoal_protocol.refs import check_name, check_version

SHOAL_FIELD = "x-shoal"
MAX_LIST_BYTES = 4 * 1024 * 1024
"""As TUF clients allow by default (5 MB), with some room."""


@dataclass(frozen=True)
class TargetEntry:
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


@dataclass(frozen=True)
class SignedList:
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
    minimum: Mapping[str, int] = field(default_factory=dict)

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


def parse_targets(raw: bytes) -> Metadata[Targets]:
    """Parse a signed list without believing it.

    Raises:
        ContentError: It is no list of releases, or delegates to others, which version 1 does not know.
    """
    if len(raw) > MAX_LIST_BYTES:
        raise ContentError(f"a signed list of {len(raw)} bytes is over the limit of {MAX_LIST_BYTES}")
    try:
        metadata = Metadata[Targets].from_bytes(raw)
    except (RepositoryError, RecursionError) as error:
        raise ContentError(f"this is no signed list: {error}") from error
    if not isinstance(metadata.signed, Targets):
        raise ContentError("this is signed metadata, but no list of releases")
    if metadata.signed.delegations is not None:
        raise ContentError("the signed list delegates to other roles, which Shoal does not know")
    return metadata


def release_target(
    model: str, version: str, manifest_raw: bytes, *, counter: int, platform: str | None = None
) -> TargetFile:
    """Describe a release for the targets metadata.

    Raises:
        CallerError: A name, version or counter is not allowed.
    """
    if counter < 1:
        raise CallerError(f"the release counter of {model}/{version} is {counter}, expected 1 or more")
    custom: dict[str, Any] = {"counter": counter}
    if platform is not None:
        custom["platform"] = platform
    return TargetFile(
        length=len(manifest_raw),
        hashes={"sha256": sha256_digest(manifest_raw).removeprefix("sha256:")},
        path=f"{check_name(model)}/{check_version(version)}",
        unrecognized_fields={"custom": custom},
    )


def signed_list(targets: Targets) -> SignedList:
    """Read what verified targets metadata allows; its text is hostile even when signed.

    Raises:
        ContentError: A path, digest, counter or list is malformed.
    """
    entries = [_entry(path, target) for path, target in targets.targets.items()]
    extra = targets.unrecognized_fields.get(SHOAL_FIELD, {})
    if not isinstance(extra, dict):
        raise ContentError(f"the signed list's field {SHOAL_FIELD} is no object")
    deny, minimum = extra.get("deny", []), extra.get("minimum", {})
    if not isinstance(deny, list) or not isinstance(minimum, dict):
        raise ContentError("the signed list's deny or minimum is malformed")
    if not all(isinstance(counter, int) for counter in minimum.values()):
        raise ContentError("the signed list's minimum holds something other than whole numbers")
    return SignedList(
        version=targets.version,
        entries={entry.digest: entry for entry in entries},
        deny=frozenset(parse_digest(str(digest)) for digest in deny),
        minimum={str(model): counter for model, counter in minimum.items()},
    )


def set_restrictions(targets: Targets, *, deny: Iterable[str] = (), minimum: Mapping[str, int] | None = None) -> None:
    """Write the deny list and minimum counters into targets metadata that is to be signed."""
    targets.unrecognized_fields[SHOAL_FIELD] = {"deny": sorted(deny), "minimum": dict(minimum or {})}


def _entry(path: str, target: TargetFile) -> TargetEntry:
    model, slash, version = path.partition("/")
    custom = target.unrecognized_fields.get("custom", {})
    counter = custom.get("counter") if isinstance(custom, dict) else None
    platform = custom.get("platform") if isinstance(custom, dict) else None
    if not slash or not isinstance(counter, int) or not isinstance(platform, str | None):
        raise ContentError(f"the signed list's entry {path!r:.120} is no release of Shoal")
    try:
        check_name(model), check_version(version)
    except CallerError as error:
        raise ContentError(f"the signed list's entry {path!r:.120}: {error}") from error
    digest = parse_digest("sha256:" + str(target.hashes.get("sha256")))
    return TargetEntry(model, version, digest, target.length, counter, platform)
