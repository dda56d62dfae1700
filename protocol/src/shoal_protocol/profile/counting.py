"""What a device should count beyond what its bundle says: cells learnt on the first windows, rules set at the server.

Owns the document that the server keeps, and that a signed assignment names by its digest: so what is counted is as much
the server's word as where a bundle runs, and no more. It changes no answer: rules in it are counted, never refused by.

Invariant: the rules of the bundle come first and stay; those of the document follow them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shoal_protocol.bundle.contract import MOST_RULES, Rule
from shoal_protocol.canonical import Digest, canonical_bytes, parse_digest, sha256_digest
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.profile import ProfileSpec, parse_spec

FORMAT_VERSION = 1
MAX_BYTES = 4 * 1024 * 1024
COUNTING_PATH = "/api/v1/device/counting/"
"""Where a device fetches the document whose digest follows."""


class Counting(msgspec.Struct, frozen=True):
    """What is counted for one bundle.

    Attributes:
        bundle: Digest of the bundle that it is for.
        spec: Streams of a bundle that has none of its own; none: as the bundle says.
        rules: Beside those of the bundle's own contract.
    """

    bundle: str
    spec: ProfileSpec | None = None
    rules: tuple[Rule, ...] = ()


def rules_hash(rules: tuple[Rule, ...]) -> str:
    """Return 16 hexadecimal digits of rules beside a bundle's own; none of them: the empty text."""
    return sha256_digest(canonical_bytes(msgspec.to_builtins(rules)))[7:23] if rules else ""


def encode_counting(counting: Counting) -> bytes:
    """Return canonical JSON."""
    return canonical_bytes(
        {
            "format_version": FORMAT_VERSION,
            "bundle": counting.bundle,
            "spec": None if counting.spec is None else counting.spec.as_json(),
            "rules": msgspec.to_builtins(counting.rules),
        }
    )


class _Document(msgspec.Struct, kw_only=True):
    format_version: int
    bundle: str
    spec: list[dict[str, Any]] | None = None
    rules: tuple[Rule, ...] = ()


def parse_counting(raw: bytes, *, digest: str) -> Counting:
    """Parse the bytes that a signed digest names.

    Args:
        raw: As received.
        digest: Of the assignment.

    Raises:
        ContentError: They are other bytes, don't parse, are of a newer format, or hold a rule that would refuse.
    """
    if len(raw) > MAX_BYTES or sha256_digest(raw) != parse_digest(digest):
        raise ContentError(f"the document about what to count is not the one that was signed ({digest:.30}…)")
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"what to count: {error}") from error
    if document.format_version > FORMAT_VERSION:
        raise ContentError(
            f"what to count has format version {document.format_version}, this program reads up to {FORMAT_VERSION}",
            hint="update Shoal here",
        )
    if len(document.rules) > MOST_RULES or any(rule.action != "count" for rule in document.rules):
        raise ContentError("what to count holds too many rules, or one that would refuse: those come in bundles only")
    spec = None if document.spec is None else parse_spec(document.spec)
    return Counting(Digest(parse_digest(document.bundle)), spec, document.rules)
