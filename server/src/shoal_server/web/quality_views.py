"""What the page of a version shows of its quality: figures in words, and accuracy by the hour as geometry. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal_server.web.words import percent

WIDTH, HEIGHT = 640.0, 150.0
_MOST_HOURS = 168


@dataclass(frozen=True)
class Point:
    """One hour's accuracy, with the ends of its interval, in the chart's own units."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class AccuracyChart:
    """Accuracy by the hour, by labels and by estimate, and the reference's as a line.

    Attributes:
        truth, estimate: One point for each hour that has it.
        reference: Height of the reference's accuracy; none: it is not known.
        bottom: What the lower edge means.
    """

    truth: tuple[Point, ...]
    estimate: tuple[Point, ...]
    reference: float | None
    bottom: float
    width: float = WIDTH
    height: float = HEIGHT


def accuracy_chart(hours: Sequence[Mapping[str, Any]], reference: float | None) -> AccuracyChart | None:
    """Lay out the newest hours, the oldest on the left; none: no hour has an accuracy."""
    shown = [hour for hour in hours[-_MOST_HOURS:] if hour["truth"] or hour["estimate"]]
    if not shown:
        return None
    lows = [figure["low"] for hour in shown for figure in (hour["truth"], hour["estimate"]) if figure]
    bottom: float = max(0.0, min([*lows, 1.0 if reference is None else reference]) - 0.02)
    step = WIDTH / max(len(shown), 24)

    def height(value: float) -> float:
        return round((HEIGHT - 4) * (1 - (value - bottom) / (1 - bottom)) + 2, 2)

    def points(kind: str, words: str, aside: float) -> tuple[Point, ...]:
        return tuple(
            Point(
                round(WIDTH - (len(shown) - place - 0.5 - aside) * step, 2),
                height(figure["value"]),
                height(figure["low"]),
                height(figure["high"]),
                f"{hour['at'][:13]}h {words}: {interval(figure)} of {figure['n']}",
            )
            for place, hour in enumerate(shown)
            if (figure := hour[kind])
        )

    line = None if reference is None else height(reference)
    return AccuracyChart(points("truth", "by labels", -0.15), points("estimate", "estimated", 0.15), line, bottom)


def interval(figure: Mapping[str, Any] | None) -> str:
    """Write a figure with its interval.

    >>> interval({"value": 0.931, "low": 0.92, "high": 0.94})
    '93.1 % (92 % to 94 %)'
    """
    if figure is None:
        return "–"
    return f"{percent(figure['value'])} ({percent(figure['low'])} to {percent(figure['high'])})"
