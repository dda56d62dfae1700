"""The agent's own figures in the Prometheus text exposition format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal_agent.runtime.memory import resident_bytes
from shoal_agent.runtime.slots import Observed
from shoal_agent.runtime.window_sums import Totals
from shoal_protocol.profile.codec import LATENCY_EDGES_US

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = (
    ("predictions", "calls", "Prediction calls answered."),
    ("rows", "rows", "Rows answered."),
    ("prediction_errors", "errors", "Prediction calls that failed inside the model."),
    ("refused_requests", "refused", "Prediction calls whose input did not fit the schema."),
)


def exposition(observed: Iterable[Observed]) -> bytes:
    """Return the metrics page.

    Args:
        observed: Models that answer, and those on their way out.
    """
    totals: dict[str, Totals] = {}
    active: list[str] = []
    for one in observed:
        labels = _labels({"slot": one.slot, "bundle": f"{one.name}:{one.version}", "digest": one.digest})
        seen = one.observer.totals()
        totals[labels] = _sum(totals[labels], seen) if labels in totals else seen
        if one.is_active:
            active.append(labels)
    lines = _family("model_active", "gauge", "1 for the model that answers in a slot.")
    lines += [f"shoal_agent_model_active{{{labels}}} 1" for labels in active]
    for name, attribute, text in _COUNTERS:
        lines += _family(f"{name}_total", "counter", text)
        lines += [f"shoal_agent_{name}_total{{{at}}} {getattr(value, attribute)}" for at, value in totals.items()]
    lines += _family("prediction_seconds", "histogram", "Latency of prediction calls.")
    for labels, value in totals.items():
        lines += _histogram(labels, value)
    lines += ["# HELP process_resident_memory_bytes Resident memory.", "# TYPE process_resident_memory_bytes gauge"]
    lines.append(f"process_resident_memory_bytes {resident_bytes()}")
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP shoal_agent_{name} {text}", f"# TYPE shoal_agent_{name} {kind}"]


def _histogram(labels: str, totals: Totals) -> list[str]:
    below = totals.latency.cumsum().tolist()
    edges = [*(f"{edge / 1e6:g}" for edge in LATENCY_EDGES_US), "+Inf"]
    name = "shoal_agent_prediction_seconds"
    lines = [f'{name}_bucket{{{labels},le="{edge}"}} {count}' for edge, count in zip(edges, below, strict=True)]
    return [*lines, f"{name}_sum{{{labels}}} {totals.latency_sum_s:.9g}", f"{name}_count{{{labels}}} {below[-1]}"]


def _sum(a: Totals, b: Totals) -> Totals:
    return Totals(
        calls=a.calls + b.calls,
        rows=a.rows + b.rows,
        errors=a.errors + b.errors,
        refused=a.refused + b.refused,
        latency=a.latency + b.latency,
        latency_sum_s=a.latency_sum_s + b.latency_sum_s,
    )


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {
        name: value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for name, value in labels.items()
    }
    return ",".join(f'{name}="{value}"' for name, value in escaped.items())
