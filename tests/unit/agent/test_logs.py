"""Log lines for programs and for the journal."""

from __future__ import annotations

import json
import logging
import sys

from shoal_agent.logs import JournalLines, JsonLines


def record(*, error: bool = False) -> logging.LogRecord:
    if not error:
        return logging.LogRecord("shoal_agent.x", logging.WARNING, "x.py", 1, "slot %s\nwaits", ("q",), None)
    try:
        raise ValueError("no")
    except ValueError:
        return logging.LogRecord("shoal_agent.x", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())


def test_an_event_is_one_json_line():
    text = JsonLines().format(record())
    line = json.loads(text)
    assert "\n" not in text
    assert (line["level"], line["logger"], line["message"]) == ("warning", "shoal_agent.x", "slot q\nwaits")
    assert line["at"].endswith("Z")
    assert "ValueError: no" in json.loads(JsonLines().format(record(error=True)))["traceback"]


def test_each_line_in_the_journal_has_its_priority():
    assert JournalLines().format(record()) == "<4>shoal_agent.x: slot q\n<4>waits"
    assert all(line.startswith("<3>") for line in JournalLines().format(record(error=True)).splitlines())
