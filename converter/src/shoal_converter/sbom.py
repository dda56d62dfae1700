"""A bill of materials for a bundle: CycloneDX 1.6 with a model card (ML-BOM), as an in-toto statement beside it.

Owns the form (https://cyclonedx.org/docs/1.6/json/, https://cyclonedx.org/bom as predicate type). What it says comes
from the bundle and from `lineage`; like every statement it stands outside the digest.
"""

from __future__ import annotations

import uuid
from typing import Any

from shoal_converter.bundle import Bundle
from shoal_converter.lineage import Lineage, statement

PREDICATE = "https://cyclonedx.org/bom"
_NAMESPACE = uuid.UUID("6f1d2c1e-7f0a-5b7e-9a53-2a5c8a6b9d10")
_APPROACHES = {"classification": "supervised", "regression": "supervised", "clustering": "unsupervised"}


def sbom_statement(bundle: Bundle, lineage: Lineage, *, made_at: str) -> bytes:
    """Return the statement.

    Args:
        bundle: The subject.
        lineage: Packages and sample.
        made_at: RFC 3339 time.
    """
    return statement(str(bundle.ref), bundle.digest, PREDICATE, bom(bundle, lineage, made_at=made_at))


def bom(bundle: Bundle, lineage: Lineage, *, made_at: str) -> dict[str, Any]:
    """Return the CycloneDX document; the serial number follows from the digest."""
    info = bundle.info
    model = f"{info.name}@{info.version}"
    libraries = [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        for name, version in sorted(lineage.packages.items())
        if (purl := f"pkg:pypi/{name}@{version}")
    ]
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": model,
        "name": info.name,
        "version": info.version,
        "hashes": [{"alg": "SHA-256", "content": bundle.digest.removeprefix("sha256:")}],
        "modelCard": _card(bundle, lineage),
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, bundle.digest)}",
        "version": 1,
        "metadata": {
            "timestamp": made_at,
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "shoal-convert",
                        "version": lineage.packages.get("shoal-converter", ""),
                    }
                ]
            },
            "component": component,
        },
        "components": libraries,
        "dependencies": [{"ref": model, "dependsOn": [library["bom-ref"] for library in libraries]}],
    }


def _card(bundle: Bundle, lineage: Lineage) -> dict[str, Any]:
    info = bundle.info
    approach = _APPROACHES.get(info.task)
    dataset = {
        "type": "dataset",
        "name": "sample",
        "contents": {"properties": [{"name": "sha256", "value": lineage.sample_digest.removeprefix("sha256:")}]},
    }
    metrics = bundle.reference.metrics if bundle.reference else {}
    card: dict[str, Any] = {
        "modelParameters": {
            "task": info.task,
            **({"approach": {"type": approach}} if approach else {}),
            "architectureFamily": info.framework,
            "datasets": [dataset],
            "inputs": [{"format": f"{field.name}: {field.dtype}"} for field in bundle.schema.inputs],
            "outputs": [{"format": f"{output.name}: {output.dtype}"} for output in bundle.schema.outputs],
        }
    }
    if metrics:
        figures = [{"type": name, "value": repr(value)} for name, value in sorted(metrics.items())]
        card["quantitativeAnalysis"] = {"performanceMetrics": figures}
    return card
