"""Which manifests and blobs of the registry something still refers to. Pure.

Owns the marking: from what is kept for its own sake, along every reference, until nothing new is reached. References
stay within a repository: an index keeps its manifests, a manifest keeps what it says something about, and a manifest
that is kept keeps whatever says something about it (its referrers, and the tag `sha256-<hex>` that stands for them in
clients without a referrers API).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_STANDS_FOR_RE = re.compile(r"sha256-([0-9a-f]{64})(?:\..*)?")


@dataclass(frozen=True)
class Node:
    """A manifest of one repository, with everything that it refers to."""

    repository: str
    digest: str
    blobs: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    subject: str | None = None


Name = tuple[str, str]
"""Repository and digest."""


def kept_manifests(
    nodes: Collection[Node], *, roots: Iterable[Name], tags: Iterable[tuple[str, str, str]]
) -> set[Name]:
    """Return the manifests that must stay.

    Args:
        nodes: Every manifest there is.
        roots: What is kept for its own sake; names of manifests that aren't there do no harm.
        tags: (repository, tag, digest) of every plain tag; such a tag is a root, except one that only stands for
            referrers, which goes with what it is named after.
    """
    by_name = {(node.repository, node.digest): node for node in nodes}
    followers: dict[Name, list[Name]] = defaultdict(list)
    for node in nodes:
        if node.subject is not None:
            followers[node.repository, node.subject].append((node.repository, node.digest))
    waiting = list(roots)
    for repository, tag, digest in tags:
        stands_for = _STANDS_FOR_RE.fullmatch(tag)
        if stands_for is None:
            waiting.append((repository, digest))
        else:
            followers[repository, f"sha256:{stands_for[1]}"].append((repository, digest))
    kept: set[Name] = set()
    while waiting:
        name = waiting.pop()
        if name in kept or name not in by_name:
            continue
        kept.add(name)
        node = by_name[name]
        subject = () if node.subject is None else (node.subject,)
        waiting += [(node.repository, digest) for digest in (*node.manifests, *subject)]
        waiting += followers[name]
    return kept


def kept_blobs(nodes: Iterable[Node], kept: Collection[Name]) -> set[Name]:
    """Return the blobs that the manifests that stay are made of."""
    return {(node.repository, blob) for node in nodes if (node.repository, node.digest) in kept for blob in node.blobs}
