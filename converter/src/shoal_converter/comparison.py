"""What differs between two bundles, for people and pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from shoal_converter.bundle import Bundle
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema


@dataclass(frozen=True)
class Difference:
    """One thing that differs: what it is, and both sides as text (empty where it isn't there)."""

    what: str
    old: str
    new: str

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def differences(old: Bundle, new: Bundle) -> list[Difference]:
    """Compare two bundles, what matters most first; empty exactly when they are the same bundle."""
    if old.digest == new.digest:
        return []
    found = [*_inputs(old.schema, new.schema), *_outputs(old.schema, new.schema)]
    facts = zip(_facts(old), _facts(new), strict=True)
    found += [Difference(name, before, after) for (name, before), (_, after) in facts if before != after]
    found += _metrics(old, new)
    found += _grids(old, new)
    paths = sorted(set(old.files) | set(new.files))
    found += [
        Difference(f"file {path}", _size(old, path), _size(new, path))
        for path in paths
        if old.files.get(path) != new.files.get(path)
    ]
    return found


def _inputs(old: ModelSchema, new: ModelSchema) -> Iterator[Difference]:
    before, after = ({field.name: field for field in schema.inputs} for schema in (old, new))
    for name in sorted(set(before) | set(after)):
        sides = (_field(before.get(name)), _field(after.get(name)))
        if sides[0] != sides[1]:
            yield Difference(f"input {name}", *sides)


def _field(field: FieldSpec | None) -> str:
    return "" if field is None else f"{field.dtype}, missing {field.missing}"


def _outputs(old: ModelSchema, new: ModelSchema) -> Iterator[Difference]:
    before, after = ({output.name: output for output in schema.outputs} for schema in (old, new))
    for name in sorted(set(before) | set(after)):
        sides = tuple(
            "" if output is None else f"{output.dtype}{list(output.shape)} {', '.join(output.classes or ())}".strip()
            for output in (before.get(name), after.get(name))
        )
        if sides[0] != sides[1]:
            yield Difference(f"output {name}", *sides)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    info = bundle.info
    return [
        ("name", info.name),
        ("version", info.version),
        ("task", info.task),
        ("framework", info.framework),
        ("onnx", str(info.onnx)),
        ("variants", ", ".join(f"{form.path} ({form.platform or 'anywhere'})" for form in info.variants)),
        ("precision", info.variants[-1].precision),
        ("size", f"{bundle.size_bytes:,} bytes"),
    ]


def _metrics(old: Bundle, new: Bundle) -> Iterator[Difference]:
    before = old.reference.metrics if old.reference else {}
    after = new.reference.metrics if new.reference else {}
    for name in sorted(set(before) | set(after)):
        if before.get(name) != after.get(name):
            yield Difference(name, *(f"{side[name]:.6g}" if name in side else "" for side in (before, after)))
    parts, later = _segments(old), _segments(new)
    for name in sorted(set(parts) | set(later)):
        if parts.get(name) != later.get(name):
            yield Difference(name, parts.get(name, ""), later.get(name, ""))


def _segments(bundle: Bundle) -> dict[str, str]:
    """Return each figure of each segment, by a name that tells which."""
    return {
        f"{name} where {', '.join(f'{column} is {value}' for column, value in part.by.items())}": (
            f"{figure.value:.6g} (n {part.n})"
        )
        for part in (bundle.reference.segments if bundle.reference else ())
        for name, figure in part.metrics.items()
    }


def _grids(old: Bundle, new: Bundle) -> Iterator[Difference]:
    if old.reference is None or new.reference is None:
        return
    before, after = ({s.name: s.grid_hash for s in b.reference.spec.streams} for b in (old, new) if b.reference)
    changed = [name for name in sorted(set(before) & set(after)) if before[name] != after[name]]
    if changed:
        names = ", ".join(changed[:8]) + (" …" if len(changed) > 8 else "")
        yield Difference(
            "profiles", f"{len(changed)} streams are counted on other grids", f"{names}; pack with --parent"
        )


def _size(bundle: Bundle, path: str) -> str:
    return f"{len(bundle.files[path]):,} bytes" if path in bundle.files else ""
