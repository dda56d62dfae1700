"""Gates as a JUnit report, the form in which CI servers take results of any kind.

Owns the XML (the elements that GitLab, Jenkins and GitHub's reporters all read: testsuites, testsuite, testcase,
failure, skipped). Leaves to the callers what a gate is, and what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One gate's outcome.

    Attributes:
        group: What it belongs to, such as ``stage.1``; shown as the class of a test.
        name: The gate's.
        outcome: Whether it held; skipped: there was nothing to judge, or not enough.
        message: What was found, in a sentence.
    """

    group: str
    name: str
    outcome: Outcome
    message: str = ""


def junit_xml(suite: str, cases: Sequence[Case]) -> bytes:
    """Return the report as an XML document in UTF-8.

    Args:
        suite: What all gates together are about.
        cases: The gates in order.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failed" for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.outcome == "skipped" for case in cases)),
    }
    root = ET.Element("testsuites", counts)
    inside = ET.SubElement(root, "testsuite", {"name": _text(suite), **counts})
    for case in cases:
        entry = ET.SubElement(inside, "testcase", {"classname": _text(case.group), "name": _text(case.name)})
        if case.outcome == "failed":
            ET.SubElement(entry, "failure", {"message": _text(case.message)}).text = _text(case.message)
        elif case.outcome == "skipped":
            ET.SubElement(entry, "skipped", {"message": _text(case.message)})
        elif case.message:
            ET.SubElement(entry, "system-out").text = _text(case.message)
    raw: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return raw


def _text(value: str) -> str:
    """Return a text without the control characters that XML 1.0 can't hold."""
    return "".join(char if char in "\t\n" or char >= " " else "\N{REPLACEMENT CHARACTER}" for char in value)
