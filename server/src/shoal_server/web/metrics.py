"""What Prometheus sees of this program: requests, loops, the link, the signed list, the fleet.

Owns the names and the moment at which values are read. Each program has a registry of its own, so that many can live
in one process. Values that the database knows are read when somebody asks, not kept up to date in between.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoal_server.loops import LoopHealth

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class RequestMetrics:
    """Counts and times requests by route, method and status; installed as ASGI middleware.

    Args:
        app: what is measured.
        registry: where the metrics go.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("method", "route", "status")
        self._requests = Counter("shoal_http_requests", "HTTP requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "shoal_http_request_seconds",
            "Time to the answer's headers",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")  # never the path, which callers choose
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._requests.labels(method, route, str(message["status"])).inc()
                self._seconds.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self.app(scope, receive, counted)


class ProgramMetrics(Collector):
    """Reads what is true at the moment of the scrape.

    Args:
        loops: the health of every worker loop.
        gauges: further (name, help, read) of single values; a read that fails leaves its value out.
    """

    def __init__(
        self, *, loops: Callable[[], Sequence[LoopHealth]], gauges: Sequence[tuple[str, str, Callable[[], float]]]
    ) -> None:
        self._loops = loops
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        alive = GaugeMetricFamily("shoal_loop_alive", "1 while the worker loop's thread runs", labels=["loop"])
        failing = GaugeMetricFamily("shoal_loop_failing_turns", "Turns that failed in a row", labels=["loop"])
        success = GaugeMetricFamily(
            "shoal_loop_last_success_timestamp_seconds", "When the loop last did a turn", labels=["loop"]
        )
        for health in self._loops():
            alive.add_metric([health.name], float(health.alive))
            failing.add_metric([health.name], float(health.failing))
            if health.last_success_at is not None:
                success.add_metric([health.name], health.last_success_at)
        yield from (alive, failing, success)
        for name, text, read in self._gauges:
            value = _read(read)
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead, so that registering reads nothing."""
        return ()


def _read(read: Callable[[], Any]) -> float | None:
    try:
        return float(read())
    except Exception:  # noqa: BLE001 - /readyz says what is wrong; the other metrics are still worth having
        return None
