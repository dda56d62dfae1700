"""What differs between two versions."""

from __future__ import annotations

from typing import Any

from shoal_server.registry.differences import differences


def _version(**changes: Any) -> dict[str, Any]:
    field = {"name": "age", "dtype": "float32", "high": 90.0}
    source = {"finished_at": "2026-11-21T10:00:00Z", "inputs": [{"name": "sample", "digest": "sha256:aa", "rows": 9}]}
    found: dict[str, Any] = {
        "bundle": {"name": "q", "version": "1.0.0", "parent": None, "task": "classification"},
        "schema": {"inputs": [field], "outputs": []},
        "files": [{"path": "model/model.onnx", "digest": "sha256:bb"}],
        "size": 100,
        "metrics": {"accuracy": 0.9},
        "lineage": {"source": source, "parity": {"rows": 9}, "cost": {"p50_ms": 0.1}},
    }
    return {**found, **changes}


def test_name_parent_and_time_are_no_difference() -> None:
    bundle = {"name": "q", "version": "1.1.0", "parent": {"digest": "sha256:cc"}, "task": "classification"}
    later = {**_version()["lineage"]["source"], "finished_at": "2026-11-22T10:00:00Z"}
    assert differences(_version(), _version(bundle=bundle, lineage={**_version()["lineage"], "source": later})) == []


def test_each_leaf_that_differs_is_told_with_both_values() -> None:
    other = _version(
        schema={"inputs": [{"name": "age", "dtype": "float32", "high": 95.0}, {"name": "sex"}], "outputs": []},
        metrics={"accuracy": 0.95},
        lineage={"source": None, "parity": None, "cost": None},
    )
    found = {one["where"]: (one["before"], one["after"]) for one in differences(_version(), other)}
    assert found == {
        "inputs.age.high": (90.0, 95.0),
        "inputs.sex": (None, {"name": "sex"}),
        "metrics.accuracy": (0.9, 0.95),
        "parity.rows": (9, None),
        "cost.p50_ms": (0.1, None),
        "source.inputs.sample": ("sha256:aa", None),
    }
