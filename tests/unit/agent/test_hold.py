"""When a hold ends: what people type, and the mistakes that they make."""

from __future__ import annotations

import pytest

from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.cli_updates import end_of_hold
from shoal_agent.domain.hold import Hold
from shoal_agent.errors import SettingsError

NOW_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z


@pytest.mark.parametrize(("span", "seconds"), [("90m", 5400), ("4h", 14_400), ("1.5 d", 129_600), ("30S", 30)])
def test_spans(span, seconds):
    assert end_of_hold(span=span, until=None, now_ms=NOW_MS) == NOW_MS + seconds * 1000


def test_times():
    assert end_of_hold(span=None, until=None, now_ms=NOW_MS) is None
    assert end_of_hold(span=None, until="2026-09-21T15:13:20Z", now_ms=NOW_MS) == NOW_MS + 3_600_000
    assert end_of_hold(span=None, until="2026-09-21T16:13:20+01:00", now_ms=NOW_MS) == NOW_MS + 3_600_000


@pytest.mark.parametrize("span", ["2", "0h", "-1h", "two hours", ""])
def test_spans_that_are_none(span):
    with pytest.raises(SettingsError, match="90m, 4h or 2d"):
        end_of_hold(span=span, until=None, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("until", "told"), [("tomorrow", "expected a time"), ("2026-09-21T14:13:20Z", "over already"), ("", "expected")]
)
def test_times_that_are_none(until, told):
    with pytest.raises(SettingsError, match=told):
        end_of_hold(span=None, until=until, now_ms=NOW_MS)


def test_a_hold_that_can_not_be_read_holds(tmp_path):
    file = HoldFile(tmp_path)
    assert file.load() is None
    file.save(Hold(since_ms=1, until_ms=2, reason="r"))
    assert file.load() == Hold(since_ms=1, until_ms=2, reason="r")
    (tmp_path / "hold.json").write_bytes(b"{")
    damaged = file.load()
    assert damaged is not None
    assert damaged.holds_at(NOW_MS)
    assert "hold.json" in damaged.reason
    assert file.remove()
    assert not file.remove()
