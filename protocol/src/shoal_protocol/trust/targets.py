"""The signed list of releases: TUF targets metadata over manifest digests.

A target's path is ``<model>/<version>``, its hash the bundle's digest, its length the manifest's; ``custom`` carries
the release counter. Two lists stand in the field ``x-shoal`` of the signed part: ``deny``, digests that must not be
installed, and ``minimum``, the least counter per model. (The Update Framework specification 1.0, section 4.5; unknown
fields are covered by the signature.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from shoal_protocol.canonical import parse_digest, sha256_digest
from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.refs import check_name, check_version
from shoal_protocol.trust.signed_list import SignedList, TargetEntry

SHOAL_FIELD = "x-shoal"
MAX_LIST_BYTES = 4 * 1024 * 1024
"""As TUF clients allow by default (5 MB), with some room."""


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
