"""Examples in docstrings of the pure parts of pages and of shoalctl are true."""

import doctest

import pytest

import shoal_server.ctl.arguments
import shoal_server.ctl.commands.drift
import shoal_server.ctl.output
import shoal_server.ctl.settings
import shoal_server.web.alert_pages
import shoal_server.web.session_pages
import shoal_server.web.site
import shoal_server.web.words

MODULES = [
    shoal_server.ctl.arguments,
    shoal_server.ctl.commands.drift,
    shoal_server.ctl.output,
    shoal_server.ctl.settings,
    shoal_server.web.alert_pages,
    shoal_server.web.session_pages,
    shoal_server.web.site,
    shoal_server.web.words,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_are_true(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
