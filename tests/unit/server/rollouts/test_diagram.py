"""The page about states says what the tables say."""

import pytest

from shoal_server.rollouts.diagram import page


def test_the_page_is_not_stale(request: pytest.FixtureRequest) -> None:
    written = (request.config.rootpath / "docs/reference/rollout-states.md").read_text()
    assert written == page(), "python -m shoal_server.rollouts.diagram > docs/reference/rollout-states.md"
