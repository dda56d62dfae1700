"""What every level of the suite shares: fixtures of databases and brokers, and what a skip means in CI."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["fixtures_database", "fixtures_broker"]


def pytest_configure() -> None:
    """Hear Ctrl-C also in a run that a shell put in the background: programs started here would ignore it as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when something was skipped although CI installs all that the tests use."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SHOAL_REFUSE_SKIPS") and reporter is not None and exitstatus == 0:
        skipped = reporter.stats.get("skipped", [])
        if skipped:
            reporter.write_line(f"{len(skipped)} tests were skipped, and SHOAL_REFUSE_SKIPS is set", red=True)
            session.exitstatus = 1
