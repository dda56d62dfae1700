"""What a caller may choose about a bundle beside its model, its sample and its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shoal_converter.conversion import Options
from shoal_converter.domain.parity import Tolerance


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What a caller may choose.

    Attributes:
        tolerance: What counts as equal to the source.
        float64_inputs: Feed floats in double from the start; else only where float32 gives other answers.
        converter_options: skl2onnx's, ``{id(estimator): {...}}``.
        about: The author's words for the model card, Markdown.
        licence: Text of the model's licence.
        gates: Default gates for rollouts.
        lineage: Added to the provenance: parameters, run ids.
        source: The model's file, for the provenance.
        validation: Rows that the model has never seen, in the sample's form: parity is proven on them too, and the
            reference profile, calibration, importance and all figures are of them.
        validation_y: Their labels or values.
        segments: Columns by which figures are split, by name, one value for each row that is judged: of the validation
            data where it has labels, else of the sample. They need not be features.
        segment_by: Which of them together; each alone, if not given.
        variants: Forms to build beside the canonical one: ``fp16``, ``int8``, ``int8-dynamic`` or ``auto``.
        latency_budget_ms: Declared: p95 of one row that a device may take, milliseconds.
        memory_budget_bytes: Declared: what the model may need beside interpreter and runtime.
        contract: What the features' values must be: ``{"fields": {"age": {"range": [0, 120], "missing": 0.01}}}``, or
            ``auto``: what the sample's are, with some room.
        reference: Whether the sample shows how values are distributed; else devices learn that on their first windows.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    float64_inputs: bool = False
    converter_options: Options | None = None
    about: str = ""
    licence: str = ""
    gates: Mapping[str, Any] | None = None
    lineage: Mapping[str, str] | None = None
    source: Path | None = None
    validation: Any = None
    validation_y: Any = None
    segments: Mapping[str, Any] | None = None
    segment_by: tuple[tuple[str, ...], ...] = ()
    variants: tuple[str, ...] = ()
    latency_budget_ms: float | None = None
    memory_budget_bytes: int | None = None
    contract: Mapping[str, Any] | Literal["auto"] | None = None
    reference: bool = True
