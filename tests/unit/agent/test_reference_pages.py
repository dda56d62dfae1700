"""The generated reference pages are what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal_agent.domain.slot import SlotState
from shoal_agent.reference_pages import PAGES
from shoal_agent.settings import names

DOCS = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_not_stale(name):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), (
        "stale: run python -m shoal_agent.reference_pages docs/reference"
    )


def test_the_pages_name_everything():
    states, settings = PAGES["slot-states.md"](), PAGES["agent-configuration.md"]()
    for state in SlotState:
        assert f"| {state.value} |" in states
    for name in names():
        assert f"`{name}`" in settings
