"""A rollout as lines of text."""

from __future__ import annotations

from typing import Any

from shoal_server.ctl.rollout_text import gate_cases, status_lines

NAMES = ("eligible", "offered", "reported", "healthy", "failed", "lost")


def _found(*faults: dict[str, Any]) -> dict[str, Any]:
    stage = {"state": "failed", "percent": 20.0, "gates": [], "faults": faults, **dict.fromkeys(NAMES, 9)}
    return {
        "name": "q-2",
        "state": "rolled_back",
        "bundle": "q:2.0.0",
        "slot": "q",
        "reason": "",
        "cohort": "*",
        "stages": [stage],
    }


def test_it_says_who_failed_and_why() -> None:
    many = {"fault": "over_budget: it needs more memory", "devices": 9, "examples": ["a", "b"]}
    one = {"fault": "unfit: no onnxruntime 1.20", "devices": 1, "examples": ["c"]}
    assert status_lines(_found(many, one))[-2:] == [
        "    a, b and 7 more: over_budget: it needs more memory",
        "    c: unfit: no onnxruntime 1.20",
    ]


def test_a_rollout_without_failures_says_nothing_of_them() -> None:
    assert status_lines(_found())[-1].startswith("    9 eligible")


def test_its_gates_are_cases_of_a_report_and_the_end_is_one_too() -> None:
    found = _found()
    verdicts = {"install": "fail", "errors": "pass", "output": "inconclusive"}
    found["stages"][0]["gates"] = [{"gate": gate, "verdict": v, "reason": f"{gate}!"} for gate, v in verdicts.items()]
    cases = [(case.group, case.name, case.outcome, case.message) for case in gate_cases(found)]
    assert cases == [
        ("q-2.stage 1", "install", "failed", "install!"),
        ("q-2.stage 1", "errors", "passed", "errors!"),
        ("q-2.stage 1", "output", "skipped", "output!"),
        ("q-2", "rollout", "failed", "rolled_back"),
    ]
    under_way = gate_cases({**found, "state": "running", "reason": "stage 1 soaks"})[-1]
    assert (under_way.outcome, under_way.message) == ("skipped", "running: stage 1 soaks")
    assert gate_cases({**found, "state": "completed"})[-1].outcome == "passed"
