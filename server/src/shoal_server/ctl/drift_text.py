"""What `shoalctl drift test` says: the answer in a sentence, effects in their units, and the JSON for programs."""

from __future__ import annotations

from typing import Any

from shoal_protocol.canonical import rounded
from shoal_server.statistics.samples import Comparison, FeatureResult, Verdict


def answer(found: Comparison) -> str:
    """Say the verdict over all features in a sentence."""
    drifting = [one for one in found.features if one.verdict is Verdict.DRIFT]
    few = [one for one in found.features if one.verdict is Verdict.TOO_FEW]
    total = len(found.features)
    if drifting:
        return f"Drift in {len(drifting)} of {total} features, most plainly {drifting[0].name}"
    if few:
        return f"Too few rows to say for {len(few)} of {total} features"
    return f"No drift in {total} features" if total != 1 else "No drift"


def effect_text(one: FeatureResult) -> str:
    """Write the view and the effect in its unit, such as `location +0.52 sd`."""
    if one.effect_unit == "share":
        sign = "+" if one.view in {"missing", "range"} else ""
        return f"{one.view} {100 * one.effect:{sign}.2g} % of rows"
    return f"{one.view} {one.effect:+.2f} sd" if one.effect_unit == "sd" else f"{one.view} {one.effect:.2f}"


def p_text(p: float) -> str:
    """Write a p-value.

    >>> p_text(0.0312), p_text(0.0), p_text(1.0)
    ('0.031', '< 1e-12', '1')
    """
    return "< 1e-12" if p < 1e-12 else f"{p:.2g}"


def as_json(found: Comparison, *, rows: tuple[int, int], alpha: float, notes: list[str]) -> dict[str, Any]:
    """Return the answer for programs; numbers have six significant digits."""
    return {
        "verdict": str(found.verdict),
        "n": rows[1],
        "n_reference": rows[0],
        "alpha": alpha,
        "features": [_feature(one) for one in found.features],
        "notes": notes,
    }


def _feature(one: FeatureResult) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "verdict": str(one.verdict),
        "view": str(one.view),
        "p": rounded(one.p),
        "effect": rounded(one.effect),
        "effect_unit": one.effect_unit,
        "cause": one.cause,
        "psi": rounded(one.psi),
        "psi_threshold": rounded(one.psi_threshold),
        "js": rounded(one.js),
        "js_threshold": rounded(one.js_threshold),
        "n": rounded(one.rows_current),
        "n_reference": rounded(one.rows_reference),
        "missing": rounded(one.missing_current),
        "missing_reference": rounded(one.missing_reference),
        "views": {name: rounded(p) for name, p in one.views.items()},
    }
