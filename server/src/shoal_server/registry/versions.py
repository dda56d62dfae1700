"""Versions and aliases of models: what a tag means, which pushes are refused, how counters grow. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shoal_protocol.bundle.manifest import ARTIFACT_TYPE
from shoal_protocol.refs import ALIAS_RE, VERSION_RE
from shoal_server.errors import ConflictError

_REFERRERS_TAG_RE = re.compile(r"sha256-[0-9a-f]{64}.*")
TAG_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Tags of the OCI distribution specification 1.1."""


class VersionState(StrEnum):
    """Whether a version may still be brought to devices."""

    RELEASED = "released"  # on the signed list: devices may install it
    DENIED = "denied"  # on the signed deny list: no device installs it or returns to it
    UNSIGNED = "unsigned"  # pushed, but no release key has signed it yet: no device installs it
    REVOKED = "revoked"  # was on the signed list and is gone, or is below the model's signed minimum


class TagMeaning(StrEnum):
    """What a tag is to us."""

    VERSION = "version"  # names one bundle for ever
    ALIAS = "alias"  # names a version, and may be moved
    PLAIN = "plain"  # an artifact that is no model: no more than the OCI specification says


@dataclass(frozen=True)
class ResolvedBundle:
    """The one bundle that a reference names now."""

    model: str
    version: str
    digest: str

    @property
    def name(self) -> str:
        """`model:version`, for people."""
        return f"{self.model}:{self.version}"


def meaning_of_tag(tag: str, artifact_type: str) -> TagMeaning:
    """Tell what tagging an artifact of this type asks for.

    Raises:
        ConflictError: a model has a tag that can be neither version nor alias, or something else has a version as tag.
    """
    if artifact_type != ARTIFACT_TYPE:
        if VERSION_RE.fullmatch(tag):
            raise ConflictError(
                f"the tag {tag!r} names a model's version, but this artifact is no model (it is {artifact_type!r:.80})",
                hint="push models with shoal-convert push, and other artifacts under a tag that begins with a letter",
                oci_code="TAG_INVALID",
            )
        return TagMeaning.PLAIN
    if VERSION_RE.fullmatch(tag):
        return TagMeaning.VERSION
    if _REFERRERS_TAG_RE.fullmatch(tag):
        return TagMeaning.PLAIN
    if ALIAS_RE.fullmatch(tag):
        return TagMeaning.ALIAS
    raise ConflictError(
        f"the tag {tag!r} is neither a version (a digit first, such as 1.4.0) nor an alias (lower-case letters first)",
        oci_code="TAG_INVALID",
    )


def check_new_version(name: str, *, existing_digest: str | None, digest: str) -> bool:
    """Tell whether a version is new.

    Args:
        name: `model:version`, for the message.
        existing_digest: what the version has been so far, None when it doesn't exist.
        digest: what is pushed.

    Raises:
        ConflictError: the version exists with another digest; versions are immutable.
    """
    if existing_digest is None:
        return True
    if existing_digest == digest:
        return False
    raise ConflictError(
        f"{name} exists with digest {existing_digest} and versions never change; this push has {digest}",
        hint="give the new bundle a new version",
        oci_code="TAG_INVALID",
    )


def next_counter(counters: Iterable[int]) -> int:
    """Return the release counter of a model's next version: 1 more than the largest."""
    return 1 + max(counters, default=0)
