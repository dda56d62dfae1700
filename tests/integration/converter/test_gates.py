"""`shoal-convert check`: a bundle's gates, made again from it alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from shoal_converter import Bundle
from shoal_converter.gates import check, holds, parse_requirement
from shoal_converter.measurement import Cost
from shoal_converter.self_test import golden
from shoal_protocol.bundle.layout import BUNDLE_JSON, golden_output
from shoal_protocol.bundle.schema import encode_document
from shoal_protocol.bundle.tensors import encode_tensor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import CallerError


def a_cost(_model: bytes, _rows: Any) -> Cost:
    return Cost(p50_ms=1.0, p95_ms=2.0, batch_us=1.0, peak_bytes=3 << 20)


def with_files(bundle: Bundle, **files: bytes) -> Bundle:
    """Return a sound bundle with other files, so with another digest, and the statements about the old one."""
    changed = {**bundle.files, **files}
    manifest = bundle.manifest
    made = Bundle.build(changed, config=bundle.config, annotations=dict(manifest.annotations))
    return replace(made, statements=bundle.statements)


def with_runtime(bundle: Bundle, **runtime: Any) -> Bundle:
    info = msgspec.structs.replace(bundle.info, runtime=msgspec.structs.replace(bundle.info.runtime, **runtime))
    return with_files(bundle, **{BUNDLE_JSON: encode_document(info)})


def verdicts(bundle: Bundle, *required: str) -> dict[str, str]:
    gates = check(bundle, requirements=[parse_requirement(text) for text in required], measure=a_cost)
    return {gate.gate: gate.verdict for gate in gates}


def test_a_bundle_passes_its_own_gates_again(bundle: Bundle) -> None:
    found = verdicts(bundle, "accuracy>=0.9")
    assert found == {
        "onnxruntime": "pass",
        "golden rows": "pass",
        "stated parity": "pass",
        "latency budget": "skipped",
        "memory budget": "skipped",
        "accuracy>=0.9": "pass",
    }


def test_other_answers_fail_and_name_the_output(bundle: Bundle) -> None:
    _, outputs = golden(bundle)
    name = golden_output(list(outputs).index("probabilities"))
    other = with_files(bundle, **{name: encode_tensor("probabilities", outputs["probabilities"] + 0.01)})
    gates = {gate.gate: gate for gate in check(other, measure=a_cost)}
    assert gates["golden rows"].verdict == "fail"
    assert "probabilities differs in 144 of 144 values" in gates["golden rows"].found
    assert gates["stated parity"].verdict == "fail", "the statement is about the bundle that this was made from"
    assert not holds(tuple(gates.values()))


def test_a_statement_that_allowed_more_than_devices_are_told_fails(bundle: Bundle) -> None:
    document = json.loads(bundle.statements["parity"])
    document["predicate"]["tolerance"]["rtol"] = 0.5
    loose = replace(bundle, statements={"parity": json.dumps(document).encode()})
    assert verdicts(loose)["stated parity"] == "fail"
    assert verdicts(replace(bundle, statements={}))["stated parity"] == "skipped"


@pytest.mark.parametrize(
    ("runtime", "gate", "verdict"),
    [
        ({"latency_budget_ms": 1.9}, "latency budget", "fail"),
        ({"latency_budget_ms": 2.0}, "latency budget", "pass"),
        ({"memory_budget_bytes": 2 << 20}, "memory budget", "fail"),
        ({"memory_budget_bytes": 4 << 20}, "memory budget", "pass"),
        ({"min_onnxruntime": "99.1"}, "onnxruntime", "fail"),
    ],
)
def test_what_a_bundle_declares_is_held(bundle: Bundle, runtime: Any, gate: str, verdict: str) -> None:
    assert verdicts(with_runtime(bundle, **runtime))[gate] == verdict


def test_a_declared_budget_that_cannot_be_measured_is_no_pass(bundle: Bundle) -> None:
    declared = with_runtime(bundle, latency_budget_ms=5.0)
    gates = {gate.gate: gate.verdict for gate in check(declared, measure=lambda _model, _rows: None)}
    assert gates["latency budget"] == "fail"


def test_requirements_are_held_and_unknown_figures_named(bundle: Bundle) -> None:
    assert verdicts(bundle, "accuracy>=0.999")["accuracy>=0.999"] == "fail"
    assert verdicts(bundle, "accuracy<=0.999")["accuracy<=0.999"] == "pass"
    (gate,) = (
        each for each in check(bundle, requirements=[parse_requirement("r2>=0")], measure=a_cost) if each.bound == 0
    )
    assert "states no r2; it has accuracy" in gate.found
    for text in ("accuracy>95%", "accuracy", ">=0.9", "accuracy>=x"):
        with pytest.raises(CallerError, match="no requirement"):
            parse_requirement(text)


def test_the_command_tells_programs_and_ci_servers(shoal_convert: Any, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.tar")
    code, out, err = shoal_convert("check", "b.tar", "--require", "accuracy>=0.999", "--junit", "gates.xml", "--json")
    answer = json.loads(out)
    assert code == 1, err
    assert answer["ok"] is False
    assert answer["digest"] == bundle.digest
    assert set(answer["here"]) == {"platform", "onnxruntime", "python"}
    assert [gate["gate"] for gate in answer["gates"]][-1] == "accuracy>=0.999"
    suite = ET.parse(tmp_path / "gates.xml").getroot()[0]
    assert suite.get("failures") == "1"
    code, out, _ = shoal_convert("check", "b.tar")
    assert code == 0
    assert "48 rows give the same outputs here" in out
    _, outputs = golden(bundle)
    name = golden_output(list(outputs).index("label"))
    with_files(bundle, **{name: encode_tensor("label", outputs["label"][::-1])}).write(tmp_path / "other.tar")
    assert shoal_convert("check", "other.tar")[0] == 3
    assert shoal_convert("check", "b.tar", "--junit", "nowhere/gates.xml")[0] == 2
    assert shoal_convert("check", "nowhere.tar")[0] == 2
    assert sha256_digest(bundle.manifest_raw) == Bundle.open(tmp_path / "b.tar").digest
