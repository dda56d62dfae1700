"""Geometry of charts: nothing lost, nothing outside the frame."""

from shoal_server.web.charts import columns, segments


def test_nothing_counted_yet_is_a_flat_chart() -> None:
    assert columns([]).columns == ()
    assert columns([(0.0, "none")]).columns[0].height == 0.0


def test_segments_are_shares_of_the_whole() -> None:
    found = segments({"healthy": 5, "failed": 1, "lost": 0, "working": 2}, ("healthy", "failed", "lost"), total=10)
    assert [(part.kind, part.x, part.width) for part in found] == [("healthy", 0.0, 50.0), ("failed", 50.0, 10.0)]
    assert segments({"healthy": 0}, ("healthy",), total=0) == []
