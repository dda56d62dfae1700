"""What differs between two versions: runtime, inputs, outputs, files, and where they come from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OF_NAME_ONLY = ("name", "version", "parent")
_OF_CHANCE = frozenset({"finished_at"})


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each leaf that differs, with both values; a list is a leaf.

    Args:
        before: A version as HTTP shows it (`bundle`, `schema`, `files`), with its `lineage`.
        after: Another.
    """
    return list(_walk("", _comparable(before), _comparable(after)))


def _comparable(found: Mapping[str, Any]) -> dict[str, Any]:
    schema, lineage = found["schema"], found["lineage"]
    source = {name: value for name, value in (lineage["source"] or {}).items() if name not in _OF_CHANCE}
    return {
        "bundle": {name: value for name, value in found["bundle"].items() if name not in _OF_NAME_ONLY},
        "inputs": {field["name"]: field for field in schema["inputs"]},
        "outputs": {field["name"]: field for field in schema["outputs"]},
        "files": {file["path"]: file["digest"] for file in found["files"]},
        "size": found["size"],
        "metrics": found["metrics"],
        "parity": lineage["parity"] or {},
        "cost": lineage["cost"] or {},
        "source": {**source, "inputs": {one["name"]: one["digest"] for one in source.get("inputs", ())}},
    }


def _walk(where: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _walk(f"{where}.{key}" if where else key, before.get(key), after.get(key))
    elif before != after:
        yield {"where": where, "before": before, "after": after}
