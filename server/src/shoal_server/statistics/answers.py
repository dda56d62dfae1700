"""What a comparison of two samples says: the answer in a sentence, p-values, and the JSON for programs. Pure."""

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
        return f"Drift in {len(drifting)} of {total} features, most plainly {drifting[0].name}{_by_mix(drifting)}"
    if few:
        return f"Too few rows to say for {len(few)} of {total} features"
    return f"No drift in {total} features" if total != 1 else "No drift"


def _by_mix(drifting: list[FeatureResult]) -> str:
    asked = [one for one in drifting if one.p_given is not None]
    explained = sum(one.explained for one in asked)
    return f"; another mix alone explains {explained} of {len(asked)}" if asked else ""


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
        "p_given": None if one.p_given is None else rounded(one.p_given),
        "explained_by_mix": one.explained,
    }
