"""Examples in docstrings of the pure parts of pages, webhooks and shoalctl are true."""

import doctest

import pytest

import shoal_server.ctl.arguments
import shoal_server.ctl.commands.drift
import shoal_server.ctl.output
import shoal_server.ctl.settings
import shoal_server.outbox.filters
import shoal_server.outbox.places
import shoal_server.web.session_pages
import shoal_server.web.site
import shoal_server.web.words
import shoal_server.webhooks.schedule
import shoal_server.webhooks.signature
import shoal_server.webhooks.targets
import shoal_server.webhooks.views

MODULES = [
    shoal_server.ctl.arguments,
    shoal_server.ctl.commands.drift,
    shoal_server.ctl.output,
    shoal_server.ctl.settings,
    shoal_server.outbox.filters,
    shoal_server.outbox.places,
    shoal_server.web.session_pages,
    shoal_server.web.site,
    shoal_server.web.words,
    shoal_server.webhooks.schedule,
    shoal_server.webhooks.signature,
    shoal_server.webhooks.targets,
    shoal_server.webhooks.views,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_are_true(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
