"""Where a version comes from, as what lies beside its bundle states it: ours, foreign and broken statements."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_server.registry.lineage import MEASUREMENT, PARITY, PROVENANCE, STATEMENT_TYPE
from shoal_server.testing.bundles import TinyBundle, push_bundle, put_manifest, tiny_bundle

Headers = dict[str, str]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MATERIALS = [
    {"name": "sample", "digest": {"sha256": "aa"}, "annotations": {"rows": 9}},
    {"name": "source", "digest": {"gitCommit": "c0ffee"}, "uri": "https://example/x", "annotations": {"dirty": True}},
]


def state(client: TestClient, bundle: TinyBundle, content: bytes, headers: Headers) -> None:
    """Lay a statement beside a bundle."""
    parts = []
    for part in (b"{}", content):
        digest = sha256_digest(part)
        client.post("/v2/quality/blobs/uploads/", params={"digest": digest}, content=part, headers=headers)
        parts.append({"mediaType": STATEMENT_TYPE, "digest": digest, "size": len(part)})
    subject = {"mediaType": MANIFEST, "digest": bundle.digest, "size": len(bundle.manifest)}
    raw = canonical_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": STATEMENT_TYPE,
            "config": parts[0],
            "layers": parts[1:],
            "subject": subject,
        }
    )
    answer = put_manifest(client, "quality", sha256_digest(raw), raw, headers=headers, media_type=MANIFEST)
    assert answer.status_code == 201, answer.text


def said(kind: str, predicate: Any) -> bytes:
    return canonical_bytes({"predicateType": kind, "predicate": predicate})


def lineage(client: TestClient, headers: Headers) -> dict[str, Any]:
    answer = client.get("/api/v1/models/quality/versions/1.0.0/lineage", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def bundle(client: TestClient, releaser: Headers) -> TinyBundle:
    made = tiny_bundle()
    assert push_bundle(client, made, headers=releaser).status_code == 201
    return made


def test_code_data_parity_and_cost_are_told(client: TestClient, bundle: TinyBundle, releaser: Headers) -> None:
    making = {"resolvedDependencies": MATERIALS, "internalParameters": {"packages": {"numpy": "2.4"}}}
    state(client, bundle, said(PROVENANCE, {"buildDefinition": making}), releaser)
    state(client, bundle, said(PARITY, {"rows": 9, "label_flips": 0, "max_abs": 1e-7}), releaser)
    state(client, bundle, said(MEASUREMENT, {"cost": {"p50_ms": 0.1}}), releaser)
    found = lineage(client, releaser)
    assert found["source"]["inputs"] == [{"name": "sample", "digest": "sha256:aa", "rows": 9}]
    assert found["source"]["code"] == {"uri": "https://example/x", "commit": "c0ffee", "dirty": True}
    assert found["source"]["packages"] == {"numpy": "2.4"}
    assert found["parity"] == {"rows": 9, "label_flips": 0, "max_abs": 1e-7, "max_rel": None}
    assert found["cost"]["p50_ms"] == 0.1


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b"[]",
        b"9" * ((1 << 20) + 1),
        said(PROVENANCE, "text"),
        said(PROVENANCE, {"buildDefinition": [], "runDetails": 7}),
        said(PROVENANCE, {"buildDefinition": {"resolvedDependencies": [5, None, {"digest": "x"}]}}),
        said(PARITY, {"rows": "many"}),
        said(MEASUREMENT, {"cost": "much"}),
    ],
)
def test_a_statement_that_is_none_is_left_out(
    client: TestClient, bundle: TinyBundle, releaser: Headers, content: bytes
) -> None:
    state(client, bundle, content, releaser)
    found = lineage(client, releaser)
    assert found["ref"] == "quality:1.0.0"
    assert not (found["source"] or {}).get("inputs")
    assert set((found["parity"] or {}).values()) <= {None}
    assert found["cost"] is None


def with_parameter(written: bytes) -> bytes:
    return said(PROVENANCE, {"buildDefinition": {"externalParameters": {"depth": 0}}}).replace(
        b":0}", b":%s}" % written
    )


HOSTILE = (
    with_parameter(b"[" * 300 + b"]" * 300),
    with_parameter(b"[" * 100_000 + b"]" * 100_000),
    with_parameter(b"NaN"),
    with_parameter(b"-Infinity"),
    with_parameter(b"1e999"),
    with_parameter(b'"\\ud800 alone"'),
    with_parameter(b"9" * 400),
    with_parameter(b"9" * 5000),
    with_parameter(b'"%s"' % (b"x" * 500_000)),
    with_parameter(b'"\xff"'),
    said(PARITY, {"rows": 0}).replace(b":0}", b":%s}" % (b"9" * 400)),
    said(PARITY, {"rows": True}),
    said(MEASUREMENT, {"cost": {"p50_ms": 0}}).replace(b":0}", b":%s}" % (b"9" * 400)),
)


def test_a_hostile_statement_costs_no_page(client: TestClient, bundle: TinyBundle, releaser: Headers) -> None:
    for content in HOSTILE:
        state(client, bundle, content, releaser)
        found = lineage(client, releaser)
        assert set((found["parity"] or {}).values()) <= {None}
        assert set((found["cost"] or {}).values()) <= {None}
        assert len(str(found["source"])) < 4000
    same = {"old": "1.0.0", "new": "1.0.0"}
    changes = client.get("/api/v1/models/quality/diff", params=same, headers=releaser)
    assert changes.status_code == 200, changes.text
