"""The output gate's question, asked with stored windows.

Owns the stacking of windows for `compare`, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal_protocol.profile.profile import ProfileSpec
from shoal_protocol.profile.reference import Reference
from shoal_server.drift.compare import Comparison, Sample, compare_outputs
from shoal_server.telemetry.store import StoredWindow
from shoal_server.telemetry.windows import stack


def output_comparison(
    canary: Sequence[StoredWindow],
    control: Sequence[StoredWindow],
    *,
    spec: ProfileSpec,
    new_reference: Reference,
    parent_reference: Reference | None,
    tolerance: float,
    canary_before: Sequence[StoredWindow] = (),
    control_before: Sequence[StoredWindow] = (),
    before_reference: Reference | None = None,
) -> Comparison:
    """Compare the canary devices' predictions with the control's, see `compare.compare_outputs`.

    Args:
        canary: Windows of the new bundle, since each device's activation.
        control: Concurrent windows of comparable devices; empty: the canary's own past, or else its reference, is what
            there is to compare with.
        spec: Of the new bundle.
        new_reference: Of the new bundle.
        parent_reference: Of the bundle that the control runs.
        tolerance: Largest excess that passes: a share of rows, or of ranks.
        canary_before: Windows of the canary devices before the rollout.
        control_before: Windows of the control devices of the same span.
        before_reference: Of the bundle that ran then; the control's when left out.
    """
    assert spec.hash == new_reference.spec.hash, "the new bundle's reference is counted on its own spec"
    before = before_reference or parent_reference
    return compare_outputs(
        canary=Sample(stack(canary, spec), new_reference),
        control=_sample(control, parent_reference),
        canary_before=_sample(canary_before, before),
        control_before=_sample(control_before, before),
        tolerance=tolerance,
    )


def _sample(windows: Sequence[StoredWindow], reference: Reference | None) -> Sample | None:
    return Sample(stack(windows, reference.spec), reference) if windows and reference is not None else None
