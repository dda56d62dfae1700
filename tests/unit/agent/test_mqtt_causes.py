"""Every known cause is explained to people."""

from __future__ import annotations

from pathlib import Path

from shoal_agent.adapters import mqtt_causes
from shoal_agent.adapters.mqtt_causes import cause

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "connection.md"


def test_a_known_reason_has_a_code_and_words():
    told = cause("Session taken over", doing="the end of the connection")
    assert told.code == "taken_over"
    assert "copy" in told.message


def test_an_unknown_reason_is_told_as_it_came():
    assert cause("Made up", doing="login").message == "the broker says: Made up (at login)"


def test_the_page_explains_every_code():
    page = PAGE.read_text(encoding="utf-8")
    codes = {code for code, _ in mqtt_causes._CAUSES.values()} | {"refused", "lost", "short_lived", "unreachable"}
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []
