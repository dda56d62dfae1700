"""A rollout as lines of text."""

from __future__ import annotations

from typing import Any

from shoal_server.ctl.rollout_text import status_lines

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
