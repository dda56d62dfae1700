"""Gates as a JUnit report."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from shoal_protocol.junit import Case, junit_xml


def test_counts_and_messages_are_where_ci_servers_look_for_them() -> None:
    raw = junit_xml(
        "check iris:1.0.0",
        [
            Case(group="iris:1.0.0", name="golden rows", outcome="passed", message="48 rows"),
            Case(group="iris:1.0.0", name="accuracy>=0.9", outcome="failed", message='0.8 < 0.9 "on" the sample'),
            Case(group="iris:1.0.0", name="memory", outcome="skipped", message="none is declared"),
        ],
    )
    root = ET.fromstring(raw)
    suite = root[0]
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "check iris:1.0.0")
    assert [suite.get(name) for name in ("tests", "failures", "skipped", "errors")] == ["3", "1", "1", "0"]
    passed, failed, skipped = suite
    assert [case.get("name") for case in suite] == ["golden rows", "accuracy>=0.9", "memory"]
    assert [child.tag for child in passed] == ["system-out"]
    assert failed[0].get("message") == '0.8 < 0.9 "on" the sample'
    assert skipped[0].tag == "skipped"


def test_text_that_xml_cannot_hold_does_not_break_the_report() -> None:
    raw = junit_xml("a\x1b[31m", [Case(group="g", name="n\x00", outcome="failed", message="\x08")])
    assert ET.fromstring(raw)[0].get("name") == "a\N{REPLACEMENT CHARACTER}[31m"
