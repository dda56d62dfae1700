"""Where a bundle comes from: its parent and its children, and what the pipeline that packed it stated.

Owns reading the statements that lie beside a bundle (in-toto, among them SLSA provenance). They are claims of who
pushed them, outside of what the bundle's digest covers: they are shown, and nothing is decided by them. One that does
not parse is left out, and so is what does not look as ours do, or is larger than anything that a page could show. Where
a bundle was packed more than once, the statement pushed last counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlmodel import Session

from shoal_protocol.errors import ShoalError
from shoal_server.registry import oci_store, store
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.tables import ModelVersion

STATEMENT_TYPE = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
PARITY = "urn:shoal:parity:v1"
MEASUREMENT = "urn:shoal:measurement:v1"

_PARITY_NUMBERS = ("rows", "label_flips", "max_abs", "max_rel")
_COST_NUMBERS = ("p50_ms", "p95_ms", "batch_us", "peak_bytes")

_MOST_BYTES = 1 << 20
_MOST_LEVELS = 12
_MOST_ENTRIES = 2000
_LONGEST_TEXT = 2000
_LARGEST = 1e300
_MOST_ANCESTORS = 50
_MOST_VERSIONS = 200


def lineage_of(session: Session, bundles: Bundles, row: ModelVersion) -> dict[str, Any]:
    """Return where a version comes from, as HTTP tells it."""
    stated = statements(session, bundles, row)
    parents = list(_ancestors(session, bundles, row))
    return {
        "ref": f"{row.model}:{row.version}",
        "digest": row.digest,
        "ancestors": parents,
        "children": _children(session, bundles, row),
        "source": _source(stated.get(PROVENANCE, {})),
        "parity": _numbers(stated.get(PARITY), _PARITY_NUMBERS),
        "cost": _numbers(_mapping(stated.get(MEASUREMENT, {}).get("cost")), _COST_NUMBERS),
    }


def statements(session: Session, bundles: Bundles, row: ModelVersion) -> dict[str, dict[str, Any]]:
    """Return the predicates that were stated about a version, by their type."""
    found = oci_store.referrers(session, row.model, row.digest, artifact_type=STATEMENT_TYPE)
    told: dict[str, dict[str, Any]] = {}
    for referrer in sorted(found, key=lambda one: (one.touched_at, one.digest)):
        for blob in referrer.blobs[-1:]:  # the first is the empty config
            document = _parsed(bundles.blob(blob, at_most=_MOST_BYTES))
            kind, predicate = document.get("predicateType"), document.get("predicate")
            if isinstance(kind, str) and isinstance(predicate, dict):
                told[kind] = predicate
    return told


def _ancestors(session: Session, bundles: Bundles, row: ModelVersion) -> Iterator[dict[str, Any]]:
    """Yield the parent, its parent and so on; one that is not here ends the line."""
    seen = {row.digest}
    digest = _parent(bundles, row.digest)
    while digest is not None and digest not in seen and len(seen) <= _MOST_ANCESTORS:
        seen.add(digest)
        known = store.version_of_digest(session, digest)
        yield {"ref": None if known is None else f"{known.model}:{known.version}", "digest": digest}
        digest = None if known is None else _parent(bundles, digest)


def _children(session: Session, bundles: Bundles, row: ModelVersion) -> list[dict[str, Any]]:
    later = store.versions(session, row.model, limit=_MOST_VERSIONS)
    return [
        {"ref": f"{one.model}:{one.version}", "digest": one.digest}
        for one in sorted(later, key=lambda one: one.counter)
        if _parent(bundles, one.digest) == row.digest
    ]


def _parent(bundles: Bundles, digest: str) -> str | None:
    try:
        found = (bundles.info(digest).parent or {}).get("digest")
    except (ShoalError, OSError):
        return None
    return found if isinstance(found, str) else None


def _source(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what SLSA provenance says of a bundle's making: code, data, libraries, parameters and time."""
    if not provenance:
        return None
    definition = _mapping(provenance.get("buildDefinition"))
    inside = _mapping(definition.get("internalParameters"))
    run = _mapping(provenance.get("runDetails"))
    code, inputs = None, []
    materials = definition.get("resolvedDependencies")
    for one in filter(None, map(_mapping, materials if isinstance(materials, list) else ())):
        digest, notes = _mapping(one.get("digest")), _mapping(one.get("annotations"))
        if "gitCommit" in digest:
            code = {"uri": one.get("uri"), "commit": str(digest["gitCommit"]), "dirty": notes.get("dirty") is True}
        elif "sha256" in digest:
            rows = notes.get("rows")
            inputs.append({"name": str(one.get("name")), "digest": f"sha256:{digest['sha256']}", "rows": rows})
    return {
        "finished_at": _mapping(run.get("metadata")).get("finishedOn"),
        "builder": _mapping(run.get("builder")).get("id"),
        "code": code,
        "inputs": inputs,
        "parameters": _mapping(definition.get("externalParameters")),
        "packages": _mapping(inside.get("packages")),
        "python": _mapping(inside.get("python")).get("version"),
    }


def _numbers(stated: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, float | None] | None:
    """Return the named figures, None for one that is no number; None: nothing was stated."""
    if not stated:
        return None
    return {name: _number(stated.get(name)) for name in names}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _parsed(raw: bytes | None) -> dict[str, Any]:
    try:
        return _mapping(_bounded(msgspec.json.decode(raw or b"{}", type=dict[str, Any])))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _bounded(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return what pages can show and JSON can hold of a value: texts cut, what is too deep or too large as None."""
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if isinstance(value, int | float):
        return value if abs(value) < _LARGEST else None
    if levels == 0 or value is None:
        return None
    if isinstance(value, list):
        return [_bounded(one, levels - 1) for one in value[:_MOST_ENTRIES]]
    entries = list(_mapping(value).items())[:_MOST_ENTRIES]
    return {name[:_LONGEST_TEXT]: _bounded(one, levels - 1) for name, one in entries}
