"""The page about the converter in Python: every example on it is run, in order, and says what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/converter-python.md"


def test_every_example_of_the_page_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8").replace("```", "")
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(verbose=False).run(examples)
    assert result.attempted > 30
    assert result.failed == 0, capsys.readouterr().out
